"""Masks by eye: rows are queries, columns are keys, 1 = may look."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from nvembed_jax.batch import TokenBatch
from nvembed_jax.model.masks import dense_mask, mask_spec

FOUR_OF_FIVE = [1, 1, 1, 1, 0]  # the last position is padding
TWO_TEXTS = [7, 7, 3, 3, -1]  # two texts packed in one row, then padding

BIDIRECTIONAL = [
    [1, 1, 1, 1, 0],
    [1, 1, 1, 1, 0],
    [1, 1, 1, 1, 0],
    [1, 1, 1, 1, 0],
    [1, 1, 1, 1, 0],
]
CAUSAL = [
    [1, 0, 0, 0, 0],
    [1, 1, 0, 0, 0],
    [1, 1, 1, 0, 0],
    [1, 1, 1, 1, 0],
    [1, 1, 1, 1, 0],
]
CAUSAL_WINDOW_2 = [
    [1, 0, 0, 0, 0],
    [1, 1, 0, 0, 0],
    [0, 1, 1, 0, 0],
    [0, 0, 1, 1, 0],
    [0, 0, 0, 1, 0],
]
CAUSAL_WINDOW_1 = [
    [1, 0, 0, 0, 0],
    [0, 1, 0, 0, 0],
    [0, 0, 1, 0, 0],
    [0, 0, 0, 1, 0],
    [0, 0, 0, 0, 0],
]
PACKED_BIDIRECTIONAL = [
    [1, 1, 0, 0, 0],
    [1, 1, 0, 0, 0],
    [0, 0, 1, 1, 0],
    [0, 0, 1, 1, 0],
    [0, 0, 0, 0, 0],
]
PACKED_CAUSAL = [
    [1, 0, 0, 0, 0],
    [1, 1, 0, 0, 0],
    [0, 0, 1, 0, 0],
    [0, 0, 1, 1, 0],
    [0, 0, 0, 0, 0],
]
PACKED_CAUSAL_WINDOW_1 = [
    [1, 0, 0, 0, 0],
    [0, 1, 0, 0, 0],
    [0, 0, 1, 0, 0],
    [0, 0, 0, 1, 0],
    [0, 0, 0, 0, 0],
]
CASES = [
    (None, "bidirectional", None, BIDIRECTIONAL),
    (None, "bidirectional", 2, BIDIRECTIONAL),  # a window belongs to the causal mask only
    (None, "causal", None, CAUSAL),
    (None, "causal", 2, CAUSAL_WINDOW_2),
    (None, "causal", 1, CAUSAL_WINDOW_1),
    (None, "causal", 5, CAUSAL),
    (TWO_TEXTS, "bidirectional", None, PACKED_BIDIRECTIONAL),
    (TWO_TEXTS, "causal", None, PACKED_CAUSAL),
    (TWO_TEXTS, "causal", 1, PACKED_CAUSAL_WINDOW_1),
]


def batch(segments: list[int] | None) -> TokenBatch:
    mask = jnp.array([FOUR_OF_FIVE], bool)
    ids = None if segments is None else jnp.array([segments], jnp.int32)
    return TokenBatch(jnp.zeros((1, 5), jnp.int32), mask, mask, segment_ids=ids, num_texts=8)


@pytest.mark.parametrize(("segments", "attention", "window", "expected"), CASES)
def test_dense_mask_is_the_matrix_of_the_rule(segments, attention, window, expected):
    spec = mask_spec(batch(segments), attention, window)
    np.testing.assert_array_equal(dense_mask(spec)[0].astype(int), expected)


@pytest.mark.parametrize(("segments", "attention", "window", "expected"), CASES)
def test_dense_mask_of_a_block_of_queries_is_those_rows(segments, attention, window, expected):
    spec = mask_spec(batch(segments), attention, window)
    block = dense_mask(spec, jnp.asarray(1), 3)
    np.testing.assert_array_equal(block[0].astype(int), expected[1:4])


def test_dense_mask_window_argument_overrides_the_one_of_the_spec():
    spec = mask_spec(batch(None), "causal", 1)
    overridden = dense_mask(spec, window=jnp.asarray(2))
    np.testing.assert_array_equal(overridden[0].astype(int), CAUSAL_WINDOW_2)


def test_dense_mask_rows_of_a_batch_have_their_own_lengths():
    mask = jnp.array([[1, 1], [1, 0], [0, 0]], bool)
    spec = mask_spec(TokenBatch(jnp.zeros((3, 2), jnp.int32), mask, mask), "bidirectional")
    expected = [[[1, 1], [1, 1]], [[1, 0], [1, 0]], [[0, 0], [0, 0]]]
    np.testing.assert_array_equal(dense_mask(spec).astype(int), expected)
