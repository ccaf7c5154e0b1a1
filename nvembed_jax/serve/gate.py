"""What every HTTP request passes: a request id, the API key, a count, a line in the log, and an
answer in the one shape of errors whatever goes wrong behind it.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nvembed_jax.serve.errors import ClientGoneError, ServeError, unauthorized
from nvembed_jax.serve.keys import ApiKeys
from nvembed_jax.serve.metrics import Metrics
from nvembed_jax.serve.wire import error_response

OPEN_PATHS = ("/v1/health/live", "/v1/health/ready")
FACTS = "nvembed"  # of the scope: what a route tells the log
CLIENT_GONE = 499
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

_logger = logging.getLogger(__name__)


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """The id that a client gave its request, if it is sane, or one made now."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class Gate:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, metrics: Metrics):
        self._app, self._keys, self._metrics = app, keys, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(scope, send)
        try:
            if scope["path"] not in OPEN_PATHS and not self._keys.accept(visit.headers):
                await error_response(unauthorized())(scope, receive, visit.send)
            else:
                await self._app(scope, receive, visit.send)
        except ClientGoneError:
            visit.status = CLIENT_GONE
        except Exception as error:
            _logger.error("a request failed", exc_info=error, extra={"facts": visit.id_fact})
            visit.status = 500
            if not visit.is_answered:
                failed = ServeError(500, "the server failed on this request")
                await error_response(failed)(scope, receive, visit.send)
        finally:
            self._note(scope, visit)

    def _note(self, scope: Scope, visit: _Visit) -> None:
        seconds = time.perf_counter() - visit.started
        # The path as the route has it: what a client writes there could be anything.
        path = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.request(path, method, visit.status, seconds)
        level = logging.DEBUG if path in OPEN_PATHS else logging.INFO
        if _logger.isEnabledFor(level):
            facts = {
                **visit.id_fact,
                "method": method,
                "path": path,
                "status": visit.status,
                "ms": round(seconds * 1000, 2),
                **scope.get(FACTS, {}),
            }
            _logger.log(level, "request", extra={"facts": facts})


class _Visit:
    """One request on its way: its id, and what was answered."""

    def __init__(self, scope: Scope, send: Send):
        self.started = time.perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._id = request_id(self.headers)
        self._send = send
        self.status = 500
        self.is_answered = False

    @property
    def id_fact(self) -> dict[str, Any]:
        return {"request_id": self._id}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_answered, self.status = True, message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._id.encode())]
            message = {**message, "headers": headers}
        await self._send(message)
