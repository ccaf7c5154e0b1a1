"""What a store is made for: a model, its dimension, payload fields with their types, settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nvembed_jax.search.stores.filters import FIELD_TYPES, checked_value, nearest

FORMAT_VERSION = 1
EMBEDDING_TYPES = ("float", "int8", "binary")
# What every point has beside its own fields: the text, whose text it is, which part of it, and a
# hash of what it was made from.
SYSTEM_FIELDS: Mapping[str, str] = {
    "document": "str", "chunk": "int", "digest": "str", "text": "str",
}  # fmt: skip
_TAKEN = (*SYSTEM_FIELDS, "id", "vector", "score", "rank", "row")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class StoreSchema:
    """The description that is kept in a store.

    Attributes:
        model_name: for messages only. fingerprint: of the model that encoded what is in the store.
        dim: of its embeddings.
        fields: type ("str", "int", "float" or "bool") of every payload field.
        embedding_type: "float", or "int8" or "binary" codes that are rescored with floats.
        settings: what else the vectors depend on, such as the length of chunks.

    Raises:
        ValueError: an unknown type, or a name that a field cannot have.
    """

    model_name: str
    fingerprint: str
    dim: int
    fields: Mapping[str, str] = field(default_factory=dict)
    embedding_type: str = "float"
    settings: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"dim must be at least 1; got {self.dim}")
        if self.embedding_type not in EMBEDDING_TYPES:
            raise ValueError(
                f"embedding_type must be one of {', '.join(EMBEDDING_TYPES)}; got "
                f"{self.embedding_type!r}"
            )
        seen: dict[str, str] = {name.lower(): name for name in _TAKEN}
        for name, kind in self.fields.items():
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"payload field {name!r}: expected letters, digits and _ without a leading "
                    f"digit: rename it"
                )
            if name.lower() in seen:
                raise ValueError(
                    f"payload field {name!r}: the name {seen[name.lower()]!r} is taken (letters "
                    f"of either case count as the same): rename it"
                )
            seen[name.lower()] = name
            if kind not in FIELD_TYPES:
                raise ValueError(
                    f"payload field {name!r}: type must be one of {', '.join(FIELD_TYPES)}; got "
                    f"{kind!r}"
                )

    @property
    def all_fields(self) -> dict[str, str]:
        """Types of the payload fields and of those that every point has."""
        return {**self.fields, **SYSTEM_FIELDS}

    def to_json(self) -> str:
        """The description as a line of JSON, which `from_json` reads."""
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "model": {"name": self.model_name, "fingerprint": self.fingerprint},
                "dim": self.dim,
                "fields": dict(self.fields),
                "embedding_type": self.embedding_type,
                "settings": dict(self.settings),
            }
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> StoreSchema:
        """What `to_json` wrote; ValueError, naming the place, for anything else."""
        try:
            data = json.loads(text)
            version = data["format_version"]
            if version != FORMAT_VERSION:
                raise ValueError(
                    f"{where}: store format {version}; this version reads {FORMAT_VERSION}: build "
                    f"it anew"
                )
            return cls(
                model_name=data["model"]["name"],
                fingerprint=data["model"]["fingerprint"],
                dim=data["dim"],
                fields=data["fields"],
                embedding_type=data["embedding_type"],
                settings=data["settings"],
            )
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f"{where}: is no store of ours (its description is broken)") from None


def check_model(made: StoreSchema, fingerprint: str, model_name: str, where: str) -> None:
    """Raises a ValueError that names both models where a store was made with another one."""
    if made.fingerprint != fingerprint:
        raise ValueError(
            f"{where}: was made with model {made.model_name} ({made.fingerprint}), not with "
            f"{model_name} ({fingerprint}); use the former, or name another store"
        )


def check_same(made: StoreSchema, wanted: StoreSchema, where: str) -> None:
    """Raises a ValueError that names both where a store differs from the one that is wanted."""
    check_model(made, wanted.fingerprint, wanted.model_name, where)
    if made.dim != wanted.dim:
        raise ValueError(
            f"{where}: holds vectors of {made.dim} dimensions ({made.model_name}); the model "
            f"{wanted.model_name} makes {wanted.dim}: name another store"
        )
    for name in ("fields", "embedding_type", "settings"):
        before, now = (getattr(schema, name) for schema in (made, wanted))
        if before != now:
            before, now = (
                json.dumps(dict(x) if isinstance(x, Mapping) else x, sort_keys=True)
                for x in (before, now)
            )
            raise ValueError(
                f"{where}: was made with {name.replace('_', ' ')} {before}, not {now}; use the "
                f"former, or name another store"
            )


def checked_payload(payload: Mapping[str, Any], schema: StoreSchema, id_: str) -> dict[str, Any]:
    """A payload with a value, or None, in every field.

    Raises:
        ValueError: a field that the store has not, or a value of another type.
    """
    fields = schema.all_fields
    unknown = [name for name in payload if name not in fields]
    if unknown:
        raise ValueError(
            f"the payload of {id_!r} has a field {unknown[0]!r} that the store has not; "
            f"{nearest(str(unknown[0]), fields)}"
        )
    full = dict.fromkeys(fields) | {"document": id_, "chunk": 0} | dict(payload)
    for name, value in full.items():
        if value is not None:
            full[name] = checked_value(value, fields[name], f"field {name!r} of {id_!r}")
    return full
