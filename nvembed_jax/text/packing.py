"""Token lists into arrays of few static shapes: padded batches, packed rows, and the plan of both.

The arrays are those of `TokenBatch`, as NumPy; `segment_ids` and `positions` are None where a row
is a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Integer

from nvembed_jax.text.tokenizer import Encoded


class TokenArrays(NamedTuple):
    """The fields of a `TokenBatch`, on the host."""

    input_ids: Int32[np.ndarray, "R T"]
    attention_mask: Bool[np.ndarray, "R T"]
    pool_mask: Bool[np.ndarray, "R T"]
    segment_ids: Int32[np.ndarray, "R T"] | None = None
    positions: Int32[np.ndarray, "R T"] | None = None
    num_texts: int | None = None


class PaddedPlan(NamedTuple):
    """One padded batch: which texts, and its static shape [rows, length]."""

    indices: np.ndarray
    length: int
    rows: int


class PackedPlan(NamedTuple):
    """One packed batch: which texts, in which row, at which offset; `num_texts` slots for them."""

    indices: np.ndarray
    row: np.ndarray
    start: np.ndarray
    num_texts: int


def pad(encoded: Sequence[Encoded], length: int, rows: int, pad_id: int) -> TokenArrays:
    """A text a row, right-padded to [rows, length].

    Rows beyond the texts hold one attended and pooled pad token each, so that no row is without a
    key: what comes out for them is finite, and to be dropped.

    Raises:
        ValueError: more texts than rows, or a text longer than `length` or without tokens.
    """
    if len(encoded) > rows:
        raise ValueError(f"{len(encoded)} texts do not fit {rows} rows")
    sizes = np.ones(rows, np.int64)
    first = np.zeros(rows, np.int64)
    sizes[: len(encoded)] = _lengths(encoded, length)
    first[: len(encoded)] = [item.pool_start for item in encoded]
    at = np.arange(length)
    attention = at < sizes[:, None]
    ids = np.full((rows, length), pad_id, np.int32)
    if encoded:
        ids[: len(encoded)][attention[: len(encoded)]] = np.concatenate(
            [e.input_ids for e in encoded]
        )
    return TokenArrays(ids, attention, attention & (at >= first[:, None]))


def pack(
    encoded: Sequence[Encoded],
    length: int,
    pad_id: int,
    *,
    rows: int | None = None,
    num_texts: int | None = None,
) -> TokenArrays:
    """Several texts a row of `length` tokens, first fit decreasing; segment i is text i.

    Args:
        rows: static number of rows; None: as many as are needed.
        num_texts: static number of embeddings that come out; None: len(encoded).

    Raises:
        ValueError: the texts do not fit, or one is longer than `length` or without tokens.
    """
    sizes = _lengths(encoded, length)
    row, start = first_fit_decreasing(sizes, length)
    needed = int(row.max(initial=-1)) + 1
    rows = needed if rows is None else rows
    if needed > rows:
        raise ValueError(f"{len(encoded)} texts need {needed} rows of {length} tokens; got {rows}")
    return pack_as_planned(encoded, row, start, length, rows, pad_id, num_texts)


def pack_as_planned(
    encoded: Sequence[Encoded],
    row: Integer[np.ndarray, " B"],
    start: Integer[np.ndarray, " B"],
    length: int,
    rows: int,
    pad_id: int,
    num_texts: int | None = None,
) -> TokenArrays:
    """Packs text i into row[i] at start[i]; see `pack` and `plan_rows`."""
    sizes = _lengths(encoded, length)
    slots = len(encoded) if num_texts is None else num_texts
    if slots < len(encoded):
        raise ValueError(f"{len(encoded)} texts do not fit num_texts={slots}")
    ids = np.full(rows * length, pad_id, np.int32)
    segments = np.full(rows * length, -1, np.int32)
    positions = np.zeros(rows * length, np.int32)
    pooled = np.zeros(rows * length, np.bool_)
    if encoded:
        within = _ranges(sizes)
        where = np.repeat(row.astype(np.int64) * length + start, sizes) + within
        ids[where] = np.concatenate([item.input_ids for item in encoded])
        segments[where] = np.repeat(np.arange(len(encoded)), sizes)
        positions[where] = within
        pooled[where] = within >= np.repeat([item.pool_start for item in encoded], sizes)
    shape = (rows, length)
    segments = segments.reshape(shape)
    return TokenArrays(
        ids.reshape(shape),
        segments >= 0,
        pooled.reshape(shape),
        segments,
        positions.reshape(shape),
        slots,
    )


def first_fit_decreasing(
    lengths: Integer[np.ndarray, " B"], capacity: int
) -> tuple[Integer[np.ndarray, " B"], Integer[np.ndarray, " B"]]:
    """(row, offset) of every text when the longest go first, each into the first row with room.

    Texts of one length are placed together (first fit fills a row before it moves on), so the cost
    grows with the number of different lengths, not of texts.

    Raises:
        ValueError: a length is below 1 or above `capacity`.
    """
    lengths = np.asarray(lengths, np.int64)
    _check_lengths(lengths, capacity)
    order = np.argsort(-lengths, kind="stable")
    row = np.empty(len(lengths), np.int64)
    start = np.empty(len(lengths), np.int64)
    free = np.zeros(0, np.int64)
    if not len(lengths):
        return row, start
    sizes, begins = np.unique(-lengths[order], return_index=True)
    for size, begin, end in zip(-sizes, begins, [*begins[1:], len(order)], strict=True):
        count = end - begin
        fits = free // size
        open_rows = np.flatnonzero(fits)
        missing = count - int(fits[open_rows].sum())
        if missing > 0:
            each = capacity // size
            new = -(-missing // each)
            open_rows = np.concatenate([open_rows, np.arange(len(free), len(free) + new)])
            free = np.concatenate([free, np.full(new, capacity)])
            fits = free // size
        taken = np.diff(np.minimum(np.cumsum(fits[open_rows]), count), prepend=0)
        rows = np.repeat(open_rows, taken)
        members = order[begin:end]
        row[members] = rows
        start[members] = capacity - free[rows] + _ranges(taken) * size
        free[open_rows] -= taken * size
    return row, start


def plan_rows(lengths: Integer[np.ndarray, " B"], capacity: int, rows: int) -> list[PackedPlan]:
    """Packed batches of `rows` rows each; `num_texts` is a power of two: shapes stay few."""
    lengths = np.asarray(lengths, np.int64)
    row, start = first_fit_decreasing(lengths, capacity)
    batch = row // rows
    order = np.argsort(batch, kind="stable")
    edges = np.flatnonzero(np.diff(batch[order])) + 1
    groups = np.split(order, edges) if len(order) else []
    return [PackedPlan(g, row[g] % rows, start[g], 1 << (len(g) - 1).bit_length()) for g in groups]


def bucket_lengths(max_length: int, *, smallest: int = 16, steps: int = 4) -> tuple[int, ...]:
    """The static lengths batches are padded to, ascending: multiples of 8, `steps` to a doubling
    (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160 ...), and `max_length` itself.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1; got {max_length}")
    out: list[int] = []
    size = smallest
    while size < max_length:
        out.extend(range(size, min(2 * size, max_length), max(8, size // steps)))
        size *= 2
    return (*out, max_length)


def row_counts(length: int, batch_tokens: int, row_multiple: int = 1) -> tuple[int, ...]:
    """A bucket's static row counts, largest first: what the budget holds, then powers of four."""
    full = max(1, batch_tokens // length // row_multiple)
    full = 1 << (full.bit_length() - 1) if full < 8 else full - full % 8
    small = [4**k for k in range(full.bit_length()) if 4**k <= full // 2]
    return tuple(count * row_multiple for count in (full, *reversed(small)))


def plan_batches(
    lengths: Integer[np.ndarray, " B"],
    batch_tokens: int,
    buckets: Sequence[int],
    *,
    row_multiple: int = 1,
) -> list[PaddedPlan]:
    """Batches of texts of similar length, longest first, in a bounded number of shapes.

    A batch takes the longest texts left, whatever bucket the shorter of them are of: only the last
    batches are not full.

    Args:
        lengths: tokens of every text.
        batch_tokens: the most tokens a batch holds, padding included (one row may exceed it).
        buckets: ascending static lengths, from `bucket_lengths`.
        row_multiple: every row count is a multiple of it (devices that share a batch).

    Raises:
        ValueError: a text is longer than the last bucket or has no tokens, or a budget below 1.
    """
    if batch_tokens < 1 or row_multiple < 1:
        raise ValueError(
            f"batch_tokens and row_multiple must be >= 1; got {batch_tokens}, {row_multiple}"
        )
    lengths = np.asarray(lengths, np.int64)
    edges = np.asarray(buckets, np.int64)
    _check_lengths(lengths, int(edges[-1]))
    order = np.argsort(-lengths, kind="stable")
    counts = {int(edge): row_counts(int(edge), batch_tokens, row_multiple) for edge in edges}
    plans: list[PaddedPlan] = []
    begin = 0
    while begin < len(order):
        length = int(edges[np.searchsorted(edges, lengths[order[begin]])])
        rows = _rows_for(len(order) - begin, counts[length])
        plans.append(PaddedPlan(order[begin : begin + rows], length, rows))
        begin += rows
    return plans


def _rows_for(left: int, counts: tuple[int, ...]) -> int:
    """The smallest row count that holds all, if they half fill it; else the largest they fill."""
    holding = [rows for rows in counts if rows >= left]
    if holding and (2 * left >= holding[-1] or holding[-1] == counts[-1]):
        return holding[-1]
    return next(rows for rows in counts if rows <= left)


def _lengths(encoded: Sequence[Encoded], longest: int) -> Integer[np.ndarray, " B"]:
    sizes = np.fromiter((len(item.input_ids) for item in encoded), np.int64, len(encoded))
    _check_lengths(sizes, longest)
    return sizes


def _check_lengths(lengths: Integer[np.ndarray, " B"], longest: int) -> None:
    wrong = np.flatnonzero((lengths < 1) | (lengths > longest))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(f"text {i} has {lengths[i]} tokens; expected 1 to {longest}: truncate it")


def _ranges(sizes: Integer[np.ndarray, " B"]) -> Integer[np.ndarray, " T"]:
    """0..n-1 for every n of `sizes`, one after the other."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
