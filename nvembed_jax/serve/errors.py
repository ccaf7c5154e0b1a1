"""What a request is answered with when it fails, in the one shape that clients of OpenAI and of NIM
both print.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "internal_server_error",
    503: "service_unavailable",
}


class ServeError(Exception):
    """A request that is not answered as asked.

    Attributes:
        status: HTTP status. message: what was expected, what came, and the mend; never a text.
        type: kind of error; by default that of the status. param: the field at fault.
        code: short name for programs. headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.type = type or _TYPES.get(status, "invalid_request_error")
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The response: the flat fields are NIM's, those under `error` OpenAI's."""
        inner = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {
            "object": "error",
            "message": self.message,
            "type": self.type,
            "detail": {},
            "error": inner,
        }


class ClientGoneError(Exception):
    """The client closed the connection: there is nobody to answer."""


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ServeError:
    """400."""
    return ServeError(400, message, param=param, code=code)


def invalid(message: str, param: str | None = None) -> ServeError:
    """422: the body is JSON, but not of the schema."""
    return ServeError(422, message, param=param, code="invalid_value")


def unauthorized() -> ServeError:
    """401."""
    return ServeError(
        401,
        "no valid API key: send one as Authorization: Bearer KEY",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def queue_full(wait_s: int) -> ServeError:
    """429, with the seconds after which there should be room."""
    return ServeError(
        429,
        f"the server is busy: its queue is full. Try again in {wait_s} s",
        code="queue_full",
        headers={"Retry-After": str(wait_s)},
    )


def not_ready(message: str, wait_s: int = 5) -> ServeError:
    """503."""
    return ServeError(503, message, code="not_ready", headers={"Retry-After": str(wait_s)})
