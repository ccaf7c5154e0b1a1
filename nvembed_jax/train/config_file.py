"""`configs/*.py` and `--config.key=value` to a ConfigDict."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def load_config(path: str | Path, overrides: Mapping[str, str] | None = None) -> Any:
    """The ConfigDict of a config file, with values replaced.

    Args:
        path: FILE.py, or FILE.py:ARGUMENT for a file whose `get_config` takes one.
        overrides: dotted key -> value as typed on a command line.

    Raises:
        FileNotFoundError: no such file. ValueError: no `get_config`; an unknown key (the nearest
            is named); a value of another type than the config's.
    """
    name, _, argument = str(path).partition(".py:")
    file = Path(f"{name}.py" if argument else name)
    if not file.is_file():
        raise FileNotFoundError(f"no config file at {file}")
    spec = importlib.util.spec_from_file_location(f"nvembed_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file}: is not a Python file; expected one that defines get_config()")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{file}: defines no get_config(); expected one that returns a ConfigDict")
    config = module.get_config(argument) if argument else module.get_config()
    for key, value in (overrides or {}).items():
        override(config, key, value)
    return config


def parse_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """`--config.a.b=1` and `--config.a.b 1` to {"a.b": "1"}.

    Raises:
        ValueError: an argument of another form.
    """
    out: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--config."):
            raise ValueError(f"unknown option {argument!r}; expected --config.KEY=VALUE")
        key, assigned, value = argument.removeprefix("--config.").partition("=")
        if not assigned:
            if not rest:
                raise ValueError(f"{argument} has no value; expected {argument}=VALUE")
            value = rest.pop(0)
        out[key] = value
    return out


def override(config: Any, key: str, value: str) -> None:
    """Sets `config`'s dotted `key` to `value`, read as the type that stands there.

    Raises:
        ValueError: no such key, or a value of another type.
    """
    node, parts = config, key.split(".")
    for depth, part in enumerate(parts):
        if not hasattr(node, "keys") or part not in node:
            raise ValueError(_unknown(config, node, parts, depth))
        if depth < len(parts) - 1:
            node = node[part]
    old = node[parts[-1]]
    if hasattr(old, "keys"):
        inner = ", ".join(f"{key}.{name}" for name in old)
        raise ValueError(f"config.{key} holds several values; set one of {inner}")
    node.unlock() if hasattr(node, "unlock") else None
    node[parts[-1]] = _typed(key, value, old)


def _unknown(config: Any, node: Any, parts: Sequence[str], depth: int) -> str:
    key = ".".join(parts)
    here = list(node) if hasattr(node, "keys") else []
    near = difflib.get_close_matches(parts[depth], here, n=3, cutoff=0.5)
    everywhere = difflib.get_close_matches(key, list(_keys(config)), n=3, cutoff=0.6)
    names = [".".join([*parts[:depth], name]) for name in near] or everywhere
    mend = f"did you mean {', '.join(names)}?" if names else f"known here: {', '.join(here)}"
    return f"unknown config key {key!r}; {mend}"


def _keys(node: Any, prefix: str = "") -> list[str]:
    out: list[str] = []
    for name in node:
        value = node[name]
        out += _keys(value, f"{prefix}{name}.") if hasattr(value, "keys") else [f"{prefix}{name}"]
    return out


def _typed(key: str, value: str, old: Any) -> Any:
    """`value` as the type of `old`."""
    if isinstance(old, str):
        return value
    if isinstance(old, bool):
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if value.lower() in known:
            return known[value.lower()]
        raise ValueError(f"config.{key} is true or false; got {value!r}")
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = value
    if old is None:
        return parsed
    if isinstance(old, float) and isinstance(parsed, int) and not isinstance(parsed, bool):
        return float(parsed)
    if isinstance(old, tuple | list):
        listed = parsed if isinstance(parsed, tuple | list) else (parsed,)
        return type(old)(listed)
    if type(parsed) is not type(old):
        raise ValueError(f"config.{key} is of type {type(old).__name__}; got {value!r}")
    return parsed
