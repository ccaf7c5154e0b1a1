"""LanceDB: a table in a folder, searched without an index, so exactly."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np

from nvembed_jax.search.stores.filters import Condition, expression
from nvembed_jax.search.stores.location import Location
from nvembed_jax.search.stores.schema import StoreSchema
from nvembed_jax.search.stores.store import Match, Store

_DESCRIPTION = b"nvembed"  # key in the metadata of the table
_MOST_VERSIONS = 16  # written before the files are joined when the store is closed


class LanceDBStore(Store):
    """A LanceDB table; several processes may read it, one writes at a time."""

    kind = "lancedb"
    points_at_once = 4096  # of a version of the table

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        try:
            import lancedb
        except ImportError:
            raise ImportError(
                f'{location}: needs lancedb: pip install "nvembed_jax[stores]"'
            ) from None
        # Interval zero: every read sees what other processes wrote.
        self._db = lancedb.connect(
            str(location.folder), read_consistency_interval=timedelta(seconds=0)
        )
        self._table: Any = None
        self._versions = 0

    def _read_description(self) -> str | None:
        name = self.location.collection
        if name not in self._db.list_tables().tables:
            return None
        self._table = self._db.open_table(name)
        try:
            return self._table.schema.metadata[_DESCRIPTION].decode()
        except (KeyError, TypeError, UnicodeDecodeError):
            raise ValueError(f"{self.location}: the table {name} is none of ours") from None

    def _create(self, schema: StoreSchema) -> None:
        import pyarrow as pa

        types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
        columns = [pa.field("id", pa.string()), ("vector", pa.list_(pa.float32(), schema.dim))]
        columns += [pa.field(name, types[kind]) for name, kind in schema.all_fields.items()]
        described = pa.schema(columns, metadata={_DESCRIPTION: schema.to_json().encode()})
        self._table = self._db.create_table(self.location.collection, schema=described)

    def _add(self, ids: list[str], vectors: np.ndarray, payloads: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        described = self._table.schema
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        columns = {"id": ids, "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
        columns |= {name: [p[name] for p in payloads] for name in self.schema.all_fields}
        merge = self._table.merge_insert("id")
        merge = merge.when_matched_update_all().when_not_matched_insert_all()
        merge.execute(pa.table(columns, schema=described))
        self._versions += 1

    def _search(
        self, queries: np.ndarray, k: int, conditions: list[Condition]
    ) -> list[list[Match]]:
        where = _sql(conditions)
        columns = ["id", *self.schema.all_fields, "_distance"]
        results = []
        for query in queries:
            search = self._table.search(query).distance_type("cosine").bypass_vector_index()
            search = search.where(where, prefilter=True) if where else search
            rows = search.select(columns).limit(k).to_arrow().to_pylist()
            results.append([Match(row.pop("id"), 1 - row.pop("_distance"), row) for row in rows])
        return results

    def _fetch(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        search = self._table.search().where(_sql([Condition("id", "in", ids)]))
        rows = search.select(["id", *self.schema.all_fields]).limit(len(ids)).to_arrow()
        return {row.pop("id"): row for row in rows.to_pylist()}

    def _delete(self, ids: list[str]) -> None:
        self._delete_where(Condition("id", "in", ids))

    def _delete_where(self, condition: Condition) -> None:
        self._table.delete(_sql([condition]))
        self._versions += 1

    def _count(self) -> int:
        return self._table.count_rows()

    def _close(self) -> None:
        if self._versions > _MOST_VERSIONS:
            self._table.optimize()
        self._versions, self._table = 0, None


def _sql(conditions: list[Condition]) -> str:
    return expression(conditions, lambda name: f"`{name}`", _literal)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)
