"""Exact top-k by dot product, block by block: the whole matrix of scores is never held."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

QUERY_BLOCK = 256
PASSAGE_BLOCK = 16384
_SMALLEST_BLOCK = 256


def top_k(
    queries: Float[np.ndarray, "Q D"],
    passages: Float[np.ndarray, "P E"],
    k: int,
    *,
    query_block: int = QUERY_BLOCK,
    passage_block: int = PASSAGE_BLOCK,
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """The k passages of the highest dot product with each query: (scores, row numbers), best first.

    Exact in float32; of equal scores the lower row comes first. `passages` may be a memory map: a
    block of it is read at a time.

    Raises:
        ValueError: widths differ, k is not in 1..P, or an embedding holds NaN or infinity.
    """
    if queries.ndim != 2 or passages.ndim != 2 or queries.shape[1] != passages.shape[1]:
        raise ValueError(
            f"expected [Q, D] and [P, D] of one width; got {queries.shape} and {passages.shape}"
        )
    if not 1 <= k <= len(passages):
        raise ValueError(f"k must be 1 to {len(passages)}, the number of passages; got {k}")
    query_block = min(query_block, _rounded(len(queries)))
    passage_block = max(min(passage_block, _rounded(len(passages))), k)
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    check_finite(queries, "query", 0)
    for start in range(0, len(queries), query_block):
        block = queries[start : start + query_block]
        best = _best_of_blocks(_padded(block, query_block), passages, k, passage_block)
        scores[start : start + len(block)], rows[start : start + len(block)] = (
            x[: len(block)] for x in best
        )
    return scores, rows


def all_scores(
    query: Float[np.ndarray, " D"], passages: Float[np.ndarray, "P D"]
) -> Float[np.ndarray, " P"]:
    """The dot product of one query with every passage, on the host, block by block."""
    check_finite(query[None], "query", 0)
    scores = np.empty(len(passages), np.float32)
    for start in range(0, len(passages), PASSAGE_BLOCK):
        block = np.asarray(passages[start : start + PASSAGE_BLOCK], np.float32)
        check_finite(block, "passage", start)
        scores[start : start + len(block)] = block @ query
    return scores


def check_finite(embeddings: np.ndarray, what: str, first_row: int) -> None:
    """Raises a ValueError that names the first row with a NaN or an infinity."""
    # One pass that allocates a vector: a sum is finite only where every term is.
    suspects = np.flatnonzero(~np.isfinite(np.sum(embeddings, axis=1, dtype=np.float64)))
    if len(suspects):
        raise ValueError(
            f"the embedding of {what} {first_row + int(suspects[0])} holds NaN or infinity; "
            f"expected finite numbers: were the texts encoded without an error?"
        )


def _best_of_blocks(
    queries: np.ndarray, passages: np.ndarray, k: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    best: tuple[Any, Any] = (
        jnp.full((len(queries), k), -jnp.inf, jnp.float32),
        jnp.zeros((len(queries), k), jnp.int32),
    )
    on_device = jnp.asarray(queries)
    for start in range(0, len(passages), size):
        block = np.asarray(passages[start : start + size], np.float32)
        check_finite(block, "passage", start)
        best = _merge(best, on_device, jnp.asarray(_padded(block, size)), start, len(block))
    return np.asarray(best[0]), np.asarray(best[1])


@jax.jit
def _merge(
    best: tuple[Float[Array, "Q k"], Int[Array, "Q k"]],
    queries: Float[Array, "Q D"],
    block: Float[Array, "P D"],
    start: Int[Array, ""],
    count: Int[Array, ""],
) -> tuple[Float[Array, "Q k"], Int[Array, "Q k"]]:
    """The best k of those so far and of a block: its first `count` rows are `start`, ..."""
    scores, rows = best
    k = scores.shape[1]
    # Highest precision: by default accelerators would multiply in bf16 or tf32.
    fresh = jnp.einsum("QD,PD->QP", queries, block, precision=jax.lax.Precision.HIGHEST)
    column = jnp.arange(block.shape[0], dtype=jnp.int32)
    fresh = jnp.where(column < count, fresh, -jnp.inf)
    # top_k keeps the first of equals; what came earlier stands first: the lower row wins a tie.
    block_scores, block_columns = jax.lax.top_k(fresh, k)
    joined = jnp.concatenate([scores, block_scores], axis=1)
    joined_rows = jnp.concatenate([rows, block_columns + start], axis=1)
    scores, chosen = jax.lax.top_k(joined, k)
    return scores, jnp.take_along_axis(joined_rows, chosen, axis=1)


def _rounded(count: int) -> int:
    """The next power of two, so that few shapes are compiled."""
    return max(_SMALLEST_BLOCK if count > 1 else 1, 1 << max(0, count - 1).bit_length())


def _padded(block: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(block)
    block = np.asarray(block, np.float32)
    return np.pad(block, ((0, missing), (0, 0))) if missing else block
