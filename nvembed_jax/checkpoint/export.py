"""Our folders -> published PyTorch form: key names, safetensors shards, index, configuration."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nvembed_jax.checkpoint.atomic import atomic_folder
from nvembed_jax.checkpoint.hf_config import read_published
from nvembed_jax.checkpoint.hf_convert import HEADERS, SIDE_FILES, SOURCE, UNUSED
from nvembed_jax.checkpoint.keys import key_table, match_published, published_names
from nvembed_jax.checkpoint.model_folder import ModelFolder, name_tensors, open_model
from nvembed_jax.checkpoint.published_form import dense_folders, write_published_config
from nvembed_jax.checkpoint.safetensors_io import (
    INDEX_FILE,
    SINGLE_FILE,
    Header,
    TensorEntry,
    parse_header,
    read_header,
)
from nvembed_jax.checkpoint.safetensors_write import (
    SHARD_BYTES,
    ByteCount,
    SafetensorsWriter,
    TensorSpec,
    make_header,
    plan_shards,
    write_index,
)
from nvembed_jax.checkpoint.saving import write_tokenizer_files
from nvembed_jax.checkpoint.sentence_layout import read_json
from nvembed_jax.config import ModelConfig

Progress = Callable[[int, int], None]


def export_checkpoint(
    src: str | Path,
    dst: str | Path,
    *,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes one of our folders in the published form, which `transformers` and others read.

    A converted folder gives its source back: names, order and bytes of all files (another dtype
    where it was changed). A trained one gets its own, in shards of at most `shard_bytes`.

    Raises:
        FileNotFoundError, FileExistsError, OSError: no source, `dst` not empty, no room.
        ValueError: `src` is not ours, is broken, or has no published form.
    """
    model = open_model(src)
    if not model.is_own:
        raise ValueError(
            f"{src} is already in published form; export takes a converted or trained folder"
        )
    total = sum(entry.nbytes for parts in model.parts.values() for entry in parts.entries)
    if (model.folder / SOURCE / UNUSED).is_file():
        unused = read_header(model.folder / SOURCE / UNUSED).tensors
        total += sum(entry.nbytes for entry in unused.values())
    report = ByteCount(progress, total)
    with atomic_folder(dst, needs_bytes=total) as out:
        if (model.folder / SOURCE).is_dir():
            _restore(out, model, report)
        else:
            _generate(out, model, shard_bytes, report)


def _restore(out: Path, model: ModelFolder, report: Callable[[int], None]) -> None:
    """The published files of a converted folder."""
    source = model.folder / SOURCE
    config, layout = read_published(source / SIDE_FILES)
    _check_same_model(model, config)
    dense = layout.dense_folders
    headers = _stored_headers(source / HEADERS)
    parts, _ = match_published(name_tensors(headers, dense), model.config, dense)
    entries = _by_published_name(model, {n: [e.name for e in p.entries] for n, p in parts.items()})
    if (source / UNUSED).is_file():
        entries |= read_header(source / UNUSED).tensors
    shutil.copytree(source / SIDE_FILES, out, dirs_exist_ok=True)
    (out / layout.transformer).mkdir(parents=True, exist_ok=True)
    write_tokenizer_files(out / layout.transformer, model.folder)
    changed = False
    for path, header in headers.items():
        group = [entries[name] for name in name_tensors({path: header}, dense)]
        changed |= _restore_file(out / path, header, group, report)
    if changed:
        _update_side_files(out / layout.transformer, list(entries.values()))


def _restore_file(
    path: Path, header: Header, entries: list[TensorEntry], report: Callable[[int], None]
) -> bool:
    """Writes one published file; says whether a dtype differs from the one that was published."""
    specs = [
        TensorSpec(stored.name, entry.dtype, entry.shape)
        for stored, entry in zip(header.tensors.values(), entries, strict=True)
    ]
    stored = [entry.dtype for entry in header.tensors.values()]
    changed = stored != [spec.dtype for spec in specs]
    raw = make_header(specs, header.metadata) if changed else header.raw
    path.parent.mkdir(parents=True, exist_ok=True)
    with SafetensorsWriter(path, raw, sum(spec.nbytes for spec in specs), report) as writer:
        for entry in entries:
            writer.copy(entry)
    return changed


def _generate(
    out: Path, model: ModelFolder, shard_bytes: int, report: Callable[[int], None]
) -> None:
    """Published files for a model that was never published."""
    dense = dense_folders(model.config)
    names = published_names(model.config, key_table(model.config).prefixes[0], dense)
    entries = _by_published_name(model, names)
    write_tokenizer_files(out, model.folder)
    write_published_config(out, model.config, _main_dtype(list(entries.values())))
    for folder in dense:
        group = [
            (n.removeprefix(f"{folder}/"), e)
            for n, e in entries.items()
            if n.startswith(f"{folder}/")
        ]
        _write_published(out / folder / SINGLE_FILE, group, report)
    inner = {name: entry for name, entry in entries.items() if "/" not in name}
    specs = [TensorSpec(name, entry.dtype, entry.shape) for name, entry in inner.items()]
    shards = plan_shards(specs, shard_bytes)
    for file, group in shards.items():
        _write_published(out / file, [(spec.name, inner[spec.name]) for spec in group], report)
    write_index(out, shards)


def _write_published(
    path: Path, tensors: list[tuple[str, TensorEntry]], report: Callable[[int], None]
) -> None:
    specs = [TensorSpec(name, entry.dtype, entry.shape) for name, entry in tensors]
    header = make_header(specs, {"format": "pt"})
    with SafetensorsWriter(path, header, sum(spec.nbytes for spec in specs), report) as writer:
        for _, entry in tensors:
            writer.copy(entry)


def _by_published_name(
    model: ModelFolder, names: Mapping[str, Sequence[str]]
) -> dict[str, TensorEntry]:
    """Published name -> where its bytes lie in our files; layers come one after another."""
    out: dict[str, TensorEntry] = {}
    stacked = {n: p for n, p in names.items() if n.startswith("backbone.layers.")}
    for ours in names.keys() - stacked.keys():
        entry = model.parts[ours].entries[0]
        out[names[ours][0]] = dataclasses.replace(entry, name=names[ours][0])
    for ours, published in stacked.items():
        entry = model.parts[ours].entries[0]
        size = entry.nbytes // len(published)
        for i, name in enumerate(published):
            out[name] = dataclasses.replace(
                entry,
                name=name,
                shape=entry.shape[1:],
                offset=entry.offset + i * size,
                nbytes=size,
            )
    return out


def _check_same_model(model: ModelFolder, published: ModelConfig) -> None:
    for field in ("backbone", "attention", "pooling", "latent", "projections"):
        if getattr(model.config, field) != getattr(published, field):
            raise ValueError(
                f"{model.folder}: {field} of config.json differs from the published one in "
                f"{SOURCE}/; remove {SOURCE}/ to export the model in a form of its own"
            )


def _stored_headers(folder: Path) -> dict[str, Header]:
    files = sorted(path for path in folder.rglob("*.safetensors") if path.is_file())
    return {str(path.relative_to(folder)): parse_header(path.read_bytes(), path) for path in files}


def _main_dtype(entries: list[TensorEntry]) -> str:
    """The dtype of most bytes."""
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes[entry.dtype.name] = sizes.get(entry.dtype.name, 0) + entry.nbytes
    return max(sizes, key=lambda name: sizes[name])


def _update_side_files(folder: Path, entries: list[TensorEntry]) -> None:
    """The dtype in config.json and the total size in the index, after a change of dtype."""
    config = read_json(folder / "config.json")
    for key in {"torch_dtype", "dtype"} & config.keys():
        config[key] = _main_dtype(entries)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    index = read_json(folder / INDEX_FILE)
    if index:
        names = index["weight_map"]
        index.setdefault("metadata", {})["total_size"] = sum(
            entry.nbytes for entry in entries if entry.name in names
        )
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
