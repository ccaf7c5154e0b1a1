"""Side files of a sentence-transformers folder: modules, pooling, dense layers, prompts, lengths.

A plain Hugging Face folder is the special case without any of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvembed_jax.config import Pooling, ProjectionConfig

MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"
LENGTH_FILE = "sentence_bert_config.json"
_POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "eos"}
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh"}


@dataclass(frozen=True, kw_only=True)
class SentenceLayout:
    """What a sentence-transformers folder says; `transformer` and `dense` are folders within it.

    pooling: None: the folder does not say. prompts: as stored, empty ones included.
    """

    is_sentence_folder: bool = False
    transformer: str = ""
    pooling: Pooling | None = None
    include_prompt: bool = True
    dense: tuple[tuple[str, ProjectionConfig], ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt_name: str | None = None
    max_length: int | None = None
    lowercase: bool = False

    @property
    def dense_folders(self) -> tuple[str, ...]:
        """Folders of the dense layers, in order."""
        return tuple(folder for folder, _ in self.dense)

    @property
    def projections(self) -> tuple[ProjectionConfig, ...]:
        """The dense layers, in order."""
        return tuple(projection for _, projection in self.dense)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, {} if there is no such file. ValueError names a broken file."""
    data = _load(path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a JSON object; got a {type(data).__name__}")
    return data


def _load(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def read_layout(folder: Path) -> SentenceLayout:
    """Reads the side files. ValueError names a module, mode or activation that we do not have."""
    modules = read_modules(folder)
    fields: dict[str, Any] = {"is_sentence_folder": bool(modules)}
    dense, seen = [], []
    for kind, path in modules:
        _check_order(folder, kind, seen)
        if kind == "Transformer":
            fields["transformer"] = path
        elif kind == "Pooling":
            fields["pooling"], fields["include_prompt"] = _pooling(folder / path / "config.json")
        elif kind == "Dense":
            dense.append((path, _dense(folder / path / "config.json")))
        seen.append(kind)
    prompts = read_json(folder / PROMPTS_FILE)
    lengths = read_json(folder / fields.get("transformer", "") / LENGTH_FILE)
    named = tuple((str(k), str(v)) for k, v in (prompts.get("prompts") or {}).items())
    default = prompts.get("default_prompt_name")
    if default is not None and default not in dict(named):
        raise ValueError(
            f"{folder / PROMPTS_FILE}: default_prompt_name {default!r} is not among the prompts"
        )
    return SentenceLayout(
        **fields,
        dense=tuple(dense),
        prompts=named,
        default_prompt_name=default,
        max_length=lengths.get("max_seq_length"),
        lowercase=bool(lengths.get("do_lower_case", False)),
    )


def read_modules(folder: Path) -> list[tuple[str, str]]:
    """Kind and folder of every module that modules.json names; none without such a file."""
    data = _load(folder / MODULES_FILE)
    if data is None:
        return []
    try:
        return [(entry["type"].rsplit(".", 1)[-1], entry.get("path", "")) for entry in data]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{folder / MODULES_FILE} is not a list of modules with 'type' and 'path'"
        ) from error


def _check_order(folder: Path, kind: str, seen: list[str]) -> None:
    file = folder / MODULES_FILE
    if kind not in ("Transformer", "Pooling", "Dense", "Normalize"):
        raise ValueError(
            f"{file}: module {kind!r} is not supported; "
            "known: Transformer, Pooling, Dense, Normalize"
        )
    if kind in ("Transformer", "Pooling") and kind in seen:
        raise ValueError(f"{file}: {kind} stands twice")
    needs = {"Pooling": "Transformer", "Dense": "Pooling", "Normalize": "Pooling"}.get(kind)
    if needs and needs not in seen:
        raise ValueError(f"{file}: {kind} must come after {needs}")
    if kind == "Dense" and "Normalize" in seen:
        raise ValueError(f"{file}: a Dense layer after Normalize is not supported")


def _pooling(path: Path) -> tuple[Pooling, bool]:
    if not path.is_file():
        raise FileNotFoundError(f"modules.json names a Pooling module, but {path} is missing")
    data = read_json(path)
    if "pooling_mode" in data:
        modes = data["pooling_mode"]
        modes = [modes] if isinstance(modes, str) else list(modes)
    else:
        modes = [mode for flag, mode in _FLAGS.items() if data.get(flag)]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ValueError(
            f"{path}: pooling {modes} is not supported; expected one of {', '.join(_POOLINGS)}"
        )
    return _POOLINGS[modes[0]], bool(data.get("include_prompt", True))


def _dense(path: Path) -> ProjectionConfig:
    if not path.is_file():
        raise FileNotFoundError(f"modules.json names a Dense module, but {path} is missing")
    data = read_json(path)
    activation = str(data.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(
        ".", 1
    )[-1]
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"{path}: activation {activation!r} is not supported; known: {', '.join(_ACTIVATIONS)}"
        )
    if data.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise ValueError(f"{path}: a Dense layer over tokens is not supported")
    try:
        return ProjectionConfig(
            in_dim=int(data["in_features"]),
            out_dim=int(data["out_features"]),
            use_bias=bool(data.get("bias", True)),
            activation=_ACTIVATIONS[activation],  # type: ignore[arg-type]
        )
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}") from error
