"""Padding, packing and the plan of batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvembed_jax.text.packing import (
    bucket_lengths,
    first_fit_decreasing,
    pack,
    pack_as_planned,
    pad,
    plan_batches,
    plan_rows,
    row_counts,
)
from nvembed_jax.text.tokenizer import Encoded

T, F = True, False


def encoded(ids: list[int], pool_start: int = 0) -> Encoded:
    return Encoded(np.asarray(ids, np.int32), pool_start, len(ids))


def test_pad_fills_rows_to_the_right():
    arrays = pad([encoded([5, 6, 7], 1), encoded([8])], length=4, rows=3, pad_id=2)
    np.testing.assert_array_equal(arrays.input_ids, [[5, 6, 7, 2], [8, 2, 2, 2], [2, 2, 2, 2]])
    np.testing.assert_array_equal(
        arrays.attention_mask, [[T, T, T, F], [T, F, F, F], [T, F, F, F]]
    )  # an empty row keeps one key
    np.testing.assert_array_equal(arrays.pool_mask, [[F, T, T, F], [T, F, F, F], [T, F, F, F]])
    assert arrays.segment_ids is None
    assert arrays.num_texts is None


def test_pad_of_nothing_is_filler():
    arrays = pad([], length=2, rows=1, pad_id=9)
    np.testing.assert_array_equal(arrays.input_ids, [[9, 9]])


def test_pack_puts_texts_into_rows_longest_first():
    texts = [encoded([1, 2]), encoded([3, 4, 5], 2), encoded([6]), encoded([7, 8])]
    arrays = pack(texts, length=4, pad_id=0, rows=3, num_texts=6)
    np.testing.assert_array_equal(arrays.input_ids, [[3, 4, 5, 6], [1, 2, 7, 8], [0, 0, 0, 0]])
    np.testing.assert_array_equal(
        arrays.segment_ids, [[1, 1, 1, 2], [0, 0, 3, 3], [-1, -1, -1, -1]]
    )
    np.testing.assert_array_equal(arrays.positions, [[0, 1, 2, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(arrays.pool_mask, [[F, F, T, T], [T, T, T, T], [F, F, F, F]])
    np.testing.assert_array_equal(arrays.attention_mask, np.asarray(arrays.segment_ids) >= 0)
    assert arrays.num_texts == 6


@pytest.mark.parametrize("build", [lambda e: pad(e, 2, 4, 0), lambda e: pack(e, 2, 0)])
def test_text_too_long_or_empty_is_named(build):
    with pytest.raises(ValueError, match="text 1 has 3 tokens; expected 1 to 2"):
        build([encoded([1]), encoded([1, 2, 3])])
    with pytest.raises(ValueError, match="text 0 has 0 tokens"):
        build([encoded([])])


def test_too_many_texts_for_a_shape_are_an_error():
    texts = [encoded([1, 1])] * 3
    with pytest.raises(ValueError, match="3 texts do not fit 2 rows"):
        pad(texts, 2, 2, 0)
    with pytest.raises(ValueError, match="need 3 rows of 3 tokens; got 2"):
        pack(texts, 3, 0, rows=2)
    with pytest.raises(ValueError, match="do not fit num_texts=2"):
        pack(texts, 3, 0, num_texts=2)


def slow_first_fit(lengths: list[int], capacity: int) -> tuple[list[int], list[int]]:
    free: list[int] = []
    row, start = [0] * len(lengths), [0] * len(lengths)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        k = next((k for k, room in enumerate(free) if room >= lengths[i]), len(free))
        if k == len(free):
            free.append(capacity)
        row[i], start[i] = k, capacity - free[k]
        free[k] -= lengths[i]
    return row, start


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.data())
def test_first_fit_decreasing_equals_the_slow_way(data):
    capacity = data.draw(st.integers(1, 40))
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=60))
    row, start = first_fit_decreasing(np.asarray(lengths, np.int64), capacity)
    assert (row.tolist(), start.tolist()) == slow_first_fit(lengths, capacity)


def test_planned_rows_pack_every_text_once():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 65, 500)
    texts = [encoded(list(range(i, i + n))) for i, n in enumerate(lengths)]
    plans = plan_rows(lengths, capacity=64, rows=8)
    assert sorted(np.concatenate([plan.indices for plan in plans])) == list(range(500))
    for plan in plans:
        chosen = [texts[i] for i in plan.indices]
        arrays = pack_as_planned(chosen, plan.row, plan.start, 64, 8, 0, plan.num_texts)
        assert arrays.input_ids.shape == (8, 64)
        for segment, text in enumerate(chosen):
            where = np.asarray(arrays.segment_ids) == segment
            np.testing.assert_array_equal(arrays.input_ids[where], text.input_ids)
            np.testing.assert_array_equal(np.asarray(arrays.positions)[where], range(len(text[0])))
    assert len({plan.num_texts for plan in plans}) <= 7  # powers of two


def test_buckets_rise_by_at_most_half_in_multiples_of_eight_and_end_at_max_length():
    assert bucket_lengths(100) == (16, 24, 32, 40, 48, 56, 64, 80, 96, 100)
    for longest in (1, 15, 16, 17, 256, 512, 32768):
        buckets = bucket_lengths(longest)
        assert buckets[-1] == longest
        assert all(a < b <= 1.5 * a for a, b in pairwise(buckets))
        assert all(size % 8 == 0 for size in buckets[:-1])


def test_row_counts_respect_the_budget_and_the_devices():
    assert row_counts(512, 4096) == (8, 4, 1)
    assert row_counts(4096, 1024) == (1,)
    assert row_counts(128, 4096, row_multiple=4) == (32, 16, 4)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.integers(1, 512), max_size=300),
    st.sampled_from([1, 512, 4096, 32768]),
    st.sampled_from([1, 4]),
)
def test_plan_takes_every_text_once_within_budget_and_bucket(lengths, budget, multiple):
    sizes = np.asarray(lengths, np.int64)
    buckets = bucket_lengths(512)
    plans = plan_batches(sizes, budget, buckets, row_multiple=multiple)
    taken = [i for plan in plans for i in plan.indices]
    assert sorted(taken) == list(range(len(lengths)))
    assert all(a >= b for a, b in pairwise(sizes[taken]))
    for plan in plans:
        shorter = max((b for b in buckets if b < plan.length), default=0)
        assert shorter < sizes[plan.indices].max() <= plan.length
        assert 0 < len(plan.indices) <= plan.rows
        assert plan.rows % multiple == 0
        assert plan.rows in row_counts(plan.length, budget, multiple)
        assert plan.rows * plan.length <= max(budget, multiple * plan.length)


def test_plan_goes_from_long_to_short_with_full_batches_first():
    sizes = np.asarray([10] * 9 + [20] * 3)
    plans = plan_batches(sizes, 64, (16, 32))
    assert [(p.length, p.rows, len(p.indices)) for p in plans] == [
        (32, 2, 2), (32, 2, 2), (16, 4, 4), (16, 4, 4),
    ]  # fmt: skip


def test_plan_refuses_texts_beyond_the_last_bucket():
    with pytest.raises(ValueError, match="text 1 has 33 tokens; expected 1 to 32"):
        plan_batches(np.asarray([1, 33]), 64, (16, 32))


def test_million_texts_are_planned_in_few_shapes():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4, 1, 1_000_000).astype(np.int64), 1, 512)
    plans = plan_batches(lengths, 32768, bucket_lengths(512))
    row, _ = first_fit_decreasing(lengths, 512)
    assert len({(plan.rows, plan.length) for plan in plans}) <= 40
    assert lengths.sum() / ((row.max() + 1) * 512) > 0.99  # packed rows are full
