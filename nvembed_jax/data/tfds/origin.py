"""The files of a public set: downloaded, or found in a local folder with the origin's names."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvembed_jax.data.judged_pairs import JudgedPairs
from nvembed_jax.data.row_file import read_rows
from nvembed_jax.data.task_folder import TaskFolder, read_task_folder
from nvembed_jax.data.tfds.raw_files import Row
from nvembed_jax.data.tfds.registry import PublicSet

SPLIT_NAMES = {"train": "train", "dev": "validation", "val": "validation",
               "validation": "validation", "test": "test"}  # fmt: skip


def splits_of_origin(public: PublicSet, roots: Sequence[Path]) -> dict[str, dict[str, list[Path]]]:
    """split -> role -> files below the roots.

    A local folder need not hold every split; it must hold one, and of that all files.

    Raises:
        FileNotFoundError: a file is missing; names it and where it comes from.
    """
    found, missing = {}, []
    for split, roles in public.files.items():
        files = {role: _matches(roots, pattern) for role, pattern in roles.items()}
        lacking = [roles[role] for role, paths in files.items() if not paths]
        if not lacking:
            found[split] = files
        missing += lacking
    if not found:
        where = ", ".join(map(str, roots))
        raise FileNotFoundError(
            f"{public.name}: no {' and no '.join(dict.fromkeys(missing))} below {where}; get it "
            f"from {_source_of(public, missing)}"
        )
    return found


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .zip or .tar(.gz) whole or not at all; a folder that is there is left as it is.

    TFDS would do it with TensorFlow.
    """
    if folder.is_dir() and any(folder.iterdir()):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        target = Path(temporary) / folder.name
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as content:
                content.extractall(target)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as content:
                content.extractall(target, filter="data")
        else:
            raise ValueError(f"{archive}: expected a .zip or .tar archive; delete it to try again")
        target.rename(folder)


def layout_folder(public: PublicSet, origin_dir: Path) -> TaskFolder | None:
    """`origin_dir`, or the folder of the set's name in it, if it is in the task layout."""
    for path in (origin_dir / public.name, origin_dir):
        if (path / "task.json").is_file() or any(path.glob("pairs_train*.jsonl*")):
            folder = read_task_folder(path)
            _check_kind(public, folder)
            return folder
    return None


def splits_of_layout(public: PublicSet, folder: TaskFolder) -> list[str]:
    """The splits that a folder in the task layout holds."""
    if public.kind == "pairs" and folder.pair_files:
        return ["train"]
    if folder.kind == "retrieval":
        return ["test"]
    names = Counter(_split(row, where) for where, row in read_rows(folder.rows_file))
    return [split for split in ("train", "validation", "test") if names[split]]


def rows_of_layout(public: PublicSet, folder: TaskFolder, split: str) -> Iterator[Row]:
    """The rows of one split of a folder in the task layout."""
    if public.kind == "pairs" and folder.pair_files:
        for path in folder.pair_files:
            for _, row in read_rows(path):
                group = row.get("group", row.get("image"))
                positives = row["positive"]
                positives = [positives] if isinstance(positives, str) else positives
                yield {
                    **row,
                    "positives": positives,
                    "group": None if group is None else str(group),
                }
    elif folder.kind == "retrieval":
        judged = JudgedPairs(
            folder.file("corpus.jsonl"),
            folder.file("queries.jsonl"),
            folder.path / "qrels.tsv",
            name=public.name,
        )
        for index in range(len(judged)):
            example = judged.get(index)
            yield {
                "query": example.query,
                "positives": example.positives,
                "negatives": example.negatives,
            }
    else:
        for where, row in read_rows(folder.rows_file):
            if _split(row, where) == split:
                yield _as_pairs(row) if folder.kind == "reranking" else row


def _as_pairs(row: Mapping[str, Any]) -> Row:
    return {"query": row["query"], "positives": row["positive"], "negatives": row["negative"]}


def _split(row: Mapping[str, Any], where: str) -> str:
    """The split's name in TFDS; rows without one are for evaluation."""
    split = row.get("split", "test")
    if split not in SPLIT_NAMES:
        raise ValueError(f"{where}: the split is {split!r}; expected {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[split]


def _check_kind(public: PublicSet, folder: TaskFolder) -> None:
    kinds = {public.kind}
    if public.kind == "pairs":
        if folder.pair_files:
            return
        kinds = {"retrieval", "reranking"}
    if folder.kind not in kinds:
        raise ValueError(
            f"{folder.path}: its rows are of the kind {folder.kind}; {public.name} expects "
            f"{' or '.join(sorted(kinds))}"
        )


def _matches(roots: Sequence[Path], pattern: str) -> list[Path]:
    """Files at `pattern` below a root, or below the one folder that an archive unpacks to."""
    for root in roots:
        for candidate in (pattern, f"*/{pattern}"):
            found = sorted(path for path in root.glob(candidate) if path.is_file())
            if found:
                return found
    return []


def _source_of(public: PublicSet, missing: Sequence[str]) -> str:
    urls = [public.urls.get(pattern, public.urls.get("")) for pattern in missing]
    known = [url for url in dict.fromkeys(urls) if url]
    return (", ".join(known) or public.homepage) + (
        f" ({public.by_hand})" if public.by_hand else ""
    )
