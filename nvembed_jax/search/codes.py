"""Scores between embeddings that are held as codes (`nvembed_jax.codes` makes the codes)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from nvembed_jax.codes import (
    PRECISIONS,
    dequantize_embeddings,
    embedding_ranges,
    quantize_embeddings,
    truncate,
    unit,
    unsigned_bits,
)

__all__ = [
    "PRECISIONS",
    "code_scores",
    "dequantize_embeddings",
    "embedding_ranges",
    "hamming",
    "quantize_embeddings",
    "truncate",
    "unit",
]


def code_scores(
    queries: Num[np.ndarray, "Q _"],
    passages: Num[np.ndarray, "P _"],
    precision: str,
    ranges: Float[np.ndarray, "2 D"] | None = None,
) -> Float[np.ndarray, "Q P"]:
    """Similarity of queries to passages that are held as codes; higher is nearer.

    Float queries [Q, D] score by the dot product with what the codes stand for (the better way, at
    the cost of holding queries as floats). Binary queries score by D - 2 * Hamming distance.
    """
    if precision in ("binary", "ubinary") and queries.dtype.kind != "f":
        distance = hamming(unsigned_bits(queries, precision), unsigned_bits(passages, precision))
        return (passages.shape[1] * 8 - 2 * distance).astype(np.float32)
    if queries.dtype.kind != "f":
        queries = dequantize_embeddings(queries, precision, ranges)
    decoded = dequantize_embeddings(passages, precision, ranges)
    return np.asarray(queries, np.float32) @ decoded[:, : queries.shape[1]].T


def hamming(
    queries: UInt8[np.ndarray, "Q C"], passages: UInt8[np.ndarray, "P C"]
) -> Int[np.ndarray, "Q P"]:
    """Number of differing bits between packed codes (uint8), a query at a time."""
    rows = [np.bitwise_count(query ^ passages).sum(axis=-1, dtype=np.int64) for query in queries]
    return np.stack(rows) if rows else np.zeros((0, len(passages)), np.int64)
