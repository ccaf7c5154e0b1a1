"""Texts into a store and out again: long ones as chunks, of which the best one speaks for its text.

A build can be cut short at any moment: the same build again encodes only what is not there yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from nvembed_jax.data.records import Record
from nvembed_jax.search.index import Passage, PassageEncoder, whole_text
from nvembed_jax.search.stores.filters import Condition
from nvembed_jax.search.stores.schema import SYSTEM_FIELDS
from nvembed_jax.search.stores.store import Match, Store

_DEEPER = 4  # by so much more points are looked at where texts share the best ones


class DocumentHit(NamedTuple):
    """One text that was found, by its best chunk."""

    rank: int
    score: float
    id: str
    text: str
    chunk: int
    payload: dict[str, Any]


class BuildReport(NamedTuple):
    """What a build did: texts read, texts that were there already, points that were encoded."""

    texts: int
    unchanged: int
    encoded: int


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """Texts that belong into a store.

    Attributes:
        records: (record, payload) of every text, in any number; ids are theirs, each once.
        model: encodes the passages. encoding: further options of `model.encode_document`.
        split: cuts a record into passages. chunked: whether it may make several of one.
        block: passages encoded at once. progress: called with the number of texts done.
    """

    records: Iterable[tuple[Record, Mapping[str, Any]]]
    model: PassageEncoder
    encoding: Mapping[str, Any] = field(default_factory=dict)
    split: Callable[[Record], Iterable[Passage]] = whole_text
    chunked: bool = False
    block: int = 1024
    progress: Callable[[int], Any] = lambda done: None


class _Point(NamedTuple):
    id: str
    text: str
    payload: dict[str, Any]


def build_documents(store: Store, request: BuildRequest) -> BuildReport:
    """Brings texts into a store; what is there under the same ids is replaced where it differs.

    A text has as its points its id, or ID#0, ID#1, ... where texts are split. Texts that the
    request does not name stay as they are; one that became empty goes.

    Raises:
        ValueError: a bad payload, or all texts are empty and the store is too.
    """
    builder = _Builder(store, request)
    for record, payload in request.records:
        builder.take(record, payload)
    builder.flush()
    if not store.count():
        raise ValueError("every text of the corpus is empty; there is nothing to search")
    return BuildReport(builder.texts, builder.unchanged, builder.encoded)


def search_documents(
    store: Store,
    queries: Float[np.ndarray, "Q D"],
    k: int,
    conditions: Sequence[Condition] = (),
) -> list[list[DocumentHit]]:
    """The k best texts of each query, or all that meet the conditions; a text scores as its best
    chunk.

    Raises:
        ValueError: as `Store.search`; also where the k texts are not among as many points as the
            store can return.
    """
    depth = k
    while True:
        found = store.search(queries, depth, conditions)
        hits = [_best_chunks(matches, k) for matches in found]
        short = any(len(h) < k and len(m) == depth for h, m in zip(hits, found, strict=True))
        if not short:
            return hits
        most = store.most_matches
        if most is not None and depth == most:
            raise ValueError(
                f"a {store.kind} store returns at most {most:,} points, which belong to fewer than "
                f"{k} texts; ask for fewer"
            )
        depth = depth * _DEEPER if most is None else min(depth * _DEEPER, most)


def delete_documents(store: Store, ids: Sequence[str]) -> list[str]:
    """Removes texts with all their chunks; the ids that were not there."""
    first = {id_: f"{id_}#0" if _is_chunked(store) else id_ for id_ in ids}
    there = store.fetch(list(first.values()))
    store.delete_documents(list(ids))
    return [id_ for id_ in ids if first[id_] not in there]


def _is_chunked(store: Store) -> bool:
    return store.schema.settings.get("tokens", 0) > 0


class _Builder:
    """Collects the points of whole texts until there are enough to encode."""

    def __init__(self, store: Store, request: BuildRequest) -> None:
        self.store, self.request = store, request
        self.texts = self.unchanged = self.encoded = 0
        self._pending: list[list[_Point]] = []
        self._size = 0
        self._emptied: list[str] = []
        # Chunks of a text that was longer before can only be in a store that had something in it.
        self._may_hold_others = store.count() > 0

    def take(self, record: Record, payload: Mapping[str, Any]) -> None:
        passages = list(self.request.split(record))
        points = _points(record, passages, payload, self.request.chunked)
        self.texts += 1
        if points:
            self._pending.append(points)
            self._size += len(points)
        else:
            self._emptied.append(record.id)
        if self._size >= self.request.block or len(self._emptied) >= self.request.block:
            self.flush()

    def flush(self) -> None:
        points = [point for text in self._pending for point in text]
        there = self.store.fetch([p.id for p in points]) if self._may_hold_others else {}
        changed = [
            text
            for text in self._pending
            if any(there.get(p.id, {}).get("digest") != p.payload["digest"] for p in text)
        ]
        if self._may_hold_others:
            gone = [text[0].payload["document"] for text in changed] if self.request.chunked else []
            self.store.delete_documents(gone + self._emptied)
        self._encode([point for text in changed for point in text])
        self.unchanged += len(self._pending) - len(changed)
        self._pending, self._size, self._emptied = [], 0, []
        self.request.progress(self.texts)

    def _encode(self, points: list[_Point]) -> None:
        if not points:
            return
        texts = [point.text for point in points]
        vectors = self.request.model.encode_document(texts, **self.request.encoding)
        self.store.add(
            [point.id for point in points],
            np.asarray(vectors, np.float32),
            texts=texts,
            payloads=[point.payload for point in points],
        )
        self.encoded += len(points)


def _points(
    record: Record, passages: Sequence[Passage], payload: Mapping[str, Any], chunked: bool
) -> list[_Point]:
    content = json.dumps([[p.text for p in passages], dict(payload)], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return [
        _Point(
            f"{record.id}#{number}" if chunked else record.id,
            passage.text,
            {**payload, "document": record.id, "chunk": number, "digest": digest},
        )
        for number, passage in enumerate(passages)
    ]


def _best_chunks(matches: Sequence[Match], k: int) -> list[DocumentHit]:
    hits: dict[str, DocumentHit] = {}
    for id_, score, payload in matches:
        if len(hits) == k:
            break
        document = payload["document"] or id_
        own = {name: value for name, value in payload.items() if name not in SYSTEM_FIELDS}
        hit = DocumentHit(
            len(hits) + 1, score, document, payload["text"] or "", payload["chunk"] or 0, own
        )
        hits.setdefault(document, hit)
    return list(hits.values())
