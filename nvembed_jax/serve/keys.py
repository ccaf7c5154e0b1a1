"""API keys: read from options, files and the environment, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path


class ApiKeys:
    """The keys of a server, as digests; without any, all requests are let in."""

    def __init__(self, keys: Iterable[str]):
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request's headers (lower case) have a key: `Authorization: Bearer KEY`, or
        `X-API-Key: KEY`."""
        if not self._digests:
            return True
        scheme, _, sent = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            sent = headers.get(b"x-api-key", b"")
        digest = hashlib.sha256(sent.strip()).digest()
        # Every key is compared: the time tells neither how far one fits nor which.
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(found)


def read_keys(given: Iterable[str], file: str | Path | None) -> tuple[str, ...]:
    """Keys given one by one, and those in a file: one a line, # begins a comment line.

    Raises:
        FileNotFoundError: no such file. ValueError: a key that no header can hold, or a file
            without keys.
    """
    keys = [key.strip() for key in given]
    if file is not None:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ValueError(f"{file}: no API key in it; expected one a line")
        keys += found
    for key in keys:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("an API key is empty, or has spaces or odd characters")
    return tuple(dict.fromkeys(keys))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
