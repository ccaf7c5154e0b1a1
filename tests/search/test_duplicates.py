"""Groups of near-duplicates: equal to comparing all pairs, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from nvembed_jax.search import duplicates
from nvembed_jax.search.duplicates import duplicate_groups, leaders, row_cosines


def all_pairs(embeddings: np.ndarray, threshold: float) -> list[int]:
    """Groups by the whole matrix, numbered by their first rows."""
    rows = embeddings.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    assert np.abs(cosines - threshold).min() > 2e-6, "the threshold hits a cosine: take another"
    near, groups = cosines >= threshold, [-1] * len(rows)
    for start in range(len(rows)):
        if groups[start] >= 0:
            continue
        number, waiting = max(groups) + 1, [start]
        while waiting:
            row = waiting.pop()
            if groups[row] < 0:
                groups[row] = number
                waiting += np.flatnonzero(near[row]).tolist()
    return groups


def crowded(count: int, width: int = 12, seed: int = 0) -> np.ndarray:
    """Rows around a few directions, near enough to hang together in part."""
    rng = np.random.default_rng(seed)
    around = rng.normal(size=(count // 4, width))[rng.integers(count // 4, size=count)]
    lengths = rng.uniform(0.1, 10, size=(count, 1))
    return (lengths * (around + 0.25 * rng.normal(size=(count, width)))).astype(np.float32)


@pytest.mark.parametrize("block", [8, 40, 64, None])
@pytest.mark.parametrize("threshold", [0.51, 0.93, 0.985])
def test_groups_are_those_of_all_pairs(block, threshold):
    for seed, count in enumerate((1, 2, 9, 150)):
        embeddings = crowded(max(count, 4), seed=seed)[:count]
        found = duplicate_groups(embeddings, threshold, block=block)
        assert found.tolist() == all_pairs(embeddings, threshold)
    assert len(set(found.tolist())) not in (1, 150)  # the example tells something


def test_rows_hang_together_through_others():
    angles = np.radians([0, 90, 20, 40, 120])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    at = {degrees: np.cos(np.radians(degrees)) for degrees in (15, 25, 35, 55)}
    assert duplicate_groups(embeddings, at[15]).tolist() == [0, 1, 2, 3, 4]
    assert duplicate_groups(embeddings, at[25]).tolist() == [0, 1, 0, 0, 2]
    assert duplicate_groups(embeddings, at[35]).tolist() == [0, 1, 0, 0, 1]
    assert duplicate_groups(embeddings, at[55]).tolist() == [0, 0, 0, 0, 0]


def test_a_cosine_that_is_the_threshold_reaches_it():
    embeddings = np.array([[3, 4], [8, 6]], np.float32)  # a cosine of 0.96
    assert duplicate_groups(embeddings, 0.96).tolist() == [0, 0]
    assert duplicate_groups(embeddings, 0.960002).tolist() == [0, 1]
    same = np.random.default_rng(0).normal(size=(1, 300)).astype(np.float32) * [[1], [3], [0.1]]
    assert duplicate_groups(same.astype(np.float32), 1).tolist() == [0, 0, 0]


def test_zeros_are_like_no_other():
    embeddings = np.array([[0, 0], [1, 0], [0, 0], [2, 0]], np.float32)
    assert duplicate_groups(embeddings, 0.5).tolist() == [0, 1, 2, 1]
    left, right = np.array([0, 0, 1]), np.array([2, 1, 3])
    assert row_cosines(embeddings, left, right).tolist() == [0, 0, 1]


def test_memory_maps_of_half_precision_are_read(tmp_path):
    half = crowded(40).astype(np.float16)
    np.save(tmp_path / "e.npy", half)
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    expected = all_pairs(half.astype(np.float32), 0.93)
    assert duplicate_groups(mapped, 0.93, block=16).tolist() == expected


def test_each_pair_of_blocks_is_multiplied_once(monkeypatch):
    shapes, multiply = [], duplicates._candidates
    monkeypatch.setattr(
        duplicates, "_candidates", lambda a, b, t: shapes.append((a.shape, b.shape))
        or multiply(a, b, t),
    )  # fmt: skip
    duplicate_groups(crowded(36), 0.9, block=8)
    assert shapes == [((8, 12), (8, 12))] * 15  # 5 blocks: 5 x 6 / 2


def test_what_hangs_together_already_is_not_compared_again(monkeypatch):
    compared, cosines = [], duplicates.row_cosines
    monkeypatch.setattr(duplicates, "_VALUES", 1 << 10)
    monkeypatch.setattr(
        duplicates, "row_cosines", lambda e, a, b: compared.append(len(a)) or cosines(e, a, b)
    )
    embeddings = np.ones((600, 4), np.float32)
    assert set(duplicate_groups(embeddings, 0.9, block=64).tolist()) == {0}
    assert sum(compared) < 5000  # of 179,700 pairs


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(ValueError, match="over 0 and up to 1"):
        duplicate_groups(np.ones((2, 2), np.float32), threshold)


def test_embeddings_that_are_not_finite_are_named():
    embeddings = np.ones((30, 4), np.float32)
    embeddings[21, 2] = np.nan
    with pytest.raises(ValueError, match="embedding of text 21 holds NaN"):
        duplicate_groups(embeddings, 0.9, block=8)


def test_the_first_or_the_best_row_of_a_class_leads_it():
    names = np.array([5, 7, 5, 5, 7, 1])
    assert leaders([names]).tolist() == [0, 1, 0, 0, 1, 5]
    best = np.array([3, 9, 2, 2, 8, 0])
    assert leaders([names], best).tolist() == [2, 4, 2, 2, 4, 5]
    halves = [np.array([1, 1, 2, 1]), np.array([1, 2, 1, 1])]
    assert leaders(halves).tolist() == [0, 1, 2, 0]
    assert leaders([names[:0]]).tolist() == []
