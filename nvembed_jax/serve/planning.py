"""Batches for the few texts of a queue. `text.packing.plan_batches` fills batches, which is best
for a corpus; here most are not full, and it pays to look for the cheapest cuts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from nvembed_jax.text.packing import PaddedPlan, row_counts

OVERHEAD = 0.05  # of a call, as a share of the time of a full batch


def cheapest_batches(
    lengths: Integer[np.ndarray, " B"],
    batch_tokens: int,
    buckets: Sequence[int],
    *,
    row_multiple: int = 1,
) -> list[PaddedPlan]:
    """Batches of texts of similar length, longest first, that together cost least: their tokens,
    padding included, and `OVERHEAD` a batch. Shapes are those of `plan_batches`.

    Args:
        lengths: tokens of every text, at least 1 and at most the last bucket.
        batch_tokens: the most tokens a batch holds, padding included (one row may exceed it).
        buckets: ascending static lengths.
        row_multiple: every row count is a multiple of it.
    """
    order = np.argsort(-lengths, kind="stable")
    edges = np.asarray(buckets, np.int64)
    padded = edges[np.searchsorted(edges, lengths[order])].tolist()
    overhead, count = OVERHEAD * batch_tokens, len(order)
    choices = {
        edge: [(n, overhead + edge * n) for n in row_counts(edge, batch_tokens, row_multiple)]
        for edge in set(padded)
    }
    most = max((n for choice in choices.values() for n, _ in choice), default=0)
    costs, rows = [0.0] * (count + most), [0] * count
    # From the shortest on: what the texts behind a batch cost is known when the batch is chosen.
    for i in range(count - 1, -1, -1):
        least = float("inf")
        for n, price in choices[padded[i]]:
            cost = price + costs[i + n]
            if cost < least:
                least, rows[i] = cost, n
        costs[i] = least
    plans: list[PaddedPlan] = []
    begin = 0
    while begin < count:
        plans.append(PaddedPlan(order[begin : begin + rows[begin]], padded[begin], rows[begin]))
        begin += rows[begin]
    return plans
