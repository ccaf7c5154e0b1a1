"""Texts that wait for one model: a fair order, and which of them make the next batch.

Everything counts in tokens. A text's turn is the work that the server had taken up when its request
came; a request of more than a batch has its further texts put off by `SPREAD` times what stands
before them in it, so that small requests pass a large one, which still gets its share.
"""

from __future__ import annotations

import heapq
import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from nvembed_jax.serve.job import Job
from nvembed_jax.serve.models import ServedModel
from nvembed_jax.serve.planning import cheapest_batches
from nvembed_jax.text.packing import PaddedPlan

SPREAD = 4
WINDOW_BATCHES = 8  # that batches are planned over: texts of one length come together
WINDOW_TEXTS = 512  # or one batch of the shortest, if that is more: bounds the planning


class Waiting(NamedTuple):
    """One text of a job."""

    turn: float
    order: int
    job: Job
    index: int
    length: int


class Batch(NamedTuple):
    """Texts that run together, in the order of their rows."""

    texts: list[Waiting]
    plan: PaddedPlan

    @property
    def tokens(self) -> int:
        """Without padding."""
        return sum(text.length for text in self.texts)


class WaitingTexts:
    """The queue of one model. Not thread-safe: its owner has the lock."""

    def __init__(self, model: ServedModel):
        self.model = model
        self._later: list[Waiting] = []  # a heap
        self._window: list[Waiting] = []  # sorted
        self._order = itertools.count()
        self._most_texts = max(WINDOW_TEXTS, model.batch_tokens // model.buckets[0])

    def push(self, job: Job, now: int) -> None:
        """Adds all texts of a job; `now`: tokens that were taken up until now."""
        for index, turn in turns(job.lengths, now, self.model.batch_tokens):
            length = int(job.lengths[index])
            heapq.heappush(self._later, Waiting(turn, next(self._order), job, index, length))

    def next_turn(self) -> tuple[float, int] | None:
        """When the first text is due; None: nothing waits."""
        self._fill_window()
        return self._window[0][:2] if self._window else None

    def pop_batch(self) -> Batch:
        """Takes the batch that holds the text that is due first; something must wait."""
        self._fill_window()
        lengths = np.fromiter((text.length for text in self._window), np.int64, len(self._window))
        plans = cheapest_batches(
            lengths,
            self.model.batch_tokens,
            self.model.buckets,
            row_multiple=self.model.row_multiple,
        )
        plan = next(plan for plan in plans if 0 in plan.indices)
        texts = [self._window[i] for i in plan.indices]
        taken = set(plan.indices.tolist())
        self._window = [text for i, text in enumerate(self._window) if i not in taken]
        return Batch(texts, plan)

    def _fill_window(self) -> None:
        """Tops the window up to its tokens, at least one text however long, and up to the double
        with texts that came later and are due sooner; drops what is over.
        """
        window = [text for text in self._window if not text.job.is_over]
        whole = WINDOW_BATCHES * self.model.batch_tokens
        room = whole - sum(text.length for text in window)
        places = self._most_texts - len(window)
        last = window[-1] if window else None
        while self._later and (
            min(room, places) > 0
            or (last and min(room + whole, places + self._most_texts) > 0
                and self._later[0][:2] < last[:2])
        ):  # fmt: skip
            text = heapq.heappop(self._later)
            if not text.job.is_over:
                window.append(text)
                room -= text.length
                places -= 1
        window.sort(key=_turn)
        self._window = window


def turns(
    lengths: Integer[np.ndarray, " N"], now: int, batch_tokens: int
) -> list[tuple[int, float]]:
    """(index, turn) of the texts of one request, the longest first: what comes together in it is
    of about one length.
    """
    order = np.argsort(-lengths, kind="stable")
    before = np.cumsum(lengths[order]) - lengths[order]
    put_off = SPREAD * np.maximum(before - batch_tokens, 0)
    return list(zip(order.tolist(), (now + put_off).astype(float).tolist(), strict=True))


def _turn(text: Waiting) -> tuple[float, int]:
    return text[:2]
