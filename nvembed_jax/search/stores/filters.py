"""The one filter language of all stores: conditions on payload fields, all of which must hold.

Written `lang=en`, `year>=2020` or `lang in en,de`. A text without a value in a field meets no
condition on it.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

FIELD_TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
OPERATORS = ("=", "in", "<", "<=", ">", ">=")
_WRITTEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(<=|>=|=|<|>|\bin\b)\s*(.*)", re.DOTALL)
_INT_LIMIT = 2**63


class Condition(NamedTuple):
    """What a field must be: `value` is of the field's type, or a sequence of such for "in"."""

    field: str
    operator: str
    value: Any


def parse_condition(text: str, fields: Mapping[str, str]) -> Condition:
    """A condition as it is written, with its value in the type of the field.

    A string may stand in double quotes, as in JSON, and the values of `in` in a JSON list.

    Args:
        fields: type ("str", "int", "float", "bool") of every field.

    Raises:
        ValueError: not a condition, no such field, or a value of another type.
    """
    parts = _WRITTEN.fullmatch(text)
    if parts is None or not parts[3].strip() or parts[3].startswith("="):
        raise ValueError(
            f"filter {text!r}: expected FIELD=VALUE, FIELD<VALUE (or <=, >, >=), or FIELD in "
            f"VALUE,VALUE"
        )
    field, operator, written = parts[1], parts[2], parts[3].strip()
    kind = _kind(field, fields)
    if operator == "in":
        value: Any = [_value(item, kind, text) for item in _items(written, text)]
    else:
        value = _value(written, kind, text)
    return check_condition(Condition(field, operator, value), fields)


def check_condition(condition: Any, fields: Mapping[str, str]) -> Condition:
    """The condition, with a tuple of values for "in" and floats for float fields.

    Raises:
        ValueError: no such field or operator, or a value that the field cannot have.
    """
    if not isinstance(condition, tuple) or len(condition) != 3:
        raise ValueError(
            f"expected a condition like Condition('lang', '=', 'en'); got {condition!r}"
        )
    field, operator, value = condition
    kind = _kind(field, fields)
    if operator not in OPERATORS:
        raise ValueError(
            f"filter on {field!r}: operator must be one of {', '.join(OPERATORS)}; got {operator!r}"
        )
    if kind == "bool" and operator not in ("=", "in"):
        raise ValueError(
            f"filter on {field!r}: true and false have no order; use = instead of {operator}"
        )
    what = f"filter on {field!r}"
    if operator != "in":
        return Condition(field, operator, checked_value(value, kind, what))
    if isinstance(value, str) or not isinstance(value, Iterable) or not (values := list(value)):
        raise ValueError(f"{what}: `in` needs a list of one value or more; got {value!r}")
    return Condition(field, "in", tuple(checked_value(item, kind, what) for item in values))


def checked_value(value: Any, kind: str, what: str) -> Any:
    """A value as a field of that type holds it; ValueError, beginning with `what`, if it cannot."""
    fits = type(value) is FIELD_TYPES[kind] or (kind == "float" and type(value) is int)
    if not fits:
        raise ValueError(f"{what}: expected {kind}; got {value!r} ({type(value).__name__})")
    if kind == "int" and not -_INT_LIMIT <= value < _INT_LIMIT:
        raise ValueError(f"{what}: {value} does not fit into 64 bits")
    if kind == "float":
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"{what}: expected a finite number; got {value}")
    return value


def expression(
    conditions: Sequence[Condition],
    column: Callable[[str], str],
    literal: Callable[[Any], str],
    *,
    equals: str = "=",
    brackets: str = "()",
) -> str:
    """The conditions in an SQL-like language; "" for none.

    Args:
        column: how a field's name is written. literal: how a value is.
        equals: the operator of equality. brackets: around the values of `in`.
    """
    terms = []
    for field, operator, value in conditions:
        if operator == "in":
            written = brackets[0] + ", ".join(map(literal, value)) + brackets[1]
        else:
            written = literal(value)
        terms.append(f"{column(field)} {equals if operator == '=' else operator} {written}")
    return " and ".join(terms)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name most like an unknown one, and at the others."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}there are: {', '.join(map(repr, names)) or 'none'}"


def _kind(field: Any, fields: Mapping[str, str]) -> str:
    if field not in fields:
        raise ValueError(f"filter on {field!r}: no such field; {nearest(str(field), fields)}")
    return fields[field]


def _items(written: str, text: str) -> list[str]:
    if not written.startswith("["):
        return [item.strip() for item in written.split(",")]
    try:
        return [json.dumps(item) for item in json.loads(written)]
    except ValueError:
        raise ValueError(
            f'filter {text!r}: the list is not JSON; expected ["a", "b"], or a,b without brackets'
        ) from None


def _value(written: str, kind: str, text: str) -> Any:
    try:
        if kind == "bool":
            return {"true": True, "false": False}[written.lower()]
        if kind == "str" and written.startswith('"'):
            return checked_value(json.loads(written), "str", "")
        return FIELD_TYPES[kind](written)
    except (ValueError, KeyError):
        raise ValueError(f"filter {text!r}: expected {kind}; got {written!r}") from None
