"""Clusters: blobs are found, rows that stand for them, words, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nvembed_jax.codes import unit
from nvembed_jax.search import clusters as module
from nvembed_jax.search.cluster_summary import (
    distinguishing_words,
    representative_texts,
    summary_markdown,
)
from nvembed_jax.search.clusters import ClusterOptions, Clusters, cluster_embeddings
from nvembed_jax.search.mining_texts import TextStore

SIZES = (15, 40, 25)


def blobs(width: int = 8, noise: float = 0.05, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around three axes, shuffled, and the axis of each."""
    rng = np.random.default_rng(seed)
    axis = rng.permutation(np.repeat([0, 1, 2], SIZES))
    rows = np.eye(width)[axis] + noise * rng.normal(size=(len(axis), width))
    return unit(rows).astype(np.float32), axis


def check_partition(found: Clusters, embeddings: np.ndarray, axis: np.ndarray) -> None:
    """The clusters are the blobs, the largest first."""
    assert found.sizes.tolist() == [40, 25, 15]
    np.testing.assert_array_equal(found.labels, np.array([2, 0, 1])[axis])
    for label in range(3):
        mean = embeddings[found.labels == label].mean(axis=0)
        centre = mean / np.linalg.norm(mean)
        np.testing.assert_allclose(found.centres[label], centre, atol=1e-5)
        cosines = embeddings[found.labels == label] @ centre
        np.testing.assert_allclose(found.scores[found.labels == label], cosines, atol=1e-5)


@pytest.mark.parametrize("method", [{"k": 3}, {"method": "hdbscan", "min_size": 8}])
def test_blobs_are_found(method):
    embeddings, axis = blobs(noise=0.02)
    check_partition(cluster_embeddings(embeddings, ClusterOptions(**method)), embeddings, axis)


@pytest.mark.parametrize("method", [{"k": 3}, {"method": "hdbscan", "min_size": 8}])
def test_clusters_are_the_same_each_time_and_from_memory_maps(tmp_path, method):
    embeddings, _ = blobs(width=60, noise=0.03)
    np.save(tmp_path / "e.npy", embeddings)
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    options = ClusterOptions(**method)
    first, second = cluster_embeddings(embeddings, options), cluster_embeddings(mapped, options)
    assert len(first.sizes) == 3
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_blocks_do_not_change_centres_and_scores(monkeypatch):
    embeddings, axis = blobs()
    monkeypatch.setattr(module, "_BLOCK", 7)
    check_partition(cluster_embeddings(embeddings, ClusterOptions(k=3)), embeddings, axis)


def test_hdbscan_leaves_out_what_is_in_no_cluster():
    embeddings, _ = blobs(noise=0.02)
    lonely = unit(-np.eye(8)[3:7]).astype(np.float32)
    found = cluster_embeddings(
        np.concatenate([lonely, embeddings]), ClusterOptions(method="hdbscan", min_size=8)
    )
    assert found.sizes.tolist() == [40, 25, 15]
    assert found.labels[:4].tolist() == [-1] * 4
    assert found.scores[:4].tolist() == [0] * 4
    assert (found.labels[4:] >= 0).all()


def test_without_any_cluster_there_are_no_centres():
    rows = unit(np.random.default_rng(0).normal(size=(12, 64))).astype(np.float32)
    found = cluster_embeddings(rows, ClusterOptions(method="hdbscan", min_size=6))
    assert found.sizes.tolist() == []
    assert found.centres.shape == (0, 64)
    assert set(found.labels.tolist()) == {-1}
    assert found.nearest(3) == []


def test_k_is_the_square_root_of_half_the_rows_at_most_fifty():
    rows = unit(np.random.default_rng(0).normal(size=(200, 8))).astype(np.float32)
    assert len(cluster_embeddings(rows).sizes) == 10
    assert len(cluster_embeddings(rows[:2]).sizes) == 1


def test_the_nearest_rows_stand_for_a_cluster():
    labels = np.array([0, 1, 0, -1, 1, 0])
    scores = np.array([0.5, 0.9, 0.8, 0.0, 0.95, 0.7], np.float32)
    found = Clusters(labels, scores, np.eye(2, dtype=np.float32), np.array([3, 2]))
    assert [rows.tolist() for rows in found.nearest(2)] == [[2, 5], [4, 1]]
    assert [rows.tolist() for rows in found.nearest(9)] == [[2, 5, 0], [4, 1]]


@pytest.fixture
def texts(tmp_path):
    """Eight texts: four of cats, three of bonds, one of neither."""
    store = TextStore(tmp_path / "texts")
    for text in (
        "the cat sat on the mat", "The CAT sat  on the mat", "a cat | the mouse <b>", "the cat ran",
        "the bond yield", "the bond yield rose", "the 10 bond traders", "the weather",
    ):  # fmt: skip
        store.add(text)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, -1])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.9, 0.8, 0.7, 0.0], np.float32)
    return store, Clusters(labels, scores, np.eye(2, dtype=np.float32), np.array([4, 3]))


def test_representative_texts_are_each_there_once(texts):
    store, found = texts
    assert representative_texts(found, store, 2) == [
        ["the cat sat on the mat", "a cat | the mouse <b>"],
        ["the bond yield", "the bond yield rose"],
    ]


def test_words_are_those_that_stand_out(texts):
    store, found = texts
    # "the" stands in all texts, "10" is a number, "ran" in a single text.
    assert distinguishing_words(found, store, 9) == [["cat", "mat", "on", "sat"], ["bond", "yield"]]
    assert distinguishing_words(found, store, 1) == [["cat"], ["bond"]]


def test_the_summary_is_a_table_that_texts_cannot_break(texts):
    store, found = texts
    page = summary_markdown(found, store, [("model", "m|1"), ("texts", "8")])
    lines = page.splitlines()
    assert lines[:4] == ["# Clusters", "", "- model: m\\|1", "- texts: 8"]
    assert lines[-1] == (
        "| 1 | 3 | 37.5% | bond, yield | the bond yield<br>the bond yield rose"
        "<br>the 10 bond traders |"
    )
    assert "a cat \\| the mouse &lt;b>" in lines[-2]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"method": "k-means"}, "did you mean 'kmeans'"),
        ({"method": "spectral"}, "expected kmeans or hdbscan"),
        ({"method": "hdbscan", "k": 3}, "k is an option of kmeans"),
        ({"min_size": 3}, "min_size is an option of hdbscan"),
        ({"k": 0}, "k must be at least 1; got 0"),
        ({"method": "hdbscan", "min_size": 1}, "min_size must be at least 2; got 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        ClusterOptions(**options)


def test_rows_that_cannot_be_clustered_are_refused(monkeypatch):
    rows = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match="k is 5, and there are 4 texts"):
        cluster_embeddings(rows, ClusterOptions(k=5))
    with pytest.raises(ValueError, match="min_size is 10, and there are 4 texts"):
        cluster_embeddings(rows, ClusterOptions(method="hdbscan"))
    monkeypatch.setattr(module, "HDBSCAN_ROWS", 3)
    with pytest.raises(ValueError, match="4 texts are too many for hdbscan"):
        cluster_embeddings(rows, ClusterOptions(method="hdbscan", min_size=2))
    rows[2, 1] = np.inf
    with pytest.raises(ValueError, match="embedding of text 2 holds NaN or infinity"):
        cluster_embeddings(rows, ClusterOptions(k=2))
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"nvembed_jax\[eval\]"):
        cluster_embeddings(rows)
