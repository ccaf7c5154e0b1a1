"""What every vector store can do: points in, the nearest to a query out, durable and exact.

A point is an id, a unit vector and a payload. Scores are cosines. Adapters fill in the methods
with a leading underscore, and are given what was checked here.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from nvembed_jax.codes import unit
from nvembed_jax.search.stores.filters import Condition, check_condition
from nvembed_jax.search.stores.location import Location
from nvembed_jax.search.stores.schema import StoreSchema, checked_payload

_LENGTH_TOLERANCE = 1e-2  # bfloat16 embeddings are that far from length one
_IDS_AT_ONCE = 500


class Match(NamedTuple):
    """One result: `payload` has a value, or None, in every field of the store."""

    id: str
    score: float
    payload: dict[str, Any]


class Store(ABC):
    """Vectors with ids and payloads; from `open_store` or `make_store`.

    What was added or deleted is durable when the call returns, and one that is cut short can be
    repeated. Threads may share a store. Use it as a context manager, or `close` it.

    Attributes:
        location: where it is.
    """

    kind: ClassVar[str]
    embedding_types: ClassVar[tuple[str, ...]] = ("float",)
    points_at_once: ClassVar[int] = 128
    most_matches: ClassVar[int | None] = None  # that a server returns

    def __init__(self, location: Location) -> None:
        self.location = location
        self._lock = threading.RLock()
        self._schema: StoreSchema | None = None

    @property
    def schema(self) -> StoreSchema:
        """What the store was made for."""
        if self._schema is None:
            raise FileNotFoundError(f"{self.location}: there is no store; build one first")
        return self._schema

    def connect(self) -> StoreSchema | None:
        """Opens what is there; its description, or None where nothing was made yet."""
        text = self._read_description()
        if text is not None:
            self._schema = StoreSchema.from_json(text, str(self.location))
        return self._schema

    def create(self, schema: StoreSchema) -> None:
        """Makes the store, or completes one whose making was cut short."""
        if schema.embedding_type not in self.embedding_types:
            raise ValueError(
                f"{self.location}: {self.kind} keeps {' or '.join(self.embedding_types)} vectors "
                f"here, not {schema.embedding_type} codes; use faiss for those"
            )
        self._create(schema)
        self._schema = schema

    def add(
        self,
        ids: Sequence[str],
        vectors: Float[np.ndarray, "P D"],
        *,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Adds points; one whose id is there already takes the place of that.

        Args:
            ids: each once. vectors: of length one.
            payloads: values of the store's fields; besides, `document` (default: the id), `chunk`
                (0) and `digest` (None), which `documents.py` uses.

        Raises:
            ValueError: a wrong width or length, an id that stands twice, or a bad payload.
        """
        vectors = self._unit(vectors, len(ids), "ids")
        self._check_ids(ids)
        given = [dict(p) for p in payloads] if payloads is not None else [{} for _ in ids]
        if texts is not None:
            for payload, text in zip(given, texts, strict=True):
                payload["text"] = text
        full = [checked_payload(p, self.schema, id_) for id_, p in zip(ids, given, strict=True)]
        with self._lock:
            for part in _slices(len(ids), self.points_at_once):
                self._add(list(ids[part]), vectors[part], full[part])

    def search(
        self,
        queries: Float[np.ndarray, "Q D"],
        k: int,
        conditions: Sequence[Condition] = (),
    ) -> list[list[Match]]:
        """The k nearest points of each query, or all where there are fewer; the best first.

        Args:
            queries: of length one. conditions: that a point must meet, all of them.

        Raises:
            ValueError: a wrong width or length, k < 1 or more than the store can return, or a
                condition that this store cannot express.
        """
        if k < 1 or (self.most_matches is not None and k > self.most_matches):
            most = "" if self.most_matches is None else f" to {self.most_matches:,}"
            raise ValueError(f"k must be 1{most or ' or more'} in a {self.kind} store; got {k}")
        queries = self._unit(queries, len(queries), "queries")
        checked = [check_condition(c, self.schema.all_fields) for c in conditions]
        with self._lock:
            return self._search(queries, k, checked) if len(queries) else []

    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The payloads of those ids that are in the store."""
        found: dict[str, dict[str, Any]] = {}
        with self._lock:
            for part in _slices(len(ids), _IDS_AT_ONCE):
                found |= self._fetch(list(ids[part]))
        return found

    def delete(self, ids: Sequence[str]) -> None:
        """Removes points; ids that are not there are passed over."""
        with self._lock:
            for part in _slices(len(ids), _IDS_AT_ONCE):
                self._delete(list(ids[part]))

    def delete_documents(self, documents: Sequence[str]) -> None:
        """Removes all chunks of these documents."""
        with self._lock:
            for part in _slices(len(documents), _IDS_AT_ONCE):
                self._delete_where(Condition("document", "in", tuple(documents[part])))

    def count(self) -> int:
        """Points in the store."""
        with self._lock:
            return self._count()

    def close(self) -> None:
        """Releases what the store holds; it cannot be used any more."""
        with self._lock:
            self._close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _unit(self, vectors: Any, rows: int, what: str) -> np.ndarray:
        vectors = np.asarray(vectors, np.float32)
        if vectors.shape != (rows, self.schema.dim):
            raise ValueError(
                f"{self.location}: expected [{rows}, {self.schema.dim}] for {rows} {what} of "
                f"{self.schema.model_name}; got {list(vectors.shape)}"
            )
        lengths = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < _LENGTH_TOLERANCE))
        if len(wrong):
            raise ValueError(
                f"vector {wrong[0]} has length {lengths[wrong[0]]:.4g}; expected unit vectors: "
                f"encode with normalize=True"
            )
        return np.asarray(unit(vectors), np.float32)

    def _check_ids(self, ids: Sequence[str]) -> None:
        seen: set[str] = set()
        for id_ in ids:
            if not isinstance(id_, str) or not id_:
                raise ValueError(f"an id must be a string that is not empty; got {id_!r}")
            if id_ in seen:
                raise ValueError(f"the id {id_!r} stands twice; expected every id once")
            seen.add(id_)

    @abstractmethod
    def _read_description(self) -> str | None: ...

    @abstractmethod
    def _create(self, schema: StoreSchema) -> None: ...

    @abstractmethod
    def _add(self, ids: list[str], vectors: np.ndarray, payloads: list[dict[str, Any]]) -> None: ...

    @abstractmethod
    def _search(
        self, queries: np.ndarray, k: int, conditions: list[Condition]
    ) -> list[list[Match]]: ...

    @abstractmethod
    def _fetch(self, ids: list[str]) -> dict[str, dict[str, Any]]: ...

    @abstractmethod
    def _delete(self, ids: list[str]) -> None: ...

    @abstractmethod
    def _delete_where(self, condition: Condition) -> None: ...

    @abstractmethod
    def _count(self) -> int: ...

    @abstractmethod
    def _close(self) -> None: ...


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
