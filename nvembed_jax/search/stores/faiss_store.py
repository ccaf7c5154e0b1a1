"""The embedded store: one SQLite file holds vectors and payloads, FAISS searches a copy in memory.

Floats are searched exactly. int8 and binary codes take a quarter and a 32nd of the memory; the
candidates that they give are scored again with the floats, which stay on disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nvembed_jax.search.stores.faiss_index import FlatIndex, codes
from nvembed_jax.search.stores.filters import Condition, expression
from nvembed_jax.search.stores.location import Location
from nvembed_jax.search.stores.schema import EMBEDDING_TYPES, StoreSchema
from nvembed_jax.search.stores.store import Match, Store

FILE = "points.sqlite"
# Candidates a result that are scored again: binary codes put more of the nearest far behind.
OVERSAMPLING = {"float": 1, "int8": 4, "binary": 20}
_SQL_TYPES = {"str": "TEXT", "int": "INTEGER", "float": "REAL", "bool": "INTEGER"}
_LISTED = "IN (SELECT value FROM json_each(?))"  # any number of values in one parameter
_LOADED_AT_ONCE = 8192
_WAIT_SECONDS = 60.0  # for another process that is writing


class FaissStore(Store):
    """FAISS and SQLite in a folder; several processes may use it.

    Attributes:
        oversampling: with codes, `oversampling * k` candidates are scored again with floats.
    """

    kind = "faiss"
    embedding_types = EMBEDDING_TYPES
    points_at_once = 4096  # in a transaction

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        try:
            import faiss  # noqa: F401  (asked for before anything is encoded)
        except ImportError:
            raise ImportError(
                f'{location}: needs faiss-cpu: pip install "nvembed_jax[stores]"'
            ) from None
        assert location.folder is not None
        self.oversampling = 1
        self._path = location.folder / FILE
        # Threads are kept apart by the lock in Store.
        self._sql = sqlite3.connect(
            self._path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._index: FlatIndex | None = None
        self._live = np.zeros(0, np.int64)
        self._seen_version: int | None = None

    def _read_description(self) -> str | None:
        try:
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA synchronous = FULL")
            if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'description'"):
                return None
            text = self._all("SELECT text FROM description")[0][0]
            self.oversampling = OVERSAMPLING[json.loads(text)["embedding_type"]]
        except (sqlite3.DatabaseError, IndexError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path}: is no store of ours ({error})") from None
        return text

    def _create(self, schema: StoreSchema) -> None:
        columns = "".join(f', "{n}" {_SQL_TYPES[t]}' for n, t in schema.all_fields.items())
        with self._transaction():
            # A row number is never used twice: what is in memory is known to be new or gone by it.
            self._sql.execute(
                f"CREATE TABLE points (row INTEGER PRIMARY KEY AUTOINCREMENT, "
                f"id TEXT NOT NULL UNIQUE{columns})"
            )
            self._sql.execute(
                "CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL, code BLOB)"
            )
            for name in ("document", *schema.fields):
                self._sql.execute(f'CREATE INDEX "by_{name}" ON points ("{name}")')
            self._sql.execute("CREATE TABLE description (text TEXT NOT NULL)")
            self._sql.execute("INSERT INTO description VALUES (?)", (schema.to_json(),))
        self.oversampling = OVERSAMPLING[schema.embedding_type]

    def _add(self, ids: list[str], vectors: np.ndarray, payloads: list[dict[str, Any]]) -> None:
        names = ["id", *self.schema.all_fields]
        columns, places = ", ".join(f'"{n}"' for n in names), ", ".join("?" * len(names))
        coded = codes(vectors, self.schema.embedding_type)
        with self._transaction():
            self._remove("id", ids)
            for i, (id_, payload) in enumerate(zip(ids, payloads, strict=True)):
                row = self._sql.execute(
                    f"INSERT INTO points ({columns}) VALUES ({places})",
                    [id_, *(payload[name] for name in names[1:])],
                ).lastrowid
                held = None if coded is None else coded[i].tobytes()
                self._sql.execute(
                    "INSERT INTO vectors VALUES (?, ?, ?)", (row, vectors[i].tobytes(), held)
                )

    def _search(
        self, queries: np.ndarray, k: int, conditions: list[Condition]
    ) -> list[list[Match]]:
        with self._snapshot():
            index = self._current_index()
            allowed = self._rows_that_meet(conditions) if conditions else self._live
            if not len(allowed):
                return [[] for _ in queries]
            depth = min(k * self.oversampling, len(allowed))
            scores, rows = index.search(queries, depth, allowed)
            if self.schema.embedding_type != "float":
                scores, rows = self._rescored(queries, rows, min(k, depth))
            payloads = self._payloads("row", np.unique(rows).tolist())
        return [
            [Match(payloads[r][0], s, payloads[r][1]) for r, s in zip(near, found, strict=True)]
            for near, found in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def _rescored(
        self, queries: np.ndarray, rows: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and numbers of the k best of each query's candidates."""
        best_scores = np.empty((len(queries), k), np.float32)
        best_rows = np.empty((len(queries), k), np.int64)
        for i, query in enumerate(queries):
            candidates = np.sort(rows[i])
            vectors = self._all(
                f"SELECT vector FROM vectors WHERE row {_LISTED} ORDER BY row",
                [json.dumps(candidates.tolist())],
            )
            held = np.frombuffer(b"".join(v for (v,) in vectors), np.float32)
            scores = held.reshape(len(candidates), -1) @ query
            best = np.argsort(-scores, kind="stable")[:k]
            best_scores[i], best_rows[i] = scores[best], candidates[best]
        return best_scores, best_rows

    def _rows_that_meet(self, conditions: list[Condition]) -> np.ndarray:
        values: list[Any] = []
        where = expression(
            conditions, lambda name: f'"{name}"', lambda value: values.append(value) or "?"
        )
        found = self._all(f"SELECT row FROM points WHERE {where} ORDER BY row", values)
        return np.array([row for (row,) in found], np.int64)

    def _current_index(self) -> FlatIndex:
        """The index in memory, brought up to what this or another process wrote."""
        version = self._all("PRAGMA data_version")[0][0]
        if self._index is not None and version == self._seen_version:
            return self._index
        found = self._all("SELECT row FROM points ORDER BY row")
        self._live = np.array([row for (row,) in found], np.int64)
        index = self._index
        if index is not None and len(index.rows):
            alive = np.searchsorted(self._live, index.rows[-1], side="right")
            if 2 * alive < len(index.rows):
                index = None  # more than half of it is deleted: load it anew
        if index is None:
            index = FlatIndex(self.schema.dim, self.schema.embedding_type)
        last = int(index.rows[-1]) if len(index.rows) else 0
        fresh = self._sql.execute(
            "SELECT row, coalesce(code, vector) FROM vectors WHERE row > ? ORDER BY row", (last,)
        )
        while block := fresh.fetchmany(_LOADED_AT_ONCE):
            rows, held = zip(*block, strict=True)
            index.add(np.array(rows, np.int64), b"".join(held))
        self._index, self._seen_version = index, version
        return index

    def _fetch(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        return dict(self._payloads("id", ids).values())

    def _delete(self, ids: list[str]) -> None:
        with self._transaction():
            self._remove("id", ids)

    def _delete_where(self, condition: Condition) -> None:
        with self._transaction():
            self._remove(condition.field, condition.value)

    def _count(self) -> int:
        return self._all("SELECT count(*) FROM points")[0][0]

    def _close(self) -> None:
        self._index = None
        self._sql.close()

    def _remove(self, column: str, values: Sequence[Any]) -> None:
        listed = [json.dumps(list(values))]
        chosen = f'SELECT row FROM points WHERE "{column}" {_LISTED}'
        self._sql.execute(f"DELETE FROM vectors WHERE row IN ({chosen})", listed)
        self._sql.execute(f'DELETE FROM points WHERE "{column}" {_LISTED}', listed)

    def _payloads(
        self, column: str, values: Sequence[Any]
    ) -> dict[int, tuple[str, dict[str, Any]]]:
        """(id, payload) by row number."""
        fields = self.schema.all_fields
        columns = ", ".join(f'"{name}"' for name in fields)
        found = self._all(
            f'SELECT row, id, {columns} FROM points WHERE "{column}" {_LISTED}',
            [json.dumps(list(values))],
        )
        payloads = {}
        for row, id_, *cells in found:
            payload = dict(zip(fields, cells, strict=True))
            for name, kind in fields.items():
                if kind == "bool" and payload[name] is not None:
                    payload[name] = bool(payload[name])
            payloads[row] = (id_, payload)
        return payloads

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._sql.execute(query, values).fetchall()

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Reads that all see the same state, whatever other processes write."""
        self._sql.execute("BEGIN")
        try:
            yield
        finally:
            self._sql.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise
        finally:
            self._seen_version = None  # data_version does not count what this process writes
