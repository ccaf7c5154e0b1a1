"""What a server does with a request, whatever the protocol: checks, tokens, batches, codes.

Short work is done where it is asked for, on the event loop; what can take milliseconds goes to
threads, so that it does not hold up other requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from nvembed_jax import codes
from nvembed_jax.serve.batcher import Batcher
from nvembed_jax.serve.errors import bad_request, not_ready, queue_full
from nvembed_jax.serve.job import Job
from nvembed_jax.serve.metrics import Metrics
from nvembed_jax.serve.models import ModelNames, ServedModel, chosen_input_type
from nvembed_jax.serve.room import BodyRoom
from nvembed_jax.serve.settings import ServerSettings
from nvembed_jax.serve.tokens import count_tokens, tokenize
from nvembed_jax.text.tokenizer import Encoded

INLINE_CHARS = 2_000  # tokenised on the event loop: a query, not a batch of passages
INLINE_VALUES = 32_768  # numbers that are quantised or written out there
INLINE_BYTES = 64 * 2**10  # of a request that is parsed there
MAX_SCORES = 1_000_000  # of one request for similarities
PRECISIONS = {"float": "float32", **{name: name for name in codes.PRECISIONS[1:]}}

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class TextsRequest:
    """Texts to embed, checked for their form; fields as in the HTTP interface."""

    model: str
    texts: list[str]
    input_type: str | None = None
    task: str | None = None
    truncate: str = "NONE"
    dimensions: int | None = None
    embedding_type: str = "float"


@dataclass(frozen=True)
class Embedded:
    """Embeddings or codes [N, C], tokens of each text [N], and how long they waited and ran."""

    rows: np.ndarray
    lengths: np.ndarray
    queued_s: float
    device_s: float

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return int(self.lengths.sum())


class EmbeddingService:
    """The models, the queue and the threads of one server. Used from one event loop.

    Attributes:
        names: the models. settings, metrics: as given. is_draining: the server is about to stop.
        room: for what clients send.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServerSettings):
        self.settings, self.metrics = settings, Metrics()
        self.names = ModelNames(models)
        self.room = BodyRoom(settings.max_body_bytes)
        self.is_draining = False
        self._batcher = Batcher(models, settings, self.metrics)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="nvembed-serve")
        self._open = 0
        gauges: dict[str, tuple[str, Callable[[], float | int]]] = {
            "nvembed_queue_requests": ("Requests accepted and not answered.", lambda: self._open),
            "nvembed_queue_tokens": ("Tokens that wait.", lambda: self._batcher.waiting_tokens),
            "nvembed_compilations": ("Batch shapes compiled.", self._compilations),
            "nvembed_ready": ("1: requests are taken.", lambda: int(self.is_ready)),
        }
        for name, (help, value) in gauges.items():
            self.metrics.gauge(name, help, value)

    @property
    def is_alive(self) -> bool:
        """Whether the device thread runs."""
        return self._batcher.is_alive

    @property
    def is_warm(self) -> bool:
        """Whether embeddings can be asked for."""
        return self._batcher.is_alive and self._batcher.is_warm

    @property
    def is_ready(self) -> bool:
        """Whether new clients should come here."""
        return self.is_warm and not self.is_draining

    def start(self) -> None:
        """Starts to warm up."""
        self._batcher.start()

    def stop(self) -> None:
        """Ends all threads; to be called when no request is open."""
        self._batcher.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def drain(self) -> None:
        """Says from now on that the server is not ready; requests are still answered."""
        self.is_draining = True

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request as open.

        Raises:
            ServeError: 503 before the server is warm, 429 when it is full.
        """
        if not self.is_warm:
            raise not_ready("the server is not ready: its models are being compiled")
        if self._open >= self.settings.max_queue_requests:
            raise queue_full(self._batcher.wait_s())
        self._batcher.check_room()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def off_loop(self, work: Callable[[], Result], is_short: bool) -> Result:
        """Runs `work` here if it is short, else in a thread."""
        if is_short:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def embed(self, request: TextsRequest) -> Embedded:
        """Embeddings or codes of the texts, in their order; cancelled with its task.

        Raises:
            ServeError: the request does not fit the model, or the server cannot take it.
        """
        model, by_name = self.names.find(request.model)
        dim = self._dimensions(model, request.dimensions)
        kind = chosen_input_type(model, by_name, request.input_type, request.task, self.settings)
        task = (request.task or self.settings.task) if kind == "query" else None
        affixes = model.affixes(kind, task)
        start = time.perf_counter()
        encoded = await self.off_loop(
            lambda: tokenize(model, request.texts, affixes, request.truncate),
            _is_short(request.texts),
        )
        tokenization = time.perf_counter() - start
        job = await self._run(model, encoded)
        self.metrics.embedded(len(encoded), tokenization, job.queued_s, job.device_s)
        precision = PRECISIONS[request.embedding_type]
        rows = await self.off_loop(
            lambda: _finished(job.rows, dim, precision), job.rows.size <= INLINE_VALUES
        )
        return Embedded(rows, job.lengths, job.queued_s, job.device_s)

    async def similarity(
        self, queries: TextsRequest, passages: TextsRequest
    ) -> tuple[np.ndarray, int]:
        """Cosines [N, M] of two lists of texts, and all their tokens.

        Raises:
            ServeError: as `embed`; 400 for too many pairs.
        """
        if len(queries.texts) * len(passages.texts) > MAX_SCORES:
            raise bad_request(
                f"{len(queries.texts)} x {len(passages.texts)} scores were asked for; one request "
                f"gives at most {MAX_SCORES:,}"
            )
        a, b = await self.embed(queries), await self.embed(passages)
        size = len(a.rows) * len(b.rows)
        scores = await self.off_loop(
            lambda: codes.similarity(a.rows, b.rows), size <= INLINE_VALUES
        )
        return scores, a.tokens + b.tokens

    async def count(self, request: TextsRequest) -> list[Encoded]:
        """Tokens of texts: with the prefix of an input type that is named, cut if so asked for."""
        model, by_name = self.names.find(request.model)
        named = by_name or request.input_type or request.task or self.settings.default_input_type
        affixes = ("", "")
        if named:
            kind = chosen_input_type(
                model, by_name, request.input_type, request.task, self.settings
            )
            task = (request.task or self.settings.task) if kind == "query" else None
            affixes = model.affixes(kind, task)

        def work() -> list[Encoded]:
            if request.truncate == "NONE":
                return count_tokens(model, request.texts, affixes)
            return tokenize(model, request.texts, affixes, request.truncate)

        return await self.off_loop(work, _is_short(request.texts))

    async def _run(self, model: ServedModel, encoded: list[Encoded]) -> Job:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def on_done() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, done)

        job = self._batcher.submit(model, encoded, on_done)
        try:
            await done
        except asyncio.CancelledError:
            self._batcher.cancel(job)
            raise
        if job.error is not None:
            raise job.error
        return job

    def _dimensions(self, model: ServedModel, asked: int | None) -> int | None:
        width = model.embedder.embed_dim
        if asked is None or asked == width:
            return None
        if asked > width:
            raise bad_request(
                f"dimensions must be in 1..{width} for this model; got {asked}", param="dimensions"
            )
        if not model.embedder.config.matryoshka_dims and not self.settings.allow_dimensions:
            raise bad_request(
                "this model was not trained to have its embeddings shortened (Matryoshka): leave "
                "dimensions away, or start the server with --allow-dimensions",
                param="dimensions",
            )
        return asked

    def _compilations(self) -> int:
        return sum(model.embedder.num_compilations for model in self.names.models)


def embedded_facts(asked: TextsRequest, done: Embedded) -> dict[str, Any]:
    """What the log says of a request for embeddings."""
    return {
        "model": asked.model,
        "inputs": len(asked.texts),
        "tokens": done.tokens,
        "queue_ms": round(done.queued_s * 1000, 2),
        "device_ms": round(done.device_s * 1000, 2),
    }


def _is_short(texts: Sequence[str]) -> bool:
    return sum(map(len, texts)) <= INLINE_CHARS


def _finished(rows: np.ndarray, dim: int | None, precision: str) -> np.ndarray:
    """Truncated, scaled to length one again, and quantised, as `Embedder.encode` does it."""
    if dim is not None:
        rows = codes.truncate(rows, dim)
    if precision == "float32":
        return rows
    return codes.quantize_embeddings(rows, precision, codes.unit_ranges(rows.shape[1]))


def _resolve(done: asyncio.Future[Any]) -> None:
    if not done.done():
        done.set_result(None)
