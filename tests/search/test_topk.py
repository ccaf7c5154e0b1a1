"""Exact top-k: equal to a full sort, whatever the blocks; ties; bad embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from nvembed_jax.search.topk import all_scores, top_k


def small_integers(shape, seed):
    """Embeddings whose dot products are exact in float32, with many ties."""
    return np.random.default_rng(seed).integers(-2, 3, size=shape).astype(np.float32)


@pytest.mark.parametrize(("queries", "passages"), [(1, 1), (1, 7), (3, 5), (9, 100), (2, 257)])
def test_top_k_is_a_stable_sort_of_all_scores(queries, passages):
    q, p = small_integers((queries, 6), 0), small_integers((passages, 6), 1)
    order = np.argsort(-(q @ p.T), axis=1, kind="stable")
    for k in {1, min(4, passages), passages}:
        scores, rows = top_k(q, p, k, query_block=4, passage_block=32)
        np.testing.assert_array_equal(rows, order[:, :k])
        np.testing.assert_array_equal(scores, np.take_along_axis(q @ p.T, order[:, :k], 1))
        assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


def test_equal_scores_go_by_row_across_blocks():
    passages = np.zeros((40, 2), np.float32)
    passages[[3, 17, 18, 39]] = 1
    scores, rows = top_k(np.ones((1, 2), np.float32), passages, 6, passage_block=8)
    assert rows.tolist() == [[3, 17, 18, 39, 0, 1]]
    assert scores.tolist() == [[2, 2, 2, 2, 0, 0]]


def test_negative_scores_are_not_beaten_by_padding():
    passages = -np.ones((3, 2), np.float32)
    scores, rows = top_k(np.ones((1, 2), np.float32), passages, 3, passage_block=256)
    assert rows.tolist() == [[0, 1, 2]]
    assert scores.tolist() == [[-2, -2, -2]]


def test_blocks_do_not_change_the_result():
    rng = np.random.default_rng(0)
    q, p = (rng.normal(size=(n, 33)).astype(np.float32) for n in (5, 1000))
    whole = top_k(q, p, 20)
    split = top_k(q, p, 20, query_block=2, passage_block=64)
    np.testing.assert_array_equal(whole[1], split[1])
    np.testing.assert_allclose(whole[0], split[0], rtol=1e-5, atol=1e-5)


def test_memory_maps_are_read_in_blocks(tmp_path):
    p = small_integers((50, 4), 0)
    np.save(tmp_path / "p.npy", p)
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    q = small_integers((2, 4), 1)
    for a, b in zip(top_k(q, mapped, 5, passage_block=16), top_k(q, p, 5), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(all_scores(q[0], mapped), p @ q[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_named(bad):
    good = np.ones((300, 4), np.float32)
    broken = good.copy()
    broken[270, 2] = bad
    with pytest.raises(ValueError, match="passage 270 holds NaN"):
        top_k(good[:1], broken, 3, passage_block=256)
    with pytest.raises(ValueError, match="query 270 holds NaN"):
        top_k(broken, good, 3)
    with pytest.raises(ValueError, match="passage 270 holds NaN"):
        all_scores(good[0], broken)


def test_bad_shapes_and_k_are_refused():
    q, p = np.ones((1, 4), np.float32), np.ones((3, 4), np.float32)
    for k in (0, 4):
        with pytest.raises(ValueError, match="k must be 1 to 3"):
            top_k(q, p, k)
    with pytest.raises(ValueError, match="one width"):
        top_k(np.ones((1, 5), np.float32), p, 1)


def test_no_queries_give_no_rows():
    scores, rows = top_k(np.ones((0, 4), np.float32), np.ones((3, 4), np.float32), 2)
    assert scores.shape == rows.shape == (0, 2)
