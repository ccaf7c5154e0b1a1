"""The rows of an evaluation set's JSONL files, and values of theirs that are what they should be.

Everything wrong raises a ValueError `FILE:LINE: what is wrong`.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

SPLITS = ("train", "validation", "test")


class Row(NamedTuple):
    """One line: where it stands (for messages), and its JSON object."""

    where: str
    values: dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a .jsonl or .jsonl.gz file; at least one."""
    number = 0
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            values = json.loads(line)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{where}: not JSON ({error}); expected an object") from None
        if not isinstance(values, dict):
            raise ValueError(f"{where}: a JSON {type(values).__name__}; expected an object")
        yield Row(where, values)
    if not number:
        raise ValueError(f"{path}: no rows in it; expected at least one")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from ((i, line) for i, line in enumerate(file, start=1) if line.strip())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a complete gzip file ({error}); copy it anew") from None


def split_of(row: Row) -> str:
    """The split of a row; one without is a test row."""
    split = row.values.get("split", "test")
    if split not in SPLITS:
        raise ValueError(f"{row.where}: unknown split {split!r}; expected {', '.join(SPLITS)}")
    return split


def evaluated(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """The test rows; where there are none the validation rows, and where neither is there, all."""
    if not any("split" in row.values for row in rows):
        return list(rows), "all"
    for name in ("test", "validation"):
        part = [row for row in rows if split_of(row) == name]
        if part:
            return part, name
    return list(rows), "all"


def _value(row: Row, key: str) -> Any:
    if key not in row.values:
        there = ", ".join(map(repr, row.values)) or "none"
        raise ValueError(f"{row.where}: no field {key!r}; there are: {there}")
    return row.values[key]


def _checked_text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        kind = "nothing (null)" if value is None else type(value).__name__
        raise ValueError(f"{where}: {key!r} holds {kind}; expected a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: {key!r} holds a lone surrogate at character {error.start}; "
            f"expected valid Unicode"
        ) from None
    return value


def text_of(row: Row, key: str) -> str:
    """A string that is valid Unicode."""
    return _checked_text(_value(row, key), key, row.where)


def texts_of(row: Row, key: str) -> tuple[str, ...]:
    """A list of such strings."""
    return tuple(
        _checked_text(value, f"{key}[{i}]", row.where) for i, value in enumerate(_list(row, key))
    )


def _list(row: Row, key: str) -> list[Any]:
    values = _value(row, key)
    if not isinstance(values, list):
        raise ValueError(f"{row.where}: {key!r} holds {type(values).__name__}; expected a list")
    return values


def _number(value: Any, key: str, where: str) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not math.isfinite(value):
        raise ValueError(f"{where}: {key!r} holds {value!r}; expected a finite number")
    return float(value)


def number_of(row: Row, key: str) -> float:
    """A finite number."""
    return _number(_value(row, key), key, row.where)


def numbers_of(row: Row, key: str) -> Float[np.ndarray, " M"]:
    """A list of finite numbers."""
    values = [_number(v, f"{key}[{i}]", row.where) for i, v in enumerate(_list(row, key))]
    return np.array(values, np.float64)


def label_of(row: Row) -> str:
    """A class: a string, or a whole number as one."""
    value = _value(row, "label")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(
            f"{row.where}: the label holds {type(value).__name__}; expected a string or a whole "
            f"number"
        )
    return str(value)


def binary_label_of(row: Row) -> float:
    """0 or 1."""
    value = _value(row, "label")
    if value not in (0, 1) or isinstance(value, float):
        raise ValueError(f"{row.where}: the label is {value!r}; expected 0 or 1")
    return float(value)
