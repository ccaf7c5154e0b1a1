"""Weaviate: a collection of a server with a flat index, so searched exactly.

Objects are known to Weaviate by a UUID made from their id. Every property has a prefix, because
Weaviate keeps some names for itself and writes first letters small.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from nvembed_jax.search.stores.filters import Condition
from nvembed_jax.search.stores.location import Location
from nvembed_jax.search.stores.schema import StoreSchema
from nvembed_jax.search.stores.store import Match, Store

PREFIX = "f_"
_NAMESPACE = uuid.UUID("8b0a4c1e-2f53-5c9b-8f7e-1d6c3a5b7e90")
_TYPES = {"str": "TEXT", "int": "INT", "float": "NUMBER", "bool": "BOOL"}
_OPERATORS = {
    "=": "equal", "in": "contains_any", "<": "less_than", "<=": "less_or_equal",
    ">": "greater_than", ">=": "greater_or_equal",
}  # fmt: skip


class WeaviateStore(Store):
    """A Weaviate collection."""

    kind = "weaviate"
    most_matches = 10000

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        try:
            import weaviate
        except ImportError:
            raise ImportError(
                f'{location}: needs weaviate-client: pip install "nvembed_jax[weaviate]"'
            ) from None
        self._library: Any = weaviate
        self._classes: Any = weaviate.classes
        parts = urlsplit(location.url or "")
        secure = parts.scheme == "https"
        auth = self._classes.init.Auth.api_key(location.key) if location.key else None
        try:
            self._client: Any = weaviate.connect_to_custom(
                http_host=parts.hostname or "",
                http_port=parts.port or (443 if secure else 80),
                http_secure=secure,
                grpc_host=parts.hostname or "",
                grpc_port=location.grpc_port,
                grpc_secure=secure,
                auth_credentials=auth,
            )
        except weaviate.exceptions.WeaviateBaseError as error:
            reason = str(error).splitlines()[0]
            raise ConnectionError(f"{location}: no Weaviate answers ({reason})") from None
        self._name = location.collection
        self._collection: Any = None

    def _read_description(self) -> str | None:
        if not self._client.collections.exists(self._name):
            return None
        self._collection = self._client.collections.get(self._name)
        text = self._collection.config.get().description
        if not text or not text.startswith("{"):
            raise ValueError(
                f"{self.location}: the collection {self._name} is none of ours; name another"
            )
        return text

    def _create(self, schema: StoreSchema) -> None:
        config = self._classes.config
        properties = [
            config.Property(
                name=PREFIX + name,
                data_type=config.DataType[_TYPES[kind]],
                # Values are compared whole; the text itself is never filtered on.
                tokenization=config.Tokenization.FIELD if kind == "str" else None,
                index_filterable=name != "text",
                index_searchable=False,
            )
            for name, kind in {"id": "str", **schema.all_fields}.items()
        ]
        self._collection = self._client.collections.create(
            self._name,
            description=schema.to_json(),
            properties=properties,
            vector_config=config.Configure.Vectors.self_provided(
                vector_index_config=config.Configure.VectorIndex.flat(
                    distance_metric=config.VectorDistances.COSINE
                )
            ),
        )

    def _add(self, ids: list[str], vectors: np.ndarray, payloads: list[dict[str, Any]]) -> None:
        objects = [
            self._classes.data.DataObject(
                uuid=_uuid(id_), vector=vector, properties=properties(id_, payload)
            )
            for id_, vector, payload in zip(ids, vectors.tolist(), payloads, strict=True)
        ]
        answer = self._collection.data.insert_many(objects)
        if answer.has_errors:
            number, error = next(iter(answer.errors.items()))
            raise ValueError(f"{self.location}: {ids[number]!r} was refused: {error.message}")

    def _search(
        self, queries: np.ndarray, k: int, conditions: list[Condition]
    ) -> list[list[Match]]:
        results = []
        for query in queries.tolist():
            found = self._collection.query.near_vector(
                near_vector=query,
                limit=k,
                filters=self._filter(conditions),
                return_metadata=self._classes.query.MetadataQuery(distance=True),
            )
            results.append(
                [
                    Match(str(o.properties[PREFIX + "id"]), 1 - o.metadata.distance,
                          self._payload(o.properties))
                    for o in found.objects
                ]
            )  # fmt: skip
        return results

    def _fetch(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        chosen = self._classes.query.Filter.by_id().contains_any([_uuid(id_) for id_ in ids])
        found = self._collection.query.fetch_objects(filters=chosen, limit=len(ids))
        return {o.properties[PREFIX + "id"]: self._payload(o.properties) for o in found.objects}

    def _delete(self, ids: list[str]) -> None:
        chosen = self._classes.query.Filter.by_id().contains_any([_uuid(id_) for id_ in ids])
        self._collection.data.delete_many(where=chosen)

    def _delete_where(self, condition: Condition) -> None:
        # A server deletes at most so many objects a request.
        while self._collection.data.delete_many(where=self._filter([condition])).matches:
            pass

    def _count(self) -> int:
        return self._collection.aggregate.over_all(total_count=True).total_count

    def _close(self) -> None:
        self._client.close()

    def _payload(self, found: dict[str, Any]) -> dict[str, Any]:
        return {name: found.get(PREFIX + name) for name in self.schema.all_fields}

    def _filter(self, conditions: list[Condition]) -> Any:
        terms = [
            getattr(self._classes.query.Filter.by_property(name), method)(value)
            for name, method, value in filter_terms(conditions)
        ]
        return self._classes.query.Filter.all_of(terms) if terms else None


def filter_terms(conditions: list[Condition]) -> list[tuple[str, str, Any]]:
    """(property, method of the client's filter, value) for each condition.

    Raises:
        ValueError: an order of strings, which Weaviate has not.
    """
    terms = []
    for name, operator, value in conditions:
        if isinstance(value, str) and operator not in ("=", "in"):
            raise ValueError(
                f"filter on {name!r}: Weaviate has no order of strings, so {operator} cannot be "
                f"asked there; use = or in"
            )
        listed = list(value) if operator == "in" else value
        terms.append((PREFIX + name, _OPERATORS[operator], listed))
    return terms


def properties(id_: str, payload: dict[str, Any]) -> dict[str, Any]:
    """The properties of an object: those that have a value."""
    full = {"id": id_, **payload}
    return {PREFIX + name: value for name, value in full.items() if value is not None}


def _uuid(id_: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, id_))
