"""Running a server, HTTP and gRPC, until it is told to stop: SIGTERM turns readiness off, requests
that are open are answered, and the process ends with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import uvicorn

from nvembed_jax.encoder import Embedder
from nvembed_jax.serve.address import authority, listen
from nvembed_jax.serve.app import make_app
from nvembed_jax.serve.models import ServedModel
from nvembed_jax.serve.service import EmbeddingService
from nvembed_jax.serve.settings import ServerSettings

KEEP_ALIVE_S = 75  # longer than clients keep idle connections
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_logger = logging.getLogger(__name__)


def run_server(
    models: Sequence[tuple[str, Embedder]],
    settings: ServerSettings,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    grpc_port: int | None = None,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serves models until SIGTERM or SIGINT; a second signal does not wait for open requests.

    Args:
        models: (id, model) pairs.
        port, grpc_port: 0: any that is free. grpc_port: of KServe's protocol; None: no gRPC.
        on_listening: called with the server's URL, before the models are compiled; then with that
            of gRPC.

    Raises:
        OSError: an address cannot be listened on. ValueError: two models by one name.
    """
    served = [ServedModel(id, model, settings.batch_tokens) for id, model in models]
    service = EmbeddingService(served, settings)
    rpc = None if grpc_port is None else _rpc_server(service, host, grpc_port)
    listener = listen(host, port)

    def listening(url: str) -> None:
        _logger.info("listening", extra={"facts": {"url": url, "models": [m.id for m in served]}})
        if on_listening is not None:
            on_listening(url)

    listening(f"http://{authority(host, listener.getsockname()[1])}")
    server = make_server(service, rpc, listening)
    server.run(sockets=[listener])
    if server.has_failed:
        raise RuntimeError("the device thread ended; the log says why")


def make_server(
    service: EmbeddingService,
    rpc: Any = None,
    on_rpc_listening: Callable[[str], None] = lambda url: None,
) -> DrainingServer:
    """The server, not running yet.

    Args:
        rpc: an `rpc.RpcServer` that lives as long.
        on_rpc_listening: called with its URL.
    """
    settings = service.settings

    async def before_stop() -> None:
        if rpc is not None:
            await rpc.stop(settings.drain_timeout_s)

    config = uvicorn.Config(
        make_app(service, before_stop),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    return DrainingServer(config, service, rpc, on_rpc_listening)


class DrainingServer(uvicorn.Server):
    """uvicorn, but a SIGTERM first only turns readiness off, so that whoever sends requests here
    can take notice; and a stop that was asked for is no failure.

    Attributes:
        has_failed: it ended because the service did.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: EmbeddingService,
        rpc: Any,
        on_rpc_listening: Callable[[str], None],
    ):
        super().__init__(config)
        self._service = service
        self._rpc, self._on_rpc_listening = rpc, on_rpc_listening
        self._exit_at: float | None = None
        self.has_failed = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours while the server runs; none is raised again behind it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, the second hurries it."""
        self._service.drain()
        if self._exit_at is None:
            delay_s = self._service.settings.drain_delay_s if sig == signal.SIGTERM else 0
            self._exit_at = time.monotonic() + delay_s
        elif self.should_exit:
            self.force_exit = True
        else:
            self._exit_at = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Both ports listen; calls before the models are compiled are turned away."""
        if self._rpc is not None:
            await self._rpc.start()
            self._on_rpc_listening(f"grpc://{authority(self._rpc.host, self._rpc.port)}")
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Both end at the same time."""
        if self._rpc is None:
            await super().shutdown(sockets)
            return
        # The lifespan waits for the same before it stops the service.
        ending = asyncio.create_task(self._rpc.stop(self._service.settings.drain_timeout_s))
        await super().shutdown(sockets)
        if self.force_exit:
            await self._rpc.stop(0)
        await ending

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's clock, ten times a second."""
        if not self._service.is_alive:
            self.has_failed = self.should_exit = True
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)


def _rpc_server(service: EmbeddingService, host: str, port: int) -> Any:
    from nvembed_jax.serve.rpc import RpcServer

    return RpcServer(service, host, port)
