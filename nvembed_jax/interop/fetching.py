"""Texts as they are sent -> their embeddings: from the cache, else from the server, several
requests at a time; what comes is kept at once, also when the run is stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from nvembed_jax.data.embedding_cache import EmbeddingCache
from nvembed_jax.interop.embeddings_client import EmbeddingsClient
from nvembed_jax.interop.endpoint import Endpoint
from nvembed_jax.runtime import progress_bar

PROBE = "The quick brown fox jumps over the lazy dog."
_SAME_MODEL = 0.99  # cosine; services answer a little differently each time


class _Batch(NamedTuple):
    """What one request asks for."""

    keys: list[bytes]
    texts: list[str]


class Fetcher:
    """The client and the cache of one endpoint; `close` it at the end. Not for several threads.

    Args:
        folder: of the cache; None: nothing is kept.

    Attributes:
        width: of the embeddings, None as long as it is not known.
    """

    def __init__(self, endpoint: Endpoint, folder: Path | None) -> None:
        self._endpoint, self._folder = endpoint, folder
        self.client = EmbeddingsClient(endpoint)
        self.width = endpoint.dimensions
        self._cache: EmbeddingCache | None = None
        self._same_model = False

    @property
    def cache_path(self) -> Path | None:
        """The file of the cache."""
        if self._folder is None:
            return None
        name = re.sub(r"[^\w.-]+", "_", f"{self._endpoint.host}-{self._endpoint.model}")
        return self._folder / f"{name[-100:]}-{self._endpoint.fingerprint}.sqlite"

    def close(self) -> None:
        """Closes the connections and the cache."""
        self.client.close()
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def rows(
        self, texts: Sequence[str], fields: Mapping[str, Any], show: bool | None = None
    ) -> Float[np.ndarray, "N D"]:
        """The embedding of every text, as it came; equal texts are sent once.

        Args:
            fields: of the requests, besides model, input and encoding_format.
            show: a progress bar; None: when standard error is a terminal.

        Raises:
            ValueError: the server refuses, its answer is none, or another model answers than the
                one in the cache. ConnectionError: no answer. OSError: the cache cannot be written.
        """
        places: dict[bytes, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(_key(text, fields), []).append(place)
        cache = self._opened()
        out: list[np.ndarray | None] = [None] * len(texts)
        with progress_bar(len(texts), show) as bar:

            def put(keys: Sequence[bytes], rows: Any) -> None:
                for key, row in zip(keys, rows, strict=True):
                    self._check_width(len(row))
                    for place in places[key]:
                        out[place] = row
                    bar.update(len(places[key]))

            known = cache.get(places) if cache else {}
            put(list(known), known.values())
            # The longest first: one that is too long for the server shows at once.
            missing = [(key, texts[at[0]]) for key, at in places.items() if key not in known]
            missing.sort(key=lambda item: -len(item[1]))
            for batch, rows in self._answers(missing, fields):
                put(batch.keys, rows)
        return np.stack([row for row in out if row is not None])

    def _answers(
        self, missing: Sequence[tuple[bytes, str]], fields: Mapping[str, Any]
    ) -> Iterator[tuple[_Batch, np.ndarray]]:
        """Batches with their embeddings, in the order in which they come."""
        if not missing:
            return
        self.client.start()
        self._check_same_model(fields)
        batches, pending = self._batches(missing), dict[Future[np.ndarray], _Batch]()
        pool = ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="nvembed-remote")
        try:
            while True:
                room = 2 * self._endpoint.concurrency - len(pending)
                for batch in islice(batches, room):
                    pending[pool.submit(self.client.embed, batch.texts, fields)] = batch
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    batch = pending.pop(future)
                    yield batch, self._kept(batch, future.result())
        finally:
            self.client.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            for future, batch in pending.items():  # paid for: not to be lost with the run
                if not future.cancelled() and future.exception() is None:
                    self._kept(batch, future.result())

    def _batches(self, missing: Sequence[tuple[bytes, str]]) -> Iterator[_Batch]:
        batch, chars = _Batch([], []), 0
        for key, text in missing:
            full = len(batch.texts) == self._endpoint.texts_a_request
            if batch.texts and (full or chars + len(text) > self._endpoint.chars_a_request):
                yield batch
                batch, chars = _Batch([], []), 0
            batch.keys.append(key)
            batch.texts.append(text)
            chars += len(text)
        yield batch

    def _kept(self, batch: _Batch, rows: np.ndarray) -> np.ndarray:
        self._check_width(rows.shape[1])
        if self._cache is not None:
            self._cache.put(batch.keys, rows)
        return rows

    def _opened(self) -> EmbeddingCache | None:
        path = self.cache_path
        if self._cache is None and path is not None:
            self._cache = EmbeddingCache(path, self._endpoint.identity)
        return self._cache

    def _check_same_model(self, fields: Mapping[str, Any]) -> None:
        """Embeds one text again that was embedded when the cache was begun."""
        if self._cache is None or self._same_model:
            return
        fresh = self.client.embed([PROBE], fields)[0]
        name = f"probe {_key(PROBE, fields).hex()}"
        self._cache.keep_note(name, fresh.tobytes())
        kept = np.frombuffer(self._cache.note(name) or b"", np.float32)
        if len(kept) == len(fresh):
            cosine = float(kept @ fresh / (np.linalg.norm(kept) * np.linalg.norm(fresh) + 1e-30))
        if len(kept) != len(fresh) or cosine < _SAME_MODEL:
            raise ValueError(
                f"{self.client.url}: another model answers for {self._endpoint.model!r} than the "
                f"one in the cache; give it a `revision` of its own, or remove {self._cache.path}"
            )
        self._same_model = True

    def _check_width(self, width: int) -> None:
        if self.width is not None and width != self.width:
            told = "asked for" if self._endpoint.dimensions else "got before"
            raise ValueError(
                f"{self.client.url}: embeddings of width {width} came; {told}: {self.width}"
            )
        self.width = width


def _key(text: str, fields: Mapping[str, Any]) -> bytes:
    """What an embedding is kept under: a hash of the text and the fields sent with it."""
    sent = json.dumps([text, dict(fields)], sort_keys=True)
    return hashlib.sha256(sent.encode()).digest()[:20]
