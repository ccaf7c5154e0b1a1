"""Draws, classifiers and clusterings."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from nvembed_jax.eval import probes


def blobs(per_class: int, spread: float, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    centres = 3 * np.eye(3)
    labels = [name for name in "abc" for _ in range(per_class)]
    points = np.repeat(centres, per_class, axis=0) + spread * rng.normal(size=(3 * per_class, 3))
    return points.astype(np.float32), labels


def test_few_shot_draws_take_so_many_of_each_class():
    labels = ["a"] * 9 + ["b"] * 3 + ["c"] * 20
    draws = probes.few_shot_draws(labels, 4, 5, seed=42)
    assert len(draws) == 5
    for rows in draws:
        assert len(set(rows.tolist())) == len(rows)
        assert Counter(labels[i] for i in rows) == {"a": 4, "b": 3, "c": 4}
    assert len({tuple(rows) for rows in draws}) == 5
    again = probes.few_shot_draws(labels, 4, 5, seed=42)
    assert all(np.array_equal(x, y) for x, y in zip(draws, again, strict=True))


def test_few_shot_draws_shuffle_what_the_last_one_left():
    order = list(range(6))
    draws = probes.few_shot_draws(["a"] * 6, 2, 2, seed=7)
    for rows in draws:
        np.random.RandomState(7).shuffle(order)
        assert rows.tolist() == order[:2]


def test_quick_draws_sample_class_after_class():
    labels = ["b", "a", "b", "b", "a"]
    rng = random.Random(3)
    expected = [rng.sample([0, 2, 3], 2) + rng.sample([1, 4], 2) for _ in range(3)]
    draws = probes.quick_draws(labels, 2, 3, random.Random(3))
    assert [rows.tolist() for rows in draws] == expected
    small = probes.quick_draws(labels, 16, 1, random.Random(0))[0]
    assert sorted(small.tolist()) == [0, 1, 2, 3, 4]


def test_classifiers_are_scikit_learns_on_the_drawn_rows():
    train, train_labels = blobs(20, 1.5)
    test, test_labels = blobs(15, 1.5, seed=1)
    draws = probes.few_shot_draws(train_labels, 8, 3, seed=0)
    gold, predicted = probes.classify(train, train_labels, test, test_labels, draws, seed=0)
    scores = probes.classification_scores(gold, predicted)
    expected = []
    for rows in draws:
        model = LogisticRegression(max_iter=100)
        expected.append(model.fit(train[rows], np.array(train_labels)[rows]).predict(test))
    accuracy = [np.mean(said == np.array(test_labels)) for said in expected]
    f1 = [f1_score(test_labels, said, average="macro") for said in expected]
    assert scores == pytest.approx({"accuracy": np.mean(accuracy), "f1": np.mean(f1)})
    assert 0.3 < scores["accuracy"] < 1


def test_macro_f1_counts_classes_that_were_only_meant_or_only_said():
    gold, said = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3])
    expected = f1_score(gold, said, average="macro", zero_division=0)
    assert probes.macro_f1(gold, said) == pytest.approx(expected)
    assert probes.macro_f1(gold, gold) == 1


def test_a_classifier_that_does_not_converge_is_no_warning():
    rng = np.random.default_rng(0)
    train = 1e3 * rng.normal(size=(40, 30)).astype(np.float32)
    labels = [str(i % 4) for i in range(40)]
    gold, predicted = probes.classify(train, labels, train, labels, [np.arange(40)], seed=0)
    assert predicted.shape == (40, 1)
    assert set(gold.tolist()) == {0, 1, 2, 3}


def test_separate_groups_are_found_and_noise_is_not(monkeypatch):
    monkeypatch.setattr(probes, "CLUSTER_SAMPLE", 200)
    points, labels = blobs(40, 0.05)
    assert probes.cluster_draws(points, labels, 2, seed=0) == pytest.approx([1, 1])
    assert probes.cluster_whole(points, labels, 2) == pytest.approx([1, 1])
    noise = np.random.default_rng(0).normal(size=points.shape).astype(np.float32)
    assert probes.cluster_draws(noise, labels, 2, seed=0).max() < 0.2
    assert probes.cluster_whole(noise, labels, 2).max() < 0.2


def test_clustering_draws_with_replacement_from_one_stream(monkeypatch):
    monkeypatch.setattr(probes, "CLUSTER_SAMPLE", 5)
    seen = []
    monkeypatch.setattr(
        probes, "_v_measure", lambda e, codes, k, seed, starts: seen.append((e[:, 0], k)) or 0.0
    )
    embeddings = np.arange(4, dtype=np.float32)[:, None]
    probes.cluster_draws(embeddings, ["x", "y", "z", "x"], 2, seed=9)
    rng = random.Random(9)
    for values, clusters in seen:
        assert values.tolist() == rng.choices(range(4), k=5)
        assert clusters == 3
