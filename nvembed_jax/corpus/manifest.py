"""The plan of a corpus, and manifest.json, which holds it: what is encoded, how, into which parts.

The manifest is written before the first part, the same by whoever comes first, and once more when
all parts are there. A part that is there is finished: parts get their names when they are complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax.corpus.source import SourceFacts, joined
from nvembed_jax.data.writers import write_text

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
BLOCK = 64  # texts that share a digest, and the fewest in a part by default
MOST_TEXTS = 16384  # in a part by default
WANTED_PARTS = 64  # so that the work can be shared, and little of it is lost
_SHOWN = ("input", "model", "settings", "part_texts")


class Part(NamedTuple):
    """One file of embeddings: of `texts` texts, from number `first` on."""

    number: int
    name: str
    first: int
    texts: int
    digest: str


class Plan(NamedTuple):
    """All parts of a corpus.

    Attributes:
        input_name: for people only. texts: in all. digest: of all texts with their ids.
        block: texts that share a digest. part_texts: texts of a part (of the last one fewer).
    """

    input_name: str
    texts: int
    digest: str
    block: int
    part_texts: int
    parts: tuple[Part, ...]


def make_plan(
    input_name: str, facts: SourceFacts, block: int, part_texts: int | None, suffix: str
) -> Plan:
    """Cuts a corpus into parts.

    Args:
        facts: from a scan with this `block`.
        part_texts: a multiple of `block`; None: by the number of texts alone.
        suffix: of the parts' names, ".parquet" or ".npy".
    """
    size = part_texts or default_part_texts(facts.texts)
    each = size // block
    parts = tuple(
        Part(
            number,
            f"part-{number:05d}{suffix}",
            number * size,
            min(size, facts.texts - number * size),
            joined(facts.digests[number * each : (number + 1) * each]),
        )
        for number in range(-(-facts.texts // size))
    )
    return Plan(input_name, facts.texts, joined(facts.digests), block, size, parts)


def default_part_texts(texts: int) -> int:
    """Texts a part: about 64 parts, each of 64 to 16,384 texts."""
    return BLOCK * min(max(-(-texts // (BLOCK * WANTED_PARTS)), 1), MOST_TEXTS // BLOCK)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """manifest.json of a folder, None where there is none.

    Raises:
        ValueError: it is none of ours, or of another version.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format_version"]
        _ = [manifest[key] for key in (*_SHOWN, "block", "parts")]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path}: is no manifest of an encoded corpus; name another folder"
        ) from None
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: version {version}; this version reads {FORMAT_VERSION}")
    return manifest


def open_manifest(
    folder: Path, plan: Plan, model: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """Writes the manifest, or compares the one that is there.

    Args:
        model: {"name", "fingerprint"}; the name is for messages. settings: plain types.

    Raises:
        ValueError: the folder was begun with another model, input or settings.
    """
    wanted = {
        "format_version": FORMAT_VERSION,
        "complete": False,
        "input": {"name": plan.input_name, "texts": plan.texts, "digest": plan.digest},
        "model": dict(model),
        "settings": dict(settings),
        "block": plan.block,
        "part_texts": plan.part_texts,
        "parts": [_without_number(part) for part in plan.parts],
    }
    found = read_manifest(folder)
    if found is None:
        _write(folder, wanted)
        return
    reason = _difference(found, wanted)
    if reason:
        raise ValueError(f"{folder}: was begun {reason}; name another folder")


def finish_manifest(folder: Path, plan: Plan) -> bool:
    """Marks the manifest complete if all parts are there; whether they are.

    Adds the rows of every part, and width and dtype of the embeddings.

    Raises:
        ValueError: a part cannot be read, or has not the rows that it should have.
    """
    if not all((folder / part.name).exists() for part in plan.parts):
        return False
    manifest = read_manifest(folder)
    assert manifest is not None
    if manifest["complete"]:
        return True
    chunked = manifest["settings"]["chunk_tokens"] > 0
    shapes = []
    for part in plan.parts:
        shape = _shape(folder / part.name)
        if shape.rows < part.texts or (not chunked and shape.rows != part.texts):
            raise ValueError(
                f"{folder / part.name}: {shape.rows} rows for {part.texts} texts; delete it and "
                f"run again"
            )
        shapes.append(shape)
    for row, shape in zip(manifest["parts"], shapes, strict=True):
        row["rows"] = shape.rows
    manifest |= {"complete": True, "rows": sum(shape.rows for shape in shapes)}
    manifest["embedding"] = {"width": shapes[0].width, "dtype": shapes[0].dtype}
    _write(folder, manifest)
    return True


def check_folder(folder: Path) -> None:
    """Raises a ValueError for a folder that holds files but no manifest: it is none of ours."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; expected a folder, or a name that is free")
    visible = [path for path in folder.glob("*") if not path.name.startswith(".")]
    if visible and read_manifest(folder) is None:
        raise ValueError(
            f"{folder}: holds {min(visible).name} but no {MANIFEST}; name another folder, or an "
            f"empty one"
        )


class _Shape(NamedTuple):
    rows: int
    width: int
    dtype: str


def _shape(path: Path) -> _Shape:
    """Rows, width and dtype of a part, by what its file says of itself."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r")
            if not path.with_suffix(".ids").exists():
                raise ValueError("its .ids file is missing")
            rows, width = array.shape
            return _Shape(rows, width, str(array.dtype))
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            kind = file.schema_arrow.field("embedding").type
            dtype = str(np.dtype(kind.value_type.to_pandas_dtype()))
            return _Shape(file.metadata.num_rows, kind.list_size, dtype)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); delete it and run again"
        ) from None


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How a folder was begun otherwise than is wanted; "" where it was not."""
    made, asked = found["model"], wanted["model"]
    if made.get("fingerprint") != asked["fingerprint"]:
        return (
            f"with model {made.get('name')} ({made.get('fingerprint')}), not with {asked['name']} "
            f"({asked['fingerprint']})"
        )
    for key, value in wanted["settings"].items():
        before = found["settings"].get(key)
        if before != value:
            return f"with {key} = {json.dumps(before)}, not {json.dumps(value)}"
    if found["part_texts"] != wanted["part_texts"]:
        return f"with {found['part_texts']} texts a part, not {wanted['part_texts']}"
    if found["input"].get("digest") != wanted["input"]["digest"]:
        before, now = found["input"], wanted["input"]
        return (
            f"with another input: {before.get('name')} of {before.get('texts')} texts, not "
            f"{now['name']} of {now['texts']} with the same ids, titles and texts"
        )
    return ""


def _without_number(part: Part) -> dict[str, Any]:
    row = part._asdict()
    del row["number"]
    return row


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
