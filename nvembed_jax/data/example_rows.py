"""One training example and its JSON object: what may stand in a row, and what a bad one is told."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

EXAMPLE_KEYS = (
    "query", "positive", "negatives", "task", "source", "group", "positive_score",
    "negative_scores",
)  # fmt: skip
DEFAULT_GROUP_KEY = "group"
_EXPECTED = 'expected an object like {"query": "...", "positive": "...", "negatives": ["..."]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One query with its positives (one or more) and its hard negatives (none or more)."""

    query: str
    positives: tuple[str, ...]  # JSON key "positive"
    negatives: tuple[str, ...] = ()
    task: str | None = None  # task description, put into the model's template
    source: str | None = None
    group: str | None = None  # examples of one group are positives of each other
    positive_score: float | None = None
    negative_scores: tuple[float, ...] = ()  # as many as negatives, or none


def parse_example(row: Any, where: str, *, group_key: str = DEFAULT_GROUP_KEY) -> Example:
    """The example of one JSON object.

    Keys other than those of the format are ignored, unless they look like a misspelling of one.

    Args:
        row: what json.loads gave.
        where: the place for messages, "FILE:LINE".
        group_key: the key whose equal values mark examples as positives of each other.

    Raises:
        ValueError: `WHERE: what is wrong`: not an object, a missing field, a wrong type, a blank
            text, a negative that is also a positive, scores that do not fit the negatives.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON {kind_of(row)}; {_EXPECTED}")
    for key in row:
        if key not in EXAMPLE_KEYS and key != group_key:
            _refuse_misspelling(key, group_key, where)
    for key in ("query", "positive"):
        if key not in row:
            there = ", ".join(map(repr, row)) or "none"
            raise ValueError(f"{where}: no {key!r}; there are: {there}; {_EXPECTED}")
    positive = row["positive"]
    positives = (
        (_text(positive, "positive", where),)
        if isinstance(positive, str)
        else _texts(positive, "positive", where)
    )
    if not positives:
        raise ValueError(f"{where}: 'positive' is an empty list; expected at least one text")
    negatives = row.get("negatives")
    negatives = () if negatives is None else _texts(negatives, "negatives", where)
    for i in range(len(negatives)):
        if negatives[i] in positives:
            raise ValueError(
                f"{where}: negatives[{i}] is also a positive: {_shown(negatives[i])}; drop it from "
                f"'negatives', or mine negatives again"
            )
    return Example(
        query=_text(row["query"], "query", where),
        positives=positives,
        negatives=negatives,
        task=_optional_text(row, "task", where),
        source=_optional_text(row, "source", where),
        group=_group(row.get(group_key), group_key, where),
        positive_score=_positive_score(row, where),
        negative_scores=_negative_scores(row, len(negatives), where),
    )


def example_to_json(example: Example) -> dict[str, Any]:
    """The JSON object of an example, without the keys that hold nothing."""
    one = len(example.positives) == 1
    row: dict[str, Any] = {
        "query": example.query,
        "positive": example.positives[0] if one else list(example.positives),
        "negatives": list(example.negatives) or None,
        "task": example.task,
        "source": example.source,
        "group": example.group,
        "positive_score": example.positive_score,
        "negative_scores": list(example.negative_scores) or None,
    }
    return {key: value for key, value in row.items() if value is not None}


def check_text(row: Any, key: str, where: str) -> str:
    """The text of a field; ValueError with `where` when it is missing, blank or no string."""
    return _text(_field(row, key, where), key, where)


def check_texts(row: Any, key: str, where: str) -> tuple[str, ...]:
    """The texts of a field that holds a list; ValueError as `check_text`."""
    return _texts(_field(row, key, where), key, where)


def check_score(value: Any, key: str, where: str) -> float:
    """A finite number; ValueError with `where` for anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ValueError(
            f"{where}: {key!r} holds {value if number else kind_of(value)}; expected a finite "
            f"number"
        )
    return float(value)


def kind_of(value: Any) -> str:
    """The type of a JSON value, for messages."""
    return "nothing (null)" if value is None else type(value).__name__


def _refuse_misspelling(key: str, group_key: str, where: str) -> None:
    near = _nearest_key(key, group_key)
    if near is not None:
        raise ValueError(f"{where}: unknown key {key!r}; did you mean {near!r}? Rename or drop it")


@lru_cache(maxsize=256)
def _nearest_key(key: str, group_key: str) -> str | None:
    # Off by a letter or two. At 0.8 keys that files carry for themselves ("pos", "score") pass.
    near = difflib.get_close_matches(key.casefold(), (*EXAMPLE_KEYS, group_key), n=1, cutoff=0.8)
    return near[0] if near else None


def _field(row: Any, key: str, where: str) -> Any:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON {kind_of(row)}; expected an object")
    if key not in row:
        there = ", ".join(map(repr, row)) or "none"
        raise ValueError(f"{where}: no {key!r}; there are: {there}")
    return row[key]


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key!r} holds {kind_of(value)}; expected a string")
    if not value or value.isspace():
        raise ValueError(f"{where}: {key!r} is blank; expected a text, or drop the row")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where}: {key!r} holds a lone surrogate at character {error.start} "
                f"({value[error.start]!a}); expected valid Unicode"
            ) from None
    return value


def _texts(values: Any, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(values, list):
        expected = "a string or a list of strings" if key == "positive" else "a list of strings"
        raise ValueError(f"{where}: {key!r} holds {kind_of(values)}; expected {expected}")
    return tuple([_text(value, f"{key}[{i}]", where) for i, value in enumerate(values)])


def _optional_text(row: dict[str, Any], key: str, where: str) -> str | None:
    return None if row.get(key) is None else _text(row[key], key, where)


def _group(value: Any, key: str, where: str) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value is None else _text(value, key, where)


def _positive_score(row: dict[str, Any], where: str) -> float | None:
    value = row.get("positive_score")
    return None if value is None else check_score(value, "positive_score", where)


def _negative_scores(row: dict[str, Any], count: int, where: str) -> tuple[float, ...]:
    values = row.get("negative_scores")
    if values is None:
        return ()
    if not isinstance(values, list):
        raise ValueError(
            f"{where}: 'negative_scores' holds {kind_of(values)}; expected a list of numbers"
        )
    if values and len(values) != count:
        raise ValueError(
            f"{where}: {len(values)} negative_scores for {count} negatives; expected one for each, "
            f"or none"
        )
    return tuple(
        check_score(value, f"negative_scores[{i}]", where) for i, value in enumerate(values)
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
