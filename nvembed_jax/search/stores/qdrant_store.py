"""Qdrant: a collection of a server, of a folder, or in memory; searched exactly.

Points are known to Qdrant by a UUID made from their id, which stands in the payload.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np

from nvembed_jax.search.stores.filters import Condition
from nvembed_jax.search.stores.location import MEMORY, Location
from nvembed_jax.search.stores.schema import StoreSchema
from nvembed_jax.search.stores.store import Match, Store

_DESCRIPTION = "nvembed"  # key in the metadata of the collection
_NAMESPACE = uuid.UUID("5f0f1f8e-4b0c-5d0a-9d62-7a3d1c2b9e44")
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_EXACT = 2**53  # Qdrant compares with 64-bit floats
_INDEXES = {"str": "keyword", "int": "integer", "float": "float", "bool": "bool"}


class QdrantStore(Store):
    """A Qdrant collection. In a folder one process at a time, and everything is in memory."""

    kind = "qdrant"

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        try:
            from qdrant_client import QdrantClient, models
        except ImportError:
            raise ImportError(
                f'{location}: needs qdrant-client: pip install "nvembed_jax[stores]"'
            ) from None
        self._models: Any = models
        self._remote = location.url is not None
        self._name = location.collection
        if location.url is not None:
            self._client: Any = QdrantClient(
                url=location.url, api_key=location.key, check_compatibility=False, timeout=60
            )
        elif location.folder is None:
            self._client = QdrantClient(location=MEMORY)
        else:
            # Threads are kept apart by the lock in Store.
            self._client = self._open_folder(QdrantClient, str(location.folder / "qdrant"))

    def _open_folder(self, client: Any, path: str) -> Any:
        try:
            return client(path=path, force_disable_check_same_thread=True)
        except RuntimeError as error:
            raise ValueError(
                f"{self.location}: cannot be opened; is another process using it? "
                f"({str(error).split('.')[0]})"
            ) from None

    def _read_description(self) -> str | None:
        try:
            if not self._client.collection_exists(self._name):
                return None
        except self._no_answer() as error:
            raise ConnectionError(f"{self.location}: no Qdrant answers ({error})") from None
        metadata = self._client.get_collection(self._name).config.metadata or {}
        if _DESCRIPTION not in metadata:
            raise ValueError(
                f"{self.location}: the collection {self._name} is none of ours; name another"
            )
        return json.dumps(metadata[_DESCRIPTION])

    def _no_answer(self) -> Any:
        from qdrant_client.http.exceptions import ResponseHandlingException

        return ResponseHandlingException

    def _create(self, schema: StoreSchema) -> None:
        models = self._models
        self._client.create_collection(
            self._name,
            vectors_config=models.VectorParams(size=schema.dim, distance=models.Distance.COSINE),
            metadata={_DESCRIPTION: json.loads(schema.to_json())},
        )
        kept = self._client.get_collection(self._name).config.metadata or {}
        if _DESCRIPTION not in kept:
            self._client.delete_collection(self._name)
            raise ValueError(
                f"{self.location}: the server keeps no metadata of collections: Qdrant 1.16 or "
                f"newer is needed"
            )
        if self._remote:  # the local one has no indexes
            for name, kind in {**schema.fields, "document": "str"}.items():
                self._client.create_payload_index(
                    self._name, name, field_schema=_INDEXES[kind], wait=True
                )

    def _add(self, ids: list[str], vectors: np.ndarray, payloads: list[dict[str, Any]]) -> None:
        points = [
            self._models.PointStruct(id=_uuid(id_), vector=vector, payload={"id": id_, **payload})
            for id_, vector, payload in zip(ids, vectors.tolist(), payloads, strict=True)
        ]
        self._client.upsert(self._name, points, wait=True)

    def _search(
        self, queries: np.ndarray, k: int, conditions: list[Condition]
    ) -> list[list[Match]]:
        models = self._models
        requests = [
            models.QueryRequest(
                query=query,
                filter=self._filter(conditions),
                limit=k,
                with_payload=True,
                params=models.SearchParams(exact=True) if self._remote else None,
            )
            for query in queries.tolist()
        ]
        answers = self._client.query_batch_points(self._name, requests=requests)
        return [
            [Match(point.payload["id"], point.score, self._payload(point)) for point in a.points]
            for a in answers
        ]

    def _fetch(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        points = self._client.retrieve(
            self._name, ids=[_uuid(id_) for id_ in ids], with_payload=True
        )
        return {point.payload["id"]: self._payload(point) for point in points}

    def _delete(self, ids: list[str]) -> None:
        chosen = self._models.PointIdsList(points=[_uuid(id_) for id_ in ids])
        self._client.delete(self._name, points_selector=chosen, wait=True)

    def _delete_where(self, condition: Condition) -> None:
        chosen = self._models.FilterSelector(filter=self._filter([condition]))
        self._client.delete(self._name, points_selector=chosen, wait=True)

    def _count(self) -> int:
        return self._client.count(self._name, exact=True).count

    def _close(self) -> None:
        self._client.close()

    def _payload(self, point: Any) -> dict[str, Any]:
        fields = self.schema.all_fields
        payload = {name: point.payload.get(name) for name in fields}
        for name, kind in fields.items():
            if kind == "float" and payload[name] is not None:
                payload[name] = float(payload[name])  # JSON has no 2.0
        return payload

    def _filter(self, conditions: list[Condition]) -> Any:
        if not conditions:
            return None
        return self._models.Filter(must=[self._term(condition) for condition in conditions])

    def _term(self, condition: Condition) -> Any:
        models, (name, operator, value) = self._models, condition
        if operator == "in":
            if type(value[0]) in (str, int):
                return models.FieldCondition(key=name, match=models.MatchAny(any=list(value)))
            terms = [self._term(Condition(name, "=", item)) for item in value]
            return models.Filter(should=terms)
        if operator == "=" and not isinstance(value, float):
            return models.FieldCondition(key=name, match=models.MatchValue(value=value))
        if isinstance(value, str):
            raise ValueError(
                f"filter on {name!r}: Qdrant has no order of strings, so {operator} cannot be "
                f"asked there; use = or in"
            )
        if abs(value) > _EXACT:
            raise ValueError(
                f"filter on {name!r}: Qdrant compares with 64-bit floats, which {value} is beyond"
            )
        bounds = {"gte": value, "lte": value} if operator == "=" else {_BOUNDS[operator]: value}
        return models.FieldCondition(key=name, range=models.Range(**bounds))


def _uuid(id_: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, id_))
