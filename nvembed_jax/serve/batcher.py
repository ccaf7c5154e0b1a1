"""The device thread: batches of the texts of many requests, for all models of the process.

While one batch runs the next one is planned and dispatched.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nvembed_jax.serve.errors import ServeError, not_ready, queue_full
from nvembed_jax.serve.job import Job
from nvembed_jax.serve.metrics import Metrics
from nvembed_jax.serve.models import ServedModel
from nvembed_jax.serve.settings import QUEUE_BATCHES, ServerSettings
from nvembed_jax.serve.waiting import Batch, WaitingTexts
from nvembed_jax.text.packing import pad
from nvembed_jax.text.tokenizer import Encoded

IN_FLIGHT = 2  # batches: one runs, one is ready to
_FIRST_RATE = 2000.0  # tokens a second, before anything was measured
_LONGEST_WAIT_S = 30
_SHARE_OF_ONE = 8

_logger = logging.getLogger(__name__)


class _Running(NamedTuple):
    model: ServedModel
    batch: Batch
    rows: Any
    since: float


class Batcher:
    """Takes tokenised texts of any thread, and runs them in one thread of its own.

    Attributes:
        is_warm: all shapes are compiled. waiting_tokens: not dispatched yet.
        max_tokens: waiting ones above which no job is taken; one job counts for at most an eighth
            of it, since others pass what of it exceeds a batch.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServerSettings, metrics: Metrics):
        self._models, self._settings, self._metrics = models, settings, metrics
        self._queues = {model.id: WaitingTexts(model) for model in models}
        self._open: set[Job] = set()
        largest = max(model.batch_tokens for model in models)
        self.max_tokens = settings.max_queue_tokens or QUEUE_BATCHES * largest
        self.waiting_tokens = self._load = 0  # all, and as they count for the bound
        self._most_of_one = max(self.max_tokens // _SHARE_OF_ONE, 1)
        self.is_warm = False
        self._changed = threading.Condition()
        self._stopping = False
        self._taken = 0  # tokens taken up since the start: the clock of the queues
        self._rate = _FIRST_RATE
        self._last_finish = 0.0
        self._compiled = 0
        self._thread = threading.Thread(target=self._main, name="nvembed-device", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the device thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread, which compiles all shapes first."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the batches that run; jobs that wait fail."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def wait_s(self) -> int:
        """Seconds after which the queue should have room: its tokens at the rate of late."""
        return min(max(math.ceil(self._load / self._rate), 1), _LONGEST_WAIT_S)

    def check_room(self) -> None:
        """Raises ServeError (429) where the queue is full. Below the bound every job is taken,
        also one that is larger than the whole queue."""
        if self._load >= self.max_tokens:
            raise queue_full(self.wait_s())

    def submit(self, model: ServedModel, encoded: list[Encoded], on_done: Callable[[], Any]) -> Job:
        """Queues the texts of one request; see `Job`.

        Raises:
            ServeError: the queue is full (429), or the server stops (503).
        """

        def done() -> None:
            self._open.discard(job)
            on_done()

        job = Job(encoded, model.embedder.embed_dim, done)
        with self._changed:
            if self._stopping:
                raise not_ready("the server is stopping")
            self.check_room()
            self._open.add(job)
            self._queues[model.id].push(job, self._taken)
            self._wait(job, job.tokens)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Drops what of a job is not dispatched yet."""
        self._end(job, ServeError(503, "the request was cancelled"))

    def _end(self, job: Job, error: Exception) -> None:
        with self._changed:
            job.finish(error)
            self._wait(job, -job.waiting)

    def _wait(self, job: Job, more: int) -> None:
        """So many tokens more of a job wait; the lock is held."""
        before = min(job.waiting, self._most_of_one)
        job.waiting += more
        self.waiting_tokens += more
        self._load += min(job.waiting, self._most_of_one) - before

    def _main(self) -> None:
        try:
            if self._settings.warmup:
                self._warm_up()
            self.is_warm = not self._stopping
            self._serve()
        except Exception as error:
            _logger.critical("the device thread ended", exc_info=error)
        finally:
            with self._changed:
                self._stopping = True
            for job in list(self._open):
                self._end(job, not_ready("the server is stopping"))

    def _warm_up(self) -> None:
        """Compiles and runs every shape that texts of up to `warmup_length` tokens can come in."""
        for model in self._models:
            start, shapes = time.perf_counter(), model.shapes(self._settings.warmup_length)
            pad_id = model.embedder.tokenizer.pad_id
            for length, rows in shapes:
                if self._stopping:
                    return
                jax.block_until_ready(model.run(pad([], length, rows, pad_id)))
            seconds = round(time.perf_counter() - start, 1)
            facts = {"model": model.id, "shapes": len(shapes), "seconds": seconds}
            _logger.info("warmed up", extra={"facts": facts})
        self._compiled = self._num_compilations()

    def _serve(self) -> None:
        running: deque[_Running] = deque()
        while True:
            batch = self._next(wait=not running)
            if batch is not None:
                self._dispatch(*batch, running)
            if running and (batch is None or len(running) >= IN_FLIGHT):
                self._finish(running.popleft())
            elif batch is None and self._stopping:
                return

    def _next(self, wait: bool) -> tuple[ServedModel, Batch] | None:
        """The batch that is due first, of any model; None: nothing waits, or the server stops."""
        with self._changed:
            while not self._stopping:
                due = {q: turn for q in self._queues.values() if (turn := q.next_turn())}
                if due:
                    queue = min(due, key=lambda q: due[q])
                    batch = queue.pop_batch()
                    self._taken += batch.tokens
                    for text in batch.texts:
                        text.job.start()
                        self._wait(text.job, -text.length)
                    return queue.model, batch
                if not wait:
                    return None
                self._changed.wait()
        return None

    def _dispatch(self, model: ServedModel, batch: Batch, running: deque[_Running]) -> None:
        plan, started = batch.plan, time.perf_counter()
        encoded = [text.job.encoded[text.index] for text in batch.texts]
        try:
            arrays = pad(encoded, plan.length, plan.rows, model.embedder.tokenizer.pad_id)
            rows = model.run(arrays)
        except Exception as error:
            self._failed(model, batch, error)
            return
        self._note_compilations(model, plan)
        self._metrics.batch(
            model.id, [text.length for text in batch.texts], plan.rows * plan.length
        )
        running.append(_Running(model, batch, rows, started))

    def _finish(self, done: _Running) -> None:
        try:
            rows = np.asarray(done.rows)[: len(done.batch.texts)]
        except Exception as error:
            self._failed(done.model, done.batch, error)
            return
        now = time.perf_counter()
        took = max(now - max(done.since, self._last_finish), 1e-4)
        self._rate += 0.1 * (done.batch.tokens / took - self._rate)
        self._last_finish = now
        finite = np.atleast_1d(np.isfinite(rows).all(axis=1))
        for text, row, is_finite in zip(done.batch.texts, rows, finite, strict=True):
            if is_finite:
                text.job.put(text.index, row)
            else:
                self._end(text.job, ServeError(500, "the model gave values that are not finite"))

    def _failed(self, model: ServedModel, batch: Batch, error: Exception) -> None:
        """One batch fails, the server goes on."""
        facts = {"model": model.id, "rows": batch.plan.rows, "length": batch.plan.length}
        _logger.error("a batch failed", exc_info=error, extra={"facts": facts})
        for text in batch.texts:
            self._end(text.job, ServeError(500, "the model failed on this batch"))

    def _note_compilations(self, model: ServedModel, plan: Any) -> None:
        compiled = self._num_compilations()
        if compiled != self._compiled and self.is_warm:
            facts = {"model": model.id, "rows": plan.rows, "length": plan.length}
            _logger.info("compiled another shape", extra={"facts": facts})
        self._compiled = compiled

    def _num_compilations(self) -> int:
        return sum(model.embedder.num_compilations for model in self._models)
