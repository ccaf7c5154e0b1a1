"""Nested parameter dicts to flat ones ("backbone.norm.weight" -> leaf) and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of a nested dict by dotted path, in the dict's order."""
    return dict(_walk(params, ""))


def _walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`. Raises ValueError where a path is both a leaf and a branch."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        node = out
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name!r} lies below {parent!r}, which is a tensor itself")
        if last in node:
            raise ValueError(f"{name!r} is both a tensor and the parent of other tensors")
        node[last] = value
    return out
