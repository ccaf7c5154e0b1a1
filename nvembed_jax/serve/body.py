"""Reading the body of a request within its limits, and noticing that its client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from nvembed_jax.serve.errors import ClientGoneError, ServeError, bad_request

Result = TypeVar("Result")


async def read_body(
    request: Request, most: int, timeout_s: float | int, take: Callable[[int], None]
) -> bytes:
    """The whole body; no more than `most` bytes are ever held, and `take` hears of each part.

    Raises:
        ServeError: 413 when it is longer, 408 when it takes too long, 400 for a false length; what
            `take` raises.
        ClientGoneError: the connection was closed.
    """
    told = request.headers.get("content-length", "0")
    if not told.isdecimal():
        raise bad_request("Content-Length is not a number")
    if len(told) > 18 or int(told) > most:
        raise _too_large(most)
    parts, size, more = [], 0, True
    try:
        async with asyncio.timeout(timeout_s):
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise _too_large(most)
                take(len(parts[-1]))
                more = message.get("more_body", False)
    except TimeoutError:
        raise _too_slow(timeout_s) from None
    return b"".join(parts)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client closes the connection.

    Raises:
        ClientGoneError: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(most: int) -> ServeError:
    return ServeError(
        413, f"the body is larger than {most:,} bytes; send fewer texts", code="body_too_large"
    )


def _too_slow(timeout_s: float | int) -> ServeError:
    return ServeError(
        408,
        f"the body did not arrive within {timeout_s:g} s",
        code="body_too_slow",
        headers={"Connection": "close"},
    )
