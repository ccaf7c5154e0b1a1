"""Codes: the conventions of sentence-transformers, and scores that follow those of the floats."""

from __future__ import annotations

import numpy as np
import pytest

from nvembed_jax.search.codes import (
    PRECISIONS,
    code_scores,
    dequantize_embeddings,
    embedding_ranges,
    hamming,
    quantize_embeddings,
    truncate,
    unit,
)


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    values = unit(np.random.default_rng(0).normal(size=(300, 60)).astype(np.float32))
    values[:, 7] = 0.25  # a dimension that never changes
    values[5] = 0
    return values


@pytest.mark.parametrize("precision", PRECISIONS)
def test_codes_equal_those_of_sentence_transformers(embeddings, precision):
    from sentence_transformers.util.quantization import quantize_embeddings as reference

    ranges = embedding_ranges(embeddings[:200])
    for given in (None, ranges):
        ours = quantize_embeddings(embeddings, precision, given)
        theirs = reference(embeddings, precision, ranges=given)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_embeddings_and_single_ones_keep_their_form(embeddings, precision):
    ranges = embedding_ranges(embeddings)
    rows = quantize_embeddings(embeddings, precision, ranges)
    np.testing.assert_array_equal(quantize_embeddings(embeddings[3], precision, ranges), rows[3])
    none = quantize_embeddings(embeddings[:0], precision)
    assert (none.shape, none.dtype) == ((0, rows.shape[1]), rows.dtype)


def test_binary_codes_are_eight_signs_a_byte():
    signs = np.array([[1, -1, 1, -1, -1, -1, -1, 1, 1, 0]], np.float32)
    assert quantize_embeddings(signs, "ubinary").tolist() == [[0b10100001, 0b10000000]]
    assert quantize_embeddings(signs, "binary").tolist() == [[0b10100001 - 128, 0]]


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_decoded_values_are_within_half_a_step(embeddings, precision):
    embeddings = np.delete(embeddings, 5, 0)
    ranges = embedding_ranges(embeddings)
    codes = quantize_embeddings(embeddings, precision, ranges)
    step = (ranges[1] - ranges[0]) / 255
    step[step == 0] = 1
    error = np.abs(dequantize_embeddings(codes, precision, ranges) - embeddings)
    # The maximum itself is coded as the last step, whose middle lies half a step above it.
    assert (error <= 0.5 * step + 1e-6).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_code_scores_rank_as_the_floats_do(embeddings, precision):
    ranges = embedding_ranges(embeddings)
    codes = quantize_embeddings(embeddings, precision, ranges)
    queries = embeddings[10:20]
    for given in (queries, codes[10:20]):
        scores = code_scores(given, codes, precision, ranges)
        assert scores.shape == (10, 300)
        assert scores.argmax(axis=1).tolist() == list(range(10, 20))


def test_binary_scores_are_the_dot_products_of_signs(embeddings):
    signs = np.where(embeddings > 0, 1, -1)[:, :56]
    for precision in ("binary", "ubinary"):
        codes = quantize_embeddings(embeddings[:, :56], precision)
        scores = code_scores(codes[:4], codes, precision)
        np.testing.assert_array_equal(scores, signs[:4] @ signs.T)


def test_hamming_counts_bits():
    a = np.array([[0b1111, 0], [0, 255]], np.uint8)
    assert hamming(a, a).tolist() == [[0, 12], [12, 0]]
    assert hamming(a[:0], a).shape == (0, 2)


def test_truncation_renormalises(embeddings):
    cut = truncate(embeddings, 16)
    assert cut.shape == (300, 16)
    np.testing.assert_allclose(np.linalg.norm(np.delete(cut, 5, 0), axis=1), 1, rtol=1e-6)
    assert not cut[5].any()
    np.testing.assert_array_equal(truncate(embeddings, 16, renormalize=False), embeddings[:, :16])
    np.testing.assert_array_equal(truncate(embeddings[3], 16), cut[3])


def test_bad_arguments_are_refused(embeddings):
    for dim in (0, 61):
        with pytest.raises(ValueError, match="60 dimensions"):
            truncate(embeddings, dim)
    with pytest.raises(ValueError, match="precision must be one of"):
        quantize_embeddings(embeddings, "int4")
    with pytest.raises(ValueError, match="precision must be one of"):
        dequantize_embeddings(embeddings, "int4")
    with pytest.raises(ValueError, match="codes already"):
        quantize_embeddings(np.ones((2, 3), np.int8), "int8")
    with pytest.raises(ValueError, match="needs ranges"):
        quantize_embeddings(embeddings[:1], "int8")
    with pytest.raises(ValueError, match=r"shape \(2, 60\)"):
        quantize_embeddings(embeddings, "int8", np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="without the ranges"):
        dequantize_embeddings(np.ones((2, 3), np.int8), "int8")
    with pytest.raises(ValueError, match="expected binary codes in int8"):
        code_scores(np.ones((1, 2), np.uint8), np.ones((1, 2), np.uint8), "binary")
