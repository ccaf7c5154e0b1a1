"""A model folder, ours or published, opened: its config, and where each of our tensors lies."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvembed_jax.checkpoint.hf_config import read_published
from nvembed_jax.checkpoint.keys import Parts, match_own, match_published
from nvembed_jax.checkpoint.safetensors_io import (
    SINGLE_FILE,
    Header,
    SafetensorsFolder,
    TensorEntry,
    read_header,
)
from nvembed_jax.checkpoint.sentence_layout import SentenceLayout, read_json
from nvembed_jax.config import ModelConfig, from_dict, to_dict
from nvembed_jax.version import __version__

MODEL_TYPE = "nvembed_jax"
FORMAT_VERSION = 1
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_SAMPLE = 16384  # bytes hashed at the start, middle and end of a tensor


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """An opened model folder.

    Attributes:
        parts: our flat tensor name -> the file entries that make it, all checked.
        unused: known tensors that embeddings do not need (published folders only).
        headers: safetensors files by path relative to the folder.
        layout: the sentence-transformers side of a published folder; None: the folder is ours.
    """

    folder: Path
    config: ModelConfig
    parts: dict[str, Parts]
    unused: list[TensorEntry]
    headers: dict[str, Header]
    layout: SentenceLayout | None

    @property
    def is_own(self) -> bool:
        """Whether the folder is in our format."""
        return self.layout is None

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer's files are."""
        return self.folder / (self.layout.transformer if self.layout else "")


def load_config(folder: str | Path) -> ModelConfig:
    """The `ModelConfig` of a model folder, ours or published; weights are not touched.

    Raises:
        FileNotFoundError: no folder, or no config.json.
        ValueError: an unsupported family or feature, or a format newer than this library.
    """
    return _config_and_layout(Path(folder))[0]


def own_config_json(config: ModelConfig) -> dict[str, Any]:
    """The config.json of a folder in our format."""
    return {
        "model_type": MODEL_TYPE,
        "format_version": FORMAT_VERSION,
        "library_version": __version__,
        "model": to_dict(config),
    }


def open_model(folder: str | Path) -> ModelFolder:
    """Opens a model folder; headers are read and checked against the config, tensors are not read.

    Raises:
        FileNotFoundError: no folder, config or weights, or a missing shard.
        ValueError: a broken file, or tensors that do not fit the config.
    """
    folder = Path(folder)
    config, layout = _config_and_layout(folder)
    if layout is None:
        files = SafetensorsFolder(folder)
        parts, unused = _named(match_own, folder, files, config), []
        return ModelFolder(
            folder=folder,
            config=config,
            parts=parts,
            unused=unused,
            headers=files.headers,
            layout=None,
        )
    files = SafetensorsFolder(folder / layout.transformer)
    headers = {str(Path(layout.transformer) / name): h for name, h in files.headers.items()}
    headers |= {
        f"{name}/{SINGLE_FILE}": _dense_header(folder / name) for name in layout.dense_folders
    }
    tensors = name_tensors(headers, layout.dense_folders)
    parts, unused = _named(match_published, folder, tensors, config, layout.dense_folders)
    return ModelFolder(
        folder=folder,
        config=config,
        parts=parts,
        unused=[tensors[name] for name in unused],
        headers=headers,
        layout=layout,
    )


def name_tensors(
    headers: Mapping[str, Header], dense_folders: Sequence[str]
) -> dict[str, TensorEntry]:
    """Published name -> entry. Names of dense layers, alike in every file, carry their folder."""
    out = {}
    for path, header in headers.items():
        folder = str(Path(path).parent)
        prefix = f"{folder}/" if folder in dense_folders else ""
        for entry in header.tensors.values():
            name = prefix + entry.name
            out[name] = dataclasses.replace(entry, name=name)
    return out


def weights_fingerprint(folder: str | Path) -> str:
    """A hash of a folder's weights: of all headers, and of samples of every tensor's bytes."""
    digest = hashlib.sha256()
    for name, header in open_model(folder).headers.items():
        digest.update(name.encode() + header.raw)
        with header.file.open("rb") as stream:
            for entry in header.tensors.values():
                last = max(entry.nbytes - _SAMPLE, 0)
                for start in sorted({0, last // 2, last}):
                    stream.seek(entry.offset + start)
                    digest.update(stream.read(min(_SAMPLE, entry.nbytes - start)))
    return digest.hexdigest()


def _config_and_layout(folder: Path) -> tuple[ModelConfig, SentenceLayout | None]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no model folder at {folder}")
    path = folder / "config.json"
    data = read_json(path)
    if data.get("model_type") != MODEL_TYPE:
        return read_published(folder)
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version {version!r} is not readable by nvembed_jax {__version__}, "
            f"which reads {FORMAT_VERSION}; upgrade the package"
        )
    try:
        return from_dict(data["model"]), None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _named(match: Any, folder: Path, *args: Any) -> Any:
    """`match(*args)` with the folder's name in front of its errors."""
    try:
        return match(*args)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _dense_header(folder: Path) -> Header:
    file = folder / SINGLE_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"modules.json names the dense layer {folder.name!r}, but {file} is missing; "
            "save that layer as safetensors"
        )
    return read_header(file)
