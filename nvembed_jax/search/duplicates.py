"""Near-duplicates by their embeddings: which rows reach a cosine with each other, directly or
through others. Exact, and in blocks: neither the N x N scores nor all pairs are ever held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from nvembed_jax.codes import unit
from nvembed_jax.runtime import progress_bar
from nvembed_jax.search.topk import check_finite

TOLERANCE = 1e-6  # a cosine so little below the threshold reaches it: float32 knows no better
BLOCK = {"cpu": 4096}  # rows multiplied at once
_ACCELERATOR_BLOCK = 8192
_MARGIN = 1e-4  # more than float32 products are off by; float64 decides about what lies in it
_VALUES = 1 << 23  # numbers in float64 at a time


def duplicate_groups(
    embeddings: Float[np.ndarray, "N D"],
    threshold: float | int,
    *,
    block: int | None = None,
    show_progress_bar: bool | None = None,
) -> Int[np.ndarray, " N"]:
    """Groups of near-duplicates: rows whose cosine is at least `threshold`, and rows that hang
    together through such pairs (single linkage). Rows of zeros are like no other.

    The products are float32 on the device; about every pair near enough float64 decides, so the
    groups depend neither on the block nor on the device.

    Args:
        embeddings: of any length; may be a memory map, of which two blocks are read at a time.
        threshold: a cosine, over 0 and up to 1. block: rows multiplied at once; None: by device.

    Returns:
        The number of each row's group; groups are numbered by their first rows.

    Raises:
        ValueError: a threshold out of its range, or an embedding with NaN or infinity.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is a cosine, over 0 and up to 1; got {threshold}")
    count = len(embeddings)
    size = block or BLOCK.get(jax.default_backend(), _ACCELERATOR_BLOCK)
    size = min(-(-size // 8) * 8, max(8, 1 << max(0, count - 1).bit_length()))
    groups, blocks = _Groups(count), -(-count // size)
    limit = np.float32(threshold - _MARGIN)
    with progress_bar(blocks * (blocks + 1) // 2, show_progress_bar, "block") as bar:
        for first in range(0, count, size):
            rows = _on_device(embeddings, first, size, check=first == 0)
            for second in range(first, count, size):
                if second == first:
                    columns = rows
                else:
                    columns = _on_device(embeddings, second, size, check=first == 0)
                packed = np.asarray(_candidates(rows, columns, limit))
                for pairs in _pairs(packed, first, second, count, embeddings.shape[1]):
                    groups.join(pairs, embeddings, threshold - TOLERANCE)
                bar.update(1)
    return _by_first_row(groups.labels())


def row_cosines(
    embeddings: Float[np.ndarray, "N D"],
    left: Int[np.ndarray, " P"],
    right: Int[np.ndarray, " P"],
) -> Float[np.ndarray, " P"]:
    """Cosines of pairs of rows, in float64; 0 with a row of zeros."""
    step = max(1, _VALUES // max(1, embeddings.shape[1]))
    found = np.zeros(len(left))
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        a, b = (unit(embeddings[rows[part]].astype(np.float64)) for rows in (left, right))
        found[part] = np.einsum("PD,PD->P", a, b)
    return found


def leaders(
    same: Sequence[Int[np.ndarray, " N"]], best: Int[np.ndarray, " N"] | None = None
) -> Int[np.ndarray, " N"]:
    """For each row the row that leads its class.

    Args:
        same: rows of one class are equal in all of these. best: the row with the lowest leads, the
            first of several; None: the first row.
    """
    order = np.lexsort((*(() if best is None else (best,)), *same))
    differs = np.zeros(max(0, len(order) - 1), bool)
    for keys in same:
        ranked = keys[order]
        differs |= ranked[1:] != ranked[:-1]
    is_first = np.ones(len(order), bool)
    is_first[1:] = differs
    found = np.empty(len(order), np.int64)
    found[order] = order[is_first][np.cumsum(is_first) - 1]
    return found


class _Pairs(NamedTuple):
    left: Int[np.ndarray, " P"]
    right: Int[np.ndarray, " P"]

    def where(self, wanted: np.ndarray) -> _Pairs:
        return _Pairs(self.left[wanted], self.right[wanted])


class _Groups:
    """Which rows hang together, as pairs come in."""

    def __init__(self, count: int) -> None:
        self._labels = np.arange(count)
        self._pending: list[np.ndarray] = []
        self._size = 0

    def join(self, pairs: _Pairs, embeddings: np.ndarray, least: float | int) -> None:
        """Joins those of the pairs whose cosine is at least `least`."""
        # Of texts that are many times there most pairs are known to hang together by then.
        pairs = pairs.where(self._labels[pairs.left] != self._labels[pairs.right])
        if not len(pairs.left):
            return
        pairs = pairs.where(row_cosines(embeddings, *pairs) >= least)
        self._pending.append(self._labels[np.stack(pairs)])
        self._size += len(pairs.left)
        if self._size >= len(self._labels) // 32:
            self.labels()

    def labels(self) -> Int[np.ndarray, " N"]:
        """The label of each row; the same for rows that hang together."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if self._size:
            edges = np.concatenate(self._pending, axis=1)
            shape = (len(self._labels), len(self._labels))
            graph = coo_array((np.ones(edges.shape[1], np.int8), (edges[0], edges[1])), shape=shape)
            self._labels = connected_components(graph, directed=False)[1][self._labels]
            self._pending, self._size = [], 0
        return self._labels


def _on_device(embeddings: np.ndarray, start: int, size: int, *, check: bool) -> Any:
    """Rows from `start` on, scaled to length one, zeros after the last."""
    block = np.asarray(embeddings[start : start + size], np.float32)
    if check:
        check_finite(block, "text", start)
    if len(block) < size:
        block = np.pad(block, ((0, size - len(block)), (0, 0)))
    return _unit(jnp.asarray(block))


@jax.jit
def _unit(rows: Float[Array, "R D"]) -> Float[Array, "R D"]:
    norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(norms == 0, 1, norms)


@jax.jit
def _candidates(
    rows: Float[Array, "R D"], columns: Float[Array, "C D"], limit: Float[Array, ""]
) -> UInt8[Array, "R _"]:
    """A bit a pair: may its cosine reach the limit?"""
    # Highest precision: by default accelerators would multiply in bf16 or tf32.
    scores = jnp.einsum("RD,CD->RC", rows, columns, precision=jax.lax.Precision.HIGHEST)
    return jnp.packbits(scores >= limit, axis=1)


def _pairs(
    packed: UInt8[np.ndarray, "R _"], first: int, second: int, count: int, width: int
) -> Iterator[_Pairs]:
    """The pairs (left < right) whose bits are set, some at a time."""
    step = max(1, _VALUES // width // 8)
    marked = np.flatnonzero(packed)
    for start in range(0, len(marked), step):
        places = marked[start : start + step]
        which, bit = np.nonzero(np.unpackbits(packed.ravel()[places][:, None], axis=1))
        row, byte = np.divmod(places[which], packed.shape[1])
        pairs = _Pairs(row + first, byte * 8 + bit + second)
        yield pairs.where((pairs.left < pairs.right) & (pairs.right < count))


def _by_first_row(labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
