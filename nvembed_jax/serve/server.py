"""Running a server until it is told to stop: SIGTERM turns readiness off, requests that are open
are answered, and the process ends with 0.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn

from nvembed_jax.encoder import Embedder
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
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serves models until SIGTERM or SIGINT; a second signal does not wait for open requests.

    Args:
        models: (id, model) pairs.
        port: 0: any that is free.
        on_listening: called with the server's URL, before the models are compiled.

    Raises:
        OSError: the address cannot be listened on. ValueError: two models by one name.
    """
    served = [ServedModel(id, model, settings.batch_tokens) for id, model in models]
    service = EmbeddingService(served, settings)
    listener = _listen(host, port)
    url = _url(host, listener.getsockname()[1])
    _logger.info("listening", extra={"facts": {"url": url, "models": [m.id for m in served]}})
    if on_listening is not None:
        on_listening(url)
    server = make_server(service)
    server.run(sockets=[listener])
    if server.has_failed:
        raise RuntimeError("the device thread ended; the log says why")


def make_server(service: EmbeddingService) -> DrainingServer:
    """The server, not running yet."""
    settings = service.settings
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    return DrainingServer(config, service)


class DrainingServer(uvicorn.Server):
    """uvicorn, but a SIGTERM first only turns readiness off, so that whoever sends requests here
    can take notice; and a stop that was asked for is no failure.

    Attributes:
        has_failed: it ended because the service did.
    """

    def __init__(self, config: uvicorn.Config, service: EmbeddingService):
        super().__init__(config)
        self._service = service
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

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's clock, ten times a second."""
        if not self._service.is_alive:
            self.has_failed = self.should_exit = True
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
