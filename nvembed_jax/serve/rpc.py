"""The gRPC interface: KServe's inference protocol on the loop, the queue and the limits of HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import grpc

from nvembed_jax.serve import kserve
from nvembed_jax.serve.address import authority, listen
from nvembed_jax.serve.errors import ServeError, unauthorized
from nvembed_jax.serve.gate import request_id
from nvembed_jax.serve.keys import ApiKeys
from nvembed_jax.serve.models import RpcNames, ServedModel
from nvembed_jax.serve.service import (
    INLINE_BYTES,
    INLINE_VALUES,
    EmbeddingService,
    embedded_facts,
)
from nvembed_jax.version import __version__

OPEN_METHODS = ("ServerLive", "ServerReady")  # no key is asked for
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}

_logger = logging.getLogger(__name__)

Method = Callable[[bytes, dict[str, Any]], Coroutine[Any, Any, bytes]]


class RpcServer:
    """One gRPC port of a service; lives on the event loop that starts it.

    Attributes:
        host, port: where it listens; a port of 0 becomes a free one at the start.
    """

    def __init__(self, service: EmbeddingService, host: str, port: int):
        """Raises ValueError where two models have one name in this protocol."""
        self.host, self.port = host, port
        self._service, self._settings = service, service.settings
        self._methods = Methods(service)
        self._keys = ApiKeys(service.settings.api_keys)
        self._server: Any = None

    async def start(self) -> None:
        """Begins to listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        if self.port:
            # gRPC itself fails badly on an address in use: asked before, it never meets one.
            listen(self.host, self.port).close()
        options = [
            ("grpc.so_reuseport", 0),  # else two servers share a port without a word
            ("grpc.max_receive_message_length", self._settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
        ]
        self._server = grpc.aio.server(options=options)
        handlers = {name: self._handler(name, work) for name, work in self._methods.all().items()}
        handler = grpc.method_handlers_generic_handler(kserve.SERVICE, handlers)
        self._server.add_generic_rpc_handlers((handler,))
        address = authority(self.host, self.port)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        await self._server.start()

    async def stop(self, grace_s: float | int) -> None:
        """Takes no more calls, and waits for those that are open, at most so long; may be called
        again."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def _handler(self, name: str, work: Method) -> Any:
        """Messages stay bytes here: nothing is parsed before the key is seen."""

        async def call(content: bytes, context: Any) -> bytes:
            return await self._call(name, work, content, context)

        return grpc.unary_unary_rpc_method_handler(call)

    async def _call(self, name: str, work: Method, content: bytes, context: Any) -> bytes:
        """One call: its key, its answer or status, a count and a line in the log."""
        started, code = time.perf_counter(), grpc.StatusCode.CANCELLED
        sent = _headers(context.invocation_metadata())
        facts: dict[str, Any] = {"request_id": request_id(sent)}
        try:
            if name not in OPEN_METHODS and not self._keys.accept(sent):
                raise unauthorized()
            answer = await work(content, facts)
            code = grpc.StatusCode.OK
            return answer
        except ServeError as error:
            failed = error
            code = _CODES.get(error.status, grpc.StatusCode.INTERNAL)
        except Exception as error:
            _logger.error("a request failed", exc_info=error, extra={"facts": facts})
            failed = ServeError(500, "the server failed on this request")
            code = grpc.StatusCode.INTERNAL
        finally:
            self._note(name, code, time.perf_counter() - started, facts)
        trailing = tuple((key.lower(), value) for key, value in failed.headers.items())
        await context.abort(code, failed.message, trailing)
        raise AssertionError("abort raises")

    def _note(
        self, name: str, code: grpc.StatusCode, seconds: float, facts: dict[str, Any]
    ) -> None:
        path = f"/{kserve.SERVICE}/{name}"
        self._service.metrics.request(path, "gRPC", code.name, seconds)
        level = logging.DEBUG if name in OPEN_METHODS else logging.INFO
        told = {"method": "gRPC", "path": path, "status": code.name}
        timed = {"ms": round(seconds * 1000, 2)}
        _logger.log(level, "request", extra={"facts": {**told, **timed, **facts}})


class Methods:
    """What each method of the protocol answers: a message's bytes in, a message's bytes out."""

    def __init__(self, service: EmbeddingService):
        self._service, self._settings = service, service.settings
        self._names = RpcNames(service.names)

    def all(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
        }

    async def server_live(self, content: bytes, facts: dict[str, Any]) -> bytes:
        """Whether the process does its work."""
        return _made("ServerLiveResponse", live=self._service.is_alive)

    async def server_ready(self, content: bytes, facts: dict[str, Any]) -> bytes:
        """Whether new requests should be sent here."""
        return _made("ServerReadyResponse", ready=self._service.is_ready)

    async def model_ready(self, content: bytes, facts: dict[str, Any]) -> bytes:
        """The same, of a model that there is."""
        self._model(kserve.parse("ModelReadyRequest", content))
        return _made("ModelReadyResponse", ready=self._service.is_ready)

    async def server_metadata(self, content: bytes, facts: dict[str, Any]) -> bytes:
        """Name and version of this server."""
        return _made("ServerMetadataResponse", name="nvembed", version=__version__)

    async def model_metadata(self, content: bytes, facts: dict[str, Any]) -> bytes:
        """Tensors of a model."""
        asked = kserve.parse("ModelMetadataRequest", content)
        model = self._model(asked)
        return kserve.model_metadata(asked.name, model.embedder.embed_dim).SerializeToString()

    async def model_infer(self, content: bytes, facts: dict[str, Any]) -> bytes:
        """Embeds texts."""
        service = self._service

        def read() -> tuple[Any, Any]:
            message = kserve.parse("ModelInferRequest", content)
            kserve.check_version(message.model_version)
            name = self._names.find(message.model_name)
            return message, kserve.texts_request(message, name, self._settings.max_inputs)

        with service.room.holding() as take, service.admitted():
            take(len(content))
            message, asked = await service.off_loop(read, len(content) <= INLINE_BYTES)
            done = await service.embed(asked)
            facts |= embedded_facts(asked, done)
            return await service.off_loop(
                lambda: kserve.infer_response(message, done), done.rows.size <= INLINE_VALUES
            )

    def _model(self, asked: Any) -> ServedModel:
        kserve.check_version(asked.version)
        return self._service.names.find(self._names.find(asked.name))[0]


def _made(kind: str, **fields: Any) -> bytes:
    return kserve.messages[kind](**fields).SerializeToString()


def _headers(metadata: Sequence[tuple[str, Any]] | None) -> dict[bytes, bytes]:
    """A call's metadata in the form of HTTP headers."""
    pairs = metadata or ()
    return {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in pairs}
