"""One request's texts on their way through the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nvembed_jax.text.tokenizer import Encoded


class Job:
    """Tokens in, embeddings out; `on_done` is called once, from any thread, when it is over.

    Attributes:
        encoded: N tokenised texts. lengths: int64 [N], their tokens; tokens: all together.
        rows: float32 [N, D]; whole when `error` is None.
        error: why there are none. is_over: done, failed or cancelled.
        waiting: tokens not dispatched yet; kept by the owner of the queue.
        queued_s: from the submission to the first batch; device_s: from then to the end.
    """

    def __init__(self, encoded: list[Encoded], embed_dim: int, on_done: Callable[[], Any]):
        self.encoded, self._on_done = encoded, on_done
        self.lengths = np.fromiter((len(e.input_ids) for e in encoded), np.int64, len(encoded))
        self.tokens, self.waiting = int(self.lengths.sum()), 0
        self.rows = np.zeros((len(encoded), embed_dim), np.float32)
        self.error: Exception | None = None
        self.is_over = False
        self._left = len(encoded)
        self._submitted = time.perf_counter()
        self._started: float | None = None
        self.queued_s = self.device_s = 0.0

    def start(self) -> None:
        """Some of its texts go to the device."""
        if self._started is None:
            self._started = time.perf_counter()
            self.queued_s = self._started - self._submitted

    def put(self, index: int, row: np.ndarray) -> None:
        """One embedding is there."""
        self.rows[index] = row
        self._left -= 1
        if self._left == 0:
            self.finish()

    def finish(self, error: Exception | None = None) -> None:
        """Ends the job, unless it is over."""
        if self.is_over:
            return
        self.is_over, self.error = True, error
        if self._started is not None:
            self.device_s = time.perf_counter() - self._started
        self._on_done()
