"""The losses written out in plain NumPy and Python loops, one pair at a time: what the package is
held to.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from nvembed_jax.batch import ContrastiveBatch, TokenBatch


def unit_rows(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Random unit vectors, float32."""
    rows = rng.standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_batch(
    rng: np.random.Generator, rows: int, per_row: int, **changes: Any
) -> ContrastiveBatch:
    """A batch of ids in which texts repeat, slots are empty, and in-batch is on for some rows."""
    tokens = TokenBatch(
        np.ones((rows, 1), np.int32), np.ones((rows, 1), bool), np.ones((rows, 1), bool)
    )
    passage_ids = rng.integers(1, 6 * rows, (rows, per_row)).astype(np.int32)
    mask = rng.random((rows, per_row)) < 0.8
    mask[:, 0] = True
    known = np.zeros((rows, 3), np.int32)
    known[:, 0] = passage_ids[:, 0]
    known[:, 1] = np.where(rng.random(rows) < 0.5, rng.integers(1, 6 * rows, rows), 0)
    fields: dict[str, Any] = {
        "queries": tokens,
        "passages": tokens,
        "query_ids": rng.integers(1000, 1000 + 2 * rows, rows).astype(np.int32),
        "passage_ids": passage_ids,
        "known_ids": known,
        "group_ids": np.where(rng.random(rows) < 0.5, rng.integers(0, 3, rows), -1).astype(
            np.int32
        ),
        "source_ids": rng.integers(0, 2, rows).astype(np.int32),
        "passage_mask": mask,
        "in_batch": rng.random(rows) < 0.6,
        "weight": rng.random(rows).astype(np.float32),
    }
    return ContrastiveBatch(**{**fields, **changes})


def is_negative(batch: ContrastiveBatch, i: int, j: int, s: int, scope: str) -> bool:
    """Whether passage `s` of example `j` is a negative of query `i`."""
    text, known = batch.passage_ids[j, s], set(batch.known_ids[i]) - {0}
    if not batch.passage_mask[j, s] or text in known:
        return False
    if i == j:
        return s > 0
    if not batch.in_batch[i] or text == batch.query_ids[i]:
        return False
    if scope == "source" and batch.source_ids[i] != batch.source_ids[j]:
        return False
    return not (s == 0 and alike(batch, i, j))


def alike(batch: ContrastiveBatch, i: int, j: int) -> bool:
    """The same query text, or the same group."""
    grouped = batch.group_ids[i] >= 0 and batch.group_ids[i] == batch.group_ids[j]
    return bool(batch.query_ids[i] == batch.query_ids[j] or grouped)


def info_nce(
    queries: torch.Tensor,
    passages: torch.Tensor,
    batch: ContrastiveBatch,
    *,
    temperature: float,
    in_batch: bool = True,
    scope: str = "all",
    margin: float | None = None,
) -> torch.Tensor:
    """The weighted mean of -log softmax of the positive, by loops."""
    rows, per_row = batch.passage_mask.shape
    total, weights = torch.zeros(()), 0.0
    for i in range(rows):
        positive = queries[i] @ passages[i * per_row]
        terms = [positive / temperature]
        for j in range(rows):
            for s in range(per_row):
                if (j != i and not in_batch) or not is_negative(batch, i, j, s, scope):
                    continue
                score = queries[i] @ passages[j * per_row + s]
                if margin is not None and score.item() > positive.item() + margin:
                    continue
                terms.append(score / temperature)
        loss = torch.logsumexp(torch.stack(terms), 0) - terms[0]
        total = total + float(batch.weight[i]) * loss
        weights += float(batch.weight[i])
    return total / weights


def kl(teacher: np.ndarray, student: np.ndarray, keep: np.ndarray) -> float:
    """KL(teacher || student) of two rows of logits, by the definition."""
    p, q = (np.exp(x[keep] - x[keep].max()) for x in (teacher, student))
    p, q = p / p.sum(), q / q.sum()
    return float(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
