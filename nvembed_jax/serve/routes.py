"""The HTTP interface, one method a route: a request's bytes in, a response's bytes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from nvembed_jax.serve import schema, wire
from nvembed_jax.serve.body import read_body, unless_gone
from nvembed_jax.serve.calibrated import Verdicts
from nvembed_jax.serve.errors import not_ready
from nvembed_jax.serve.gate import FACTS
from nvembed_jax.serve.service import (
    INLINE_BYTES,
    INLINE_VALUES,
    EmbeddingService,
    TextsRequest,
    embedded_facts,
)
from nvembed_jax.version import __version__

API_VERSION = "1.0.0"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BASE64_VALUES = 16  # numbers that take as long in base64 as one written out

Parsed = TypeVar("Parsed", bound=schema.RequestBody)


class Routes:
    """What each path answers."""

    def __init__(self, service: EmbeddingService):
        self._service, self._settings = service, service.settings
        self._verdicts = Verdicts(service)
        self._created = int(time.time())

    async def embeddings(self, request: Request) -> Response:
        """Embeds texts, in OpenAI's form with NIM's fields."""
        return await self._work(request, schema.EmbeddingsBody, self._embed)

    async def tokenize(self, request: Request) -> Response:
        """Token ids of texts, as the model sees them."""
        return await self._work(request, schema.TokenizeBody, self._tokenize)

    async def similarity(self, request: Request) -> Response:
        """Cosine similarities of queries and passages, and what a calibration makes of them."""
        return await self._work(request, schema.SimilarityBody, self._compare)

    async def models(self, request: Request) -> Response:
        """All names that a request can have as its model."""
        names = self._service.names
        items = [
            {
                "id": name,
                "object": "model",
                "created": self._created,
                "owned_by": "nvembed_jax",
                "max_model_len": names.find(name)[0].embedder.max_length,
            }
            for name in names.listed()
        ]
        return wire.json_response({"object": "list", "data": items})

    async def live(self, request: Request) -> Response:
        """Whether the process does its work; else it should be started again."""
        if not self._service.is_alive:
            raise not_ready("the device thread has ended")
        return _health("Service is live.", "live")

    async def ready(self, request: Request) -> Response:
        """Whether new requests should be sent here."""
        if not self._service.is_ready:
            why = "stopping" if self._service.is_draining else "compiling its models"
            raise not_ready(f"the server is {why}")
        return _health("Service is ready.", "ready")

    async def metrics(self, request: Request) -> Response:
        """What was counted, in Prometheus' form."""
        return Response(self._service.metrics.text(), headers={"content-type": METRICS_TYPE})

    async def metadata(self, request: Request) -> Response:
        """What is served, and within which limits."""
        settings = self._settings
        facts = [model.facts() for model in self._service.names.models]
        return wire.json_response(
            {
                "version": __version__,
                "modelInfo": [{"shortName": f["id"], **f} for f in facts],
                "limits": {
                    "max_inputs": settings.max_inputs,
                    "max_body_bytes": settings.max_body_bytes,
                    "max_queue_requests": settings.max_queue_requests,
                },
            }
        )

    async def version(self, request: Request) -> Response:
        """Of the package and of this interface."""
        return wire.json_response({"release": __version__, "api": API_VERSION})

    async def _work(
        self,
        request: Request,
        kind: type[Parsed],
        answer: Callable[[Parsed, dict[str, Any]], Coroutine[Any, Any, bytes]],
    ) -> Response:
        """Reads, checks and answers, unless the client goes away."""
        facts = request.scope.setdefault(FACTS, {})
        settings = self._settings
        most, timeout_s = settings.max_body_bytes, settings.body_timeout_s

        async def work() -> bytes:
            with self._service.admitted():
                body = await self._service.off_loop(
                    lambda: schema.parse(kind, content), len(content) <= INLINE_BYTES
                )
                return await answer(body, facts)

        with self._service.room.holding() as take:
            content = await read_body(request, most, timeout_s, take)
            return wire.JsonBytes(await unless_gone(request, work()))

    async def _embed(self, body: schema.EmbeddingsBody, facts: dict[str, Any]) -> bytes:
        asked = TextsRequest(
            model=body.model,
            texts=schema.texts_of(body.input, "input", self._settings.max_inputs),
            input_type=body.input_type,
            task=body.task,
            truncate=body.truncate or "NONE",
            dimensions=body.dimensions,
            embedding_type=body.embedding_type or "float",
        )
        done = await self._service.embed(asked)
        facts |= embedded_facts(asked, done)
        as_base64 = body.encoding_format == "base64"
        size = done.rows.size // (_BASE64_VALUES if as_base64 else 1)
        return await self._service.off_loop(
            lambda: wire.embeddings_body(done.rows, as_base64, asked.model, done.tokens),
            size <= INLINE_VALUES,
        )

    async def _tokenize(self, body: schema.TokenizeBody, facts: dict[str, Any]) -> bytes:
        asked = TextsRequest(
            model=body.model,
            texts=schema.texts_of(body.input, "input", self._settings.max_inputs),
            input_type=body.input_type,
            task=body.task,
            truncate=body.truncate or "NONE",
        )
        encoded = await self._service.count(asked)
        facts |= {"model": asked.model, "inputs": len(asked.texts)}
        length = self._service.names.find(asked.model)[0].embedder.max_length
        return await self._service.off_loop(
            lambda: wire.tokens_body(encoded, asked.model, length),
            sum(len(item.input_ids) for item in encoded) <= INLINE_VALUES,
        )

    async def _compare(self, body: schema.SimilarityBody, facts: dict[str, Any]) -> bytes:
        most = self._settings.max_inputs
        sides = []
        for name, own in (("queries", "query"), ("passages", "passage")):
            kind = body.input_type or own
            asked = TextsRequest(
                model=body.model,
                texts=schema.texts_of(getattr(body, name), name, most),
                input_type=kind,
                task=body.task if kind == "query" else None,
                truncate=body.truncate or "NONE",
                dimensions=body.dimensions,
            )
            sides.append(asked)
        verdict = self._verdicts.find(sides[0], sides[1], body.preset)
        scores, tokens = await self._service.similarity(*sides)
        facts |= {"model": body.model, "inputs": sum(len(s.texts) for s in sides), "tokens": tokens}

        def written() -> bytes:
            plain = wire.scores_body(scores, body.model, tokens)
            return plain if verdict is None else plain[:-1] + verdict.fields(scores) + b"}"

        return await self._service.off_loop(written, scores.size <= INLINE_VALUES)


def _health(message: str, status: str) -> Response:
    return wire.json_response({"object": "health.response", "message": message, "status": status})
