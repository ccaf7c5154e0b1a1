"""Requests to an OpenAI- or NIM-compatible /embeddings: retries, batches that are too large for the
server, and answers checked row by row.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import math
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from nvembed_jax.interop.endpoint import Endpoint

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_ABOUT_THE_TEXTS = frozenset({400, 413, 422})  # fewer or shorter ones may pass
_LONGEST_WAIT_S = 120.0
_FIRST_TRIES = 3  # of a server that was never reached: most likely the URL is wrong


class _RefusedError(ValueError):
    """A request that this server does not take as it is."""


class EmbeddingsClient:
    """Asks one endpoint; may be used from several threads. `close` it at the end.

    Attributes:
        requests, retries, tokens: counted so far; tokens as the server says.

    Raises:
        ImportError: httpx is missing. ValueError: no API key where one is needed.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import httpx
        except ImportError:
            raise ImportError(
                'remote models need httpx: pip install "nvembed_jax[remote]"'
            ) from None
        self._endpoint, self._httpx = endpoint, httpx
        self.url = endpoint.base_url + "/embeddings"
        self._key = endpoint.api_key()
        bearer = "Bearer " if endpoint.api_key_header == "Authorization" else ""
        headers = {endpoint.api_key_header: bearer + self._key} if self._key else {}
        self._client = httpx.Client(
            headers=headers,
            timeout=endpoint.timeout_s,
            limits=httpx.Limits(max_connections=endpoint.concurrency),
        )
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._not_before = 0.0  # a server that asks one thread to wait means all of them
        self._most_texts, self._answered = endpoint.texts_a_request, False
        self.requests = self.retries = self.tokens = 0

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def stop(self) -> None:
        """Ends all waiting between retries, and what is asked from now on, until `start`."""
        self._stopped.set()

    def start(self) -> None:
        """Takes `stop` back."""
        self._stopped.clear()

    def embed(self, texts: Sequence[str], fields: Mapping[str, Any]) -> Float[np.ndarray, "N D"]:
        """Embeddings in the order of the texts; halves are asked for where all are too many.

        Args:
            fields: of the request, besides model, input and encoding_format.

        Raises:
            ValueError: the server refuses the request, or its answer is none.
            ConnectionError: it could not be reached, or had no answer after all retries.
        """
        parts, start = [], 0
        while start < len(texts):
            part = texts[start : start + self._most_texts]
            try:
                parts.append(self._ask(part, fields))
            except _RefusedError as error:
                if len(part) == 1:
                    raise ValueError(
                        f"{error}; the text has {len(part[0]):,} characters and begins "
                        f"{part[0][:60]!r}"
                    ) from None
                with self._lock:
                    self._most_texts = min(self._most_texts, (len(part) + 1) // 2)
                continue
            start += len(part)
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise ValueError(f"{self.url}: answered with embeddings of widths {sorted(widths)}")
        return np.concatenate(parts)

    def _ask(self, texts: Sequence[str], fields: Mapping[str, Any]) -> np.ndarray:
        body = {
            "model": self._endpoint.model,
            "input": list(texts),
            "encoding_format": self._endpoint.encoding_format,
            **fields,
        }
        reason, tries = "stopped", self._endpoint.max_retries + 1
        attempt = 0
        while attempt < tries and self._may_ask():
            try:
                response = self._client.post(self.url, json=body)
            except self._httpx.HTTPError as error:
                reason, asked = f"{type(error).__name__}: {error}", None
                if isinstance(error, self._httpx.ConnectError) and not self._answered:
                    tries = min(tries, _FIRST_TRIES)
            else:
                if response.status_code not in _RETRIED:
                    return self._rows(response, len(texts))
                reason, asked = self._said(response), _asked_wait(response.headers)
                self._check_patience(reason, asked)
            attempt += 1
            if attempt < tries:
                self._put_off(attempt, asked)
        raise ConnectionError(
            f"{self.url}: no answer after {attempt} tries ({reason}); embeddings that came are "
            f"kept: run the same again to go on"
        )

    def _put_off(self, attempt: int, asked: float | None) -> None:
        wait = self._endpoint.backoff_s * 2 ** (attempt - 1)
        # Spread, so that the threads do not all come back at once.
        wait = min(wait, _LONGEST_WAIT_S) * random.uniform(0.75, 1.25) if asked is None else asked
        with self._lock:
            self.retries += 1
            self._not_before = max(self._not_before, time.monotonic() + wait)

    def _may_ask(self) -> bool:
        """Waits as long as the server wants; False when stopped meanwhile."""
        while not self._stopped.is_set():
            left = self._not_before - time.monotonic()
            if left <= 0:
                with self._lock:
                    self.requests += 1
                return True
            self._stopped.wait(left)
        return False

    def _check_patience(self, reason: str, asked: float | None) -> None:
        """Raises where waiting is of no use: no money left, or hours of waiting asked for."""
        if "insufficient_quota" in reason:
            raise ValueError(f"{self.url}: {reason}")
        if asked is not None and asked > _LONGEST_WAIT_S:
            raise ConnectionError(
                f"{self.url}: {reason}; it asks to wait {asked:,.0f} seconds. Embeddings that came "
                f"are kept: run the same again then"
            )

    def _rows(self, response: Any, count: int) -> np.ndarray:
        """The embeddings in a response that needs no retry."""
        status = response.status_code
        if status in _ABOUT_THE_TEXTS:
            raise _RefusedError(f"{self.url}: {self._said(response)}")
        if status != 200:
            raise ValueError(f"{self.url}: {self._said(response)}; {self._mend(status)}")
        try:
            data = response.json()
            items = data["data"]
            vectors = [_vector(item["embedding"]) for item in items]
            order = _order(items)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.url}: the answer holds no embeddings ({error!r}); expected those of an "
                f"OpenAI-compatible endpoint"
            ) from None
        if len(vectors) != count:
            raise ValueError(f"{self.url}: {count} texts were sent; {len(vectors)} embeddings came")
        if len({len(vector) for vector in vectors}) != 1 or not len(vectors[0]):
            raise ValueError(f"{self.url}: answered with embeddings of no or of several widths")
        rows = np.stack(vectors)[order]
        if not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise ValueError(f"{self.url}: embedding {bad} of {count} holds NaN or infinity")
        usage = data.get("usage")
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        with self._lock:
            self._answered = True
            self.tokens += tokens if isinstance(tokens, int) else 0
        return rows

    def _said(self, response: Any) -> str:
        """The status and the start of the message, without the key that some servers repeat."""
        try:
            text = " ".join(response.text.split())
        except ValueError:
            text = ""
        if self._key:
            text = text.replace(self._key, "***")
        return f"HTTP {response.status_code}: {text[:300] or 'no message'}"

    def _mend(self, status: int) -> str:
        env = self._endpoint.api_key_env
        if status in (401, 403):
            return f"check the API key in ${env}" if self._key else f"set the API key in ${env}"
        if 300 <= status < 400:
            return "it sends elsewhere; name that URL"
        return f"check the URL (up to /v1) and the model's name {self._endpoint.model!r}"


def _vector(value: Any) -> Float[np.ndarray, " D"]:
    """A list of numbers, or base64 of little-endian float32."""
    if isinstance(value, str):
        try:
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        except binascii.Error as error:
            raise ValueError(f"broken base64: {error}") from None
    row = np.asarray(value)
    if row.ndim != 1 or row.dtype.kind not in "fiu":
        raise ValueError("an embedding is no list of numbers")
    with np.errstate(over="ignore"):  # becomes infinity, which is refused by name
        return row.astype(np.float32)


def _order(items: Sequence[Mapping[str, Any]]) -> list[int]:
    """Where the row of each text stands: by `index`, or as they came where there is none."""
    indices = [item.get("index") for item in items]
    if all(index is None for index in indices):
        return list(range(len(items)))
    if sorted(indices) != list(range(len(items))):  # type: ignore[type-var]
        raise ValueError(f"'index' runs {indices[:8]}; expected each of 0 to {len(items) - 1} once")
    return np.argsort(indices).tolist()  # type: ignore[arg-type]


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that retry-after-ms or Retry-After (seconds or a date) asks for, if any does."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
        if math.isfinite(wait):
            return max(0.0, wait)
    try:
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
        return max(0.0, date.timestamp() - time.time())
    except (KeyError, ValueError):
        return None
