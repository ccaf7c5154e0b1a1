"""`configs/*.py` and `--config.key=value` to a ConfigDict."""

from __future__ import annotations

import ast
import dataclasses
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


def weighted_sources(
    weights: Mapping[str, float | int], folder: str = ""
) -> dict[str, dict[str, Any]]:
    """A stage's sources, one a set: FOLDER/NAME.jsonl.gz where there is one, else FOLDER/NAME;
    without a folder as built ("tfds:NAME").
    """
    out = {}
    for name, weight in weights.items():
        file = Path(folder) / f"{name}.jsonl.gz"
        place = file if file.is_file() else Path(folder) / name
        out[name] = {"data": str(place) if folder else f"tfds:{name}", "weight": float(weight)}
    return out


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

    A key that the config leaves out, but recipes have, is added to it.

    Raises:
        ValueError: no such key, or a value of another type.
    """
    node, parts, old = config, key.split("."), None
    for depth, part in enumerate(parts):
        known = _recipe_keys(config, parts[:depth])
        given = hasattr(node, "keys") and part in node
        if not given and (not hasattr(node, "keys") or part not in known):
            raise ValueError(_unknown(config, node, parts, depth))
        old = node[part] if given else known[part]
        if depth < len(parts) - 1:
            if not given:
                _unlocked(node)[part] = type(config)()
            node = node[part]
    inner: Any = vars(old) if dataclasses.is_dataclass(old) else old
    if hasattr(inner, "keys"):
        names = ", ".join(f"{key}.{name}" for name in inner)
        raise ValueError(f"config.{key} holds several values; set one of {names}")
    _unlocked(node)[parts[-1]] = _typed(key, value, old)


def _unlocked(node: Any) -> Any:
    if hasattr(node, "unlock"):
        node.unlock()
    return node


def _recipe_keys(config: Any, parts: Sequence[str]) -> dict[str, Any]:
    """What recipes have below a dotted key, with defaults; {} where they have no such key."""
    from nvembed_jax.train.recipe import Recipe, SourceConfig, StageConfig

    stages = config.get("stages") or [name for name in config if name.startswith("stage")]
    kind, rest = (StageConfig, parts[1:]) if parts and parts[0] in stages else (Recipe, parts)
    if kind is StageConfig and len(rest) == 2 and rest[0] == "sources":
        kind, rest = SourceConfig, ()
    for part in rest:
        kind = type(_defaults(kind).get(part))
    return _defaults(kind) if dataclasses.is_dataclass(kind) else {}


def _defaults(kind: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        return {}
    return {
        field.name: field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default
        for field in dataclasses.fields(kind)
        if (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
    }


def _unknown(config: Any, node: Any, parts: Sequence[str], depth: int) -> str:
    key = ".".join(parts)
    here = list(node) if hasattr(node, "keys") else []
    here += [name for name in _recipe_keys(config, parts[:depth]) if name not in here]
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
