"""Parameters in memory -> a model folder in our format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.checkpoint.atomic import atomic_folder
from nvembed_jax.checkpoint.keys import check_tensors
from nvembed_jax.checkpoint.model_folder import TOKENIZER_FILES, own_config_json
from nvembed_jax.checkpoint.safetensors_io import float_dtype
from nvembed_jax.checkpoint.safetensors_write import (
    SHARD_BYTES,
    SafetensorsWriter,
    TensorSpec,
    make_header,
    plan_shards,
    write_index,
)
from nvembed_jax.checkpoint.shapes import expected_shapes
from nvembed_jax.checkpoint.tree import flatten
from nvembed_jax.config import ModelConfig

BLOCK_BYTES = 256 << 20  # fetched from the devices at once


def save_model(
    folder: str | Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    *,
    src_folder: str | Path | None = None,
    tokenizer_files: Mapping[str, bytes] | None = None,
    dtype: Any = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
) -> None:
    """Writes a model folder in our format; it appears whole or not at all.

    Args:
        folder: must not exist or be empty, unless `overwrite`.
        config: the model. params: a nested dict of NumPy or (fully addressable) JAX arrays,
            layers stacked.
        src_folder: its tokenizer files are copied.
        tokenizer_files: file name -> content, for a tokenizer that is in no folder.
        dtype: of the weights on disk; default: as they are.

    Raises:
        ValueError: `params` do not fit `config`, or a file that is no tokenizer file.
        FileExistsError, OSError: the folder cannot be written.
    """
    flat = flatten(params)
    shapes = expected_shapes(config)
    check_tensors(flat, shapes, config)
    target = None if dtype is None else float_dtype(dtype)
    specs = [TensorSpec(n, target or np.dtype(flat[n].dtype), shapes[n]) for n in shapes]
    shards = plan_shards(specs, shard_bytes)
    needs = sum(spec.nbytes for spec in specs)
    with atomic_folder(folder, needs_bytes=needs, overwrite=overwrite) as out:
        for file, group in shards.items():
            _write_shard(out / file, group, flat)
        write_index(out, shards)
        write_tokenizer_files(out, src_folder, tokenizer_files)
        write_own_config(out, config)


def write_own_config(folder: Path, config: ModelConfig) -> None:
    """Writes config.json: the last file, so that a folder without it is not finished."""
    text = json.dumps(own_config_json(config), indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def write_tokenizer_files(
    out: Path, source: str | Path | None, contents: Mapping[str, bytes] | None = None
) -> None:
    """Copies the tokenizer files that `source` has, and writes `contents` (name -> bytes)."""
    for name in TOKENIZER_FILES:
        if source is not None and (Path(source) / name).is_file():
            shutil.copyfile(Path(source) / name, out / name)
    for name, data in (contents or {}).items():
        if name not in TOKENIZER_FILES:
            raise ValueError(
                f"{name!r} is not a tokenizer file; known: {', '.join(TOKENIZER_FILES)}"
            )
        (out / name).write_bytes(data)


def _write_shard(path: Path, specs: list[TensorSpec], flat: Mapping[str, Any]) -> None:
    header = make_header(specs, {"format": "nvembed_jax"})
    with SafetensorsWriter(path, header, sum(spec.nbytes for spec in specs)) as writer:
        for spec in specs:
            for block in _blocks(flat[spec.name], spec.name):
                writer.write(block, spec.dtype, spec.name)


def _blocks(leaf: Any, name: str) -> Iterator[np.ndarray]:
    """The leaf on the host, some leading rows at a time."""
    if not getattr(leaf, "is_fully_addressable", True):
        raise ValueError(f"{name!r} is spread over several processes; gather it before saving")
    rows = leaf.shape[0] if leaf.ndim else 1
    step = max(1, BLOCK_BYTES * rows // max(leaf.nbytes, 1))
    if isinstance(leaf, np.ndarray) or step >= rows:
        yield np.ascontiguousarray(leaf)
        return
    from jax.lax import dynamic_slice_in_dim

    for start in range(0, rows, step):
        yield np.asarray(dynamic_slice_in_dim(leaf, start, min(step, rows - start)))
