"""Milvus: a collection of a server, or of the embedded milvus-lite in a folder; searched exactly.

The description stands in a second collection, NAME_description: milvus-lite keeps none with the
collection itself.
"""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from nvembed_jax.search.stores.filters import Condition, expression
from nvembed_jax.search.stores.location import Location
from nvembed_jax.search.stores.schema import StoreSchema
from nvembed_jax.search.stores.store import Match, Store

FILE = "milvus.db"
_MOST_BYTES = 65535  # of a string in Milvus
_TYPES = {"str": "VARCHAR", "int": "INT64", "float": "DOUBLE", "bool": "BOOL"}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


@contextmanager
def _logging_kept() -> Iterator[None]:
    """pymilvus, on its import, closes all log handlers of the process (`dictConfig`): not here."""
    with patch.object(logging.config, "dictConfig"):
        yield


class MilvusStore(Store):
    """A Milvus collection. Locally one process at a time; strings have at most 65,535 bytes."""

    kind = "milvus"
    most_matches = 16384

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        try:
            with _logging_kept():
                import pymilvus

            if location.folder is not None:
                import milvus_lite  # noqa: F401  (pymilvus starts it)
        except ImportError as error:
            raise ImportError(
                f'{location}: needs {error.name}: pip install "nvembed_jax[stores]"'
            ) from None
        # They log every error with a traceback before they raise it.
        for name in ("pymilvus.decorators", "milvus_lite.server_manager"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._milvus: Any = pymilvus
        self._name = location.collection
        self._client: Any = self._connected()

    def _connected(self) -> Any:
        folder, url = self.location.folder, self.location.url
        try:
            if folder is not None:
                return self._milvus.MilvusClient(str(folder / FILE))
            return self._milvus.MilvusClient(url, token=self.location.key or "", timeout=10)
        except self._milvus.MilvusException as error:
            if folder is None:
                raise ConnectionError(f"{self.location}: no Milvus answers ({error})") from None
            raise ValueError(
                f"{self.location}: cannot be opened; is another process using it? ({error})"
            ) from None

    def _read_description(self) -> str | None:
        described = f"{self._name}_description"
        if not all(self._client.has_collection(name) for name in (described, self._name)):
            return None
        for name in (described, self._name):
            self._client.load_collection(name)
        rows = self._query('id == "description"', ["text"], described)
        if not rows:
            raise ValueError(f"{self.location}: the collection {described} is none of ours")
        return rows[0]["text"]

    def _create(self, schema: StoreSchema) -> None:
        if self._client.has_collection(self._name):
            raise ValueError(
                f"{self.location}: the collection {self._name} is none of ours; name another"
            )
        # The description first: where the points are, it is there too.
        self._make_collection(f"{self._name}_description", 2, {"text": "str"})
        row = {"id": "description", "vector": [1.0, 0.0], "text": schema.to_json()}
        self._client.upsert(f"{self._name}_description", [row])
        self._make_collection(self._name, schema.dim, schema.all_fields)

    def _make_collection(self, name: str, dim: int, fields: dict[str, str]) -> None:
        if self._client.has_collection(name):
            return
        types, client = self._milvus.DataType, self._client
        columns = client.create_schema(auto_id=False, enable_dynamic_field=False)
        columns.add_field("id", types.VARCHAR, is_primary=True, max_length=_MOST_BYTES)
        columns.add_field("vector", types.FLOAT_VECTOR, dim=dim)
        for field, kind in fields.items():
            length = {"max_length": _MOST_BYTES} if kind == "str" else {}
            columns.add_field(field, types[_TYPES[kind]], nullable=True, **length)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")
        client.create_collection(
            name, schema=columns, index_params=index, consistency_level="Strong"
        )
        client.load_collection(name)

    def _add(self, ids: list[str], vectors: np.ndarray, payloads: list[dict[str, Any]]) -> None:
        for id_, payload in zip(ids, payloads, strict=True):
            for name, value in {"id": id_, **payload}.items():
                if isinstance(value, str) and len(value.encode()) > _MOST_BYTES:
                    raise ValueError(
                        f"{name!r} of {id_[:80]!r} has {len(value.encode()):,} bytes; Milvus holds "
                        f"at most {_MOST_BYTES:,}: split texts (--chunk-tokens)"
                    )
        rows = [
            {"id": id_, "vector": vector, **payload}
            for id_, vector, payload in zip(ids, vectors.tolist(), payloads, strict=True)
        ]
        self._client.upsert(self._name, rows)

    def _search(
        self, queries: np.ndarray, k: int, conditions: list[Condition]
    ) -> list[list[Match]]:
        fields = list(self.schema.all_fields)
        found = self._client.search(
            self._name,
            queries.tolist(),
            filter=_expression(conditions),
            limit=k,
            output_fields=fields,
            consistency_level="Strong",
        )
        return [
            [
                Match(hit["id"], hit["distance"], {n: hit["entity"].get(n) for n in fields})
                for hit in hits
            ]
            for hits in found
        ]

    def _fetch(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        fields = list(self.schema.all_fields)
        rows = self._query(_expression([Condition("id", "in", ids)]), ["id", *fields])
        return {row["id"]: {name: row.get(name) for name in fields} for row in rows}

    def _delete(self, ids: list[str]) -> None:
        self._delete_where(Condition("id", "in", ids))

    def _delete_where(self, condition: Condition) -> None:
        self._client.delete(self._name, filter=_expression([condition]))

    def _count(self) -> int:
        return int(self._query("", ["count(*)"])[0]["count(*)"])

    def _query(self, where: str, fields: list[str], name: str | None = None) -> Any:
        return self._client.query(
            name or self._name, filter=where, output_fields=fields, consistency_level="Strong"
        )

    def _close(self) -> None:
        self._client.close()
        if self.location.folder is not None:
            from milvus_lite import server_manager_instance

            # Else the folder stays locked until the process ends.
            server_manager_instance.release_server(str(self.location.folder / FILE))


def _expression(conditions: list[Condition]) -> str:
    return expression(conditions, str, _literal, equals="==", brackets="[]")


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    return repr(value)
