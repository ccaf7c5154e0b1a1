"""Payload fields of a corpus: the keys or columns that stand beside the text, and their types."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nvembed_jax.data.records import _decoded, _lines, format_of
from nvembed_jax.search.stores.filters import FIELD_TYPES, checked_value, nearest

_PARQUET_BATCH = 4096
_BOOLS = {"true": True, "false": False}

Row = tuple[str, Mapping[str, Any]]  # place, for messages, and values


def parse_fields(text: str) -> dict[str, str | None]:
    """The type of every name in "lang,year:int"; None where the corpus shall tell.

    Raises:
        ValueError: no name, a name that stands twice, or an unknown type.
    """
    fields: dict[str, str | None] = {}
    for part in text.split(","):
        name, colon, kind = (piece.strip() for piece in part.partition(":"))
        if not name or name in fields or (colon and kind not in FIELD_TYPES):
            raise ValueError(
                f"payload fields {text!r}: expected NAME or NAME:TYPE, each name once, with commas "
                f"between; types are {', '.join(FIELD_TYPES)}"
            )
        fields[name] = kind or None
    return fields


def payload_rows(source: str | Path, format: str | None = None) -> Iterator[Row]:
    """The raw values of every row that `read_records` gives a record for, in its order.

    Raises:
        ValueError: a source whose rows have no fields: a folder, standard input, or lines of text.
    """
    if str(source) == "-" or Path(source).is_dir():
        raise ValueError(
            f"{source}: has no payload fields; they are read from a .jsonl, .csv or .parquet file"
        )
    format = format or format_of(source)
    if format == "txt":
        raise ValueError(f"{source}: lines of text have no payload fields; use .jsonl or .csv")
    if format == "parquet":
        yield from _parquet_rows(Path(source))
        return
    lines = _decoded(_lines(Path(source)), str(source))
    if format == "csv":
        reader = csv.DictReader(lines, strict=True)
        for row in reader:
            yield f"{source}:{reader.line_num}", row
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{source}:{number}", json.loads(line)


def field_types(rows: Iterable[Row], wanted: Mapping[str, str | None]) -> dict[str, str]:
    """The type of every wanted field: as given, else as its values in all the rows are.

    Whole and other numbers together are "float"; strings stay strings, those of a .csv too.

    Raises:
        ValueError: `PLACE: what is wrong`: a field that no row has, or values of several types.
    """
    types: dict[str, str | None] = dict(wanted)
    missing, seen = set(wanted), set()
    for where, row in rows:
        seen.update(row)
        for name in wanted:
            if name not in row:
                continue
            missing.discard(name)
            if wanted[name] is None and row[name] is not None:
                types[name] = _joined(types[name], row[name], f"{where}: field {name!r}")
            elif row[name] is not None:
                _typed(row[name], wanted[name] or "str", f"{where}: field {name!r}")
    if missing:
        name = min(missing)
        raise ValueError(
            f"no row has a field {name!r} (--payload-fields); {nearest(name, sorted(seen))}"
        )
    return {name: kind or "str" for name, kind in types.items()}


def payload(row: Row, fields: Mapping[str, str]) -> dict[str, Any]:
    """The values of a row in the types of the fields; None where it has none.

    Raises:
        ValueError: a value of another type, with the place.
    """
    where, values = row
    found = {name: values.get(name) for name in fields}
    return {
        name: None if value is None else _typed(value, fields[name], f"{where}: field {name!r}")
        for name, value in found.items()
    }


def _typed(value: Any, kind: str, what: str) -> Any:
    """The value; what a .csv writes as a string is read where another type is wanted."""
    if isinstance(value, str) and kind != "str":
        if not value:
            return None
        try:
            value = _BOOLS[value.lower()] if kind == "bool" else FIELD_TYPES[kind](value)
        except (ValueError, KeyError):
            raise ValueError(f"{what}: expected {kind}; got {value!r}") from None
    return checked_value(value, kind, what)


def _joined(kind: str | None, value: Any, what: str) -> str:
    own = next((name for name, type_ in FIELD_TYPES.items() if type(value) is type_), None)
    if own is None:
        raise ValueError(
            f"{what}: holds {type(value).__name__}; expected a string, a number, true or false"
        )
    if kind in (None, own):
        return own
    if {kind, own} == {"int", "float"}:
        return "float"
    raise ValueError(f"{what}: holds {own}, in rows before {kind}; expected one type")


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row
