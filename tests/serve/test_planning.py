"""Batches of a queue cost least, and have the shapes that were compiled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvembed_jax.serve.planning import OVERHEAD, cheapest_batches
from nvembed_jax.text.packing import bucket_lengths, plan_batches, row_counts

BUCKETS = bucket_lengths(64)


def cost(plans, budget) -> float:
    return sum(plan.length * plan.rows + OVERHEAD * budget for plan in plans)


def least(lengths: tuple, budget: int) -> float:
    """By trying every cut."""
    if not lengths:
        return 0.0
    edge = next(edge for edge in BUCKETS if edge >= lengths[0])
    return min(
        OVERHEAD * budget + edge * n + least(lengths[n:], budget) for n in row_counts(edge, budget)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=9), st.sampled_from([16, 128, 256]))
def test_no_other_cuts_cost_less(lengths, budget):
    plans = cheapest_batches(np.array(lengths), budget, BUCKETS)
    assert cost(plans, budget) == pytest.approx(least(tuple(sorted(lengths)[::-1]), budget))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 64), max_size=200),
    st.sampled_from([16, 128, 512]),
    st.sampled_from([1, 2]),
)
def test_every_text_has_one_row_in_a_shape_that_is_compiled(lengths, budget, multiple):
    lengths = np.array(lengths, np.int64)
    plans = cheapest_batches(lengths, budget, BUCKETS, row_multiple=multiple)
    indices = [i for plan in plans for i in plan.indices.tolist()]
    assert sorted(indices) == list(range(len(lengths)))
    for plan in plans:
        assert plan.rows in row_counts(plan.length, budget, multiple)
        assert len(plan.indices) <= plan.rows
        assert lengths[plan.indices].max() <= plan.length
        assert plan.rows * plan.length <= budget or plan.rows == multiple


def test_few_texts_cost_less_than_in_filled_batches():
    lengths = np.random.default_rng(0).integers(4, 64, 32)
    ours = cost(cheapest_batches(lengths, 2048, BUCKETS), 2048)
    assert ours < 0.9 * cost(plan_batches(lengths, 2048, BUCKETS), 2048)
