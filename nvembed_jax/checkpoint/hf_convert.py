"""Published folders -> our format: checked first, then streamed; whole or not at all.

What the published form has beyond our tensors (side files, shard headers, unused tensors) goes into
`source/`, so that `export_checkpoint` gives the same files back.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.checkpoint.atomic import atomic_folder
from nvembed_jax.checkpoint.keys import Parts
from nvembed_jax.checkpoint.model_folder import TOKENIZER_FILES, ModelFolder, open_model
from nvembed_jax.checkpoint.reading import is_float
from nvembed_jax.checkpoint.safetensors_io import float_dtype
from nvembed_jax.checkpoint.safetensors_write import (
    SHARD_BYTES,
    ByteCount,
    SafetensorsWriter,
    TensorSpec,
    make_header,
    plan_shards,
    write_index,
)
from nvembed_jax.checkpoint.saving import write_own_config, write_tokenizer_files
from nvembed_jax.checkpoint.sentence_layout import read_modules

SOURCE = "source"  # in a converted folder: what gives the published files back
HEADERS, SIDE_FILES, UNUSED = "headers", "files", "unused.safetensors"


def convert_checkpoint(
    src: str | Path,
    dst: str | Path,
    *,
    dtype: Any = None,
    progress: Callable[[int, int], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Converts a published folder (or, with a `dtype`, one of ours) into one in our format.

    Memory does not grow with the model. `dst` appears whole or not at all.

    Args:
        src: Hugging Face or sentence-transformers folder of a supported family.
        dst: must not exist, or be empty.
        dtype: "float32", "bfloat16" or "float16", rounded to nearest even; default: as stored.
        progress: called with (bytes written, bytes in all).
        shard_bytes: largest file.

    Raises:
        FileNotFoundError, FileExistsError, OSError: unreadable source, `dst` not empty, no room.
        ValueError: unsupported family or feature; missing, unknown, duplicate or misshapen
            tensors, by name.
    """
    model = open_model(src)
    if model.is_own and dtype is None:
        raise ValueError(
            f"{src} is already in our format; give a dtype to change, or use export_checkpoint"
        )
    target = None if dtype is None else float_dtype(dtype)
    specs = [TensorSpec(p.name, _stored_dtype(p, target), p.shape) for p in model.parts.values()]
    shards = plan_shards(specs, shard_bytes)
    total = sum(spec.nbytes for spec in specs)
    needs = total + sum(entry.nbytes for entry in model.unused)
    with atomic_folder(dst, needs_bytes=needs) as out:
        report = ByteCount(progress, total)
        for file, group in shards.items():
            _write_shard(out / file, group, model, report)
        write_index(out, shards)
        write_tokenizer_files(out, model.tokenizer_folder)
        _keep_source(out / SOURCE, model)
        write_own_config(out, model.config)


def _stored_dtype(parts: Parts, target: np.dtype | None) -> np.dtype:
    stored = {entry.dtype: entry for entry in parts.entries}
    if all(is_float(dtype) for dtype in stored) and target is not None:
        return target
    if len(stored) > 1:
        kinds = ", ".join(f"{entry.name!r} {dtype}" for dtype, entry in stored.items())
        raise ValueError(f"layers of {parts.name} differ in dtype: {kinds}; give one dtype for all")
    return parts.entries[0].dtype


def _write_shard(
    path: Path, specs: list[TensorSpec], model: ModelFolder, report: Callable[[int], None]
) -> None:
    header = make_header(specs, {"format": "nvembed_jax"})
    with SafetensorsWriter(path, header, sum(spec.nbytes for spec in specs), report) as writer:
        for spec in specs:
            for entry in model.parts[spec.name].entries:
                writer.convert(entry, spec.dtype)


def _keep_source(out: Path, model: ModelFolder) -> None:
    if model.is_own:
        if (model.folder / SOURCE).is_dir():
            shutil.copytree(model.folder / SOURCE, out)
        return
    for name, header in model.headers.items():
        path = out / HEADERS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header.raw)
    for file in _side_files(model):
        path = out / SIDE_FILES / file.relative_to(model.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, path)
    if model.unused:
        # Wide dtypes first: every tensor is aligned to its own size.
        entries = sorted(model.unused, key=lambda entry: -entry.dtype.itemsize)
        specs = [TensorSpec(entry.name, entry.dtype, entry.shape) for entry in entries]
        total = sum(spec.nbytes for spec in specs)
        with SafetensorsWriter(out / UNUSED, make_header(specs), total) as writer:
            for entry in entries:
                writer.copy(entry)


def _side_files(model: ModelFolder) -> Iterable[Path]:
    """Configurations of the model and its modules, and model code that is published beside them."""
    folders = {model.folder, model.tokenizer_folder}
    folders |= {model.folder / path for _, path in read_modules(model.folder)}
    for folder in sorted(folders):
        for path in sorted([*folder.glob("*.json"), *folder.glob("*.py")]):
            if not (folder == model.tokenizer_folder and path.name in TOKENIZER_FILES):
                yield path
