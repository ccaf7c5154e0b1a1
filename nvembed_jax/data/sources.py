"""One door to training data: files, folders in the task layout, and built public sets."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nvembed_jax.data.examples import DEFAULT_GROUP_KEY, ExampleFile, ExampleSource
from nvembed_jax.data.judged_pairs import JudgedPairs
from nvembed_jax.data.labels import LabelledTexts, OpenRows
from nvembed_jax.data.row_examples import labelled_pairs, ranked_candidates, scored_pairs
from nvembed_jax.data.row_file import RowFile
from nvembed_jax.data.task_folder import TASK_FILES, TaskFolder, read_task_folder
from nvembed_jax.text.instructions import SYMMETRIC_TYPES

TFDS_PREFIX = "tfds:"


@dataclass(frozen=True, kw_only=True)
class _Options:
    """How rows become examples; the keyword arguments of `open_source`."""

    cache_dir: Path | None = None
    limit: int | None = None
    labels: str = "auto"
    negatives: int = 7
    label_texts: Mapping[str, str] | None = None
    allow_evaluation: bool = False


def open_source(
    spec: str | Path,
    *,
    cache_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    group_key: str = DEFAULT_GROUP_KEY,
    task: str | None = None,
    labels: str = "auto",
    negatives: int = 7,
    label_texts: Mapping[str, str] | None = None,
    allow_evaluation: bool = False,
) -> ExampleSource:
    """Opens training examples; every row is checked before this returns.

    `spec` is one of
    - FILE.jsonl or FILE.jsonl.gz, several joined with "," or a pattern like "pairs/*.jsonl": one
      source, end to end;
    - a folder in the task layout (docs/data.md): its pairs_train*.jsonl(.gz) where there are any,
      else the training rows of its task; a task's file beside its task.json stands for those rows;
    - "tfds:NAME[/CONFIG][:SPLIT]": a public set built by `python -m nvembed_jax.data.tfds`.

    Args:
        cache_dir: where decompressed copies are kept; None: a temporary folder.
        data_dir: where TFDS sets are built; None: ~/tensorflow_datasets.
        limit: only the first rows that can be used, as many as that.
        group_key: the key of training pairs whose equal values mark positives of each other.
        task: task description; None: what the set itself says.
        labels, negatives, label_texts: as in `LabelledTexts`.
        allow_evaluation: also take sets that have no training split.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: `FILE:LINE: what is wrong`, an evaluation set, or an unknown name or option.
    """
    options = _Options(
        cache_dir=None if cache_dir is None else Path(cache_dir),
        limit=limit,
        labels=labels,
        negatives=negatives,
        label_texts=label_texts,
        allow_evaluation=allow_evaluation,
    )
    text = str(spec)
    if text.startswith(TFDS_PREFIX):
        return _built(text.removeprefix(TFDS_PREFIX), data_dir, task, options)
    if Path(text).is_dir():
        folder = read_task_folder(text)
        if folder.pair_files:
            return _pairs_of_folder(folder, group_key, task, options)
        return _rows_of_folder(folder, task, options)
    paths = _expanded(text)
    if len(paths) == 1 and (folder := _folder_of_task_file(paths[0])) is not None:
        return _rows_of_folder(folder, task, options)
    return ExampleFile(
        paths, cache_dir=options.cache_dir, group_key=group_key, limit=limit, task=task
    )


def _built(
    spec: str, data_dir: str | Path | None, task: str | None, options: _Options
) -> ExampleSource:
    from nvembed_jax.data.tfds.reading import BuiltPairs, BuiltRows, find_built

    public, built = find_built(spec, data_dir, options.allow_evaluation)
    task = public.instruction if task is None else task
    if public.kind == "pairs":
        return BuiltPairs(public, built, task, options.limit)
    if options.label_texts is None:
        options = replace(options, label_texts=public.label_texts)
    return _labelled(
        public.kind,
        lambda keep: BuiltRows(built, keep, options.limit),
        name=public.name,
        task=task,
        options=options,
        scale=public.scale,
    )


def _labelled(
    kind: str,
    rows: OpenRows,
    *,
    name: str,
    task: str | None,
    options: _Options,
    scale: tuple[float, float] = (0.0, 5.0),
) -> ExampleSource:
    """Rows of a kind of task as examples; ValueError for kinds that make none (summaries)."""
    common: dict[str, Any] = {
        "name": name,
        "task": task,
        "allow_evaluation": options.allow_evaluation,
    }
    if kind in ("classification", "clustering"):
        return LabelledTexts(
            rows,
            negatives=options.negatives,
            labels=options.labels,
            label_texts=options.label_texts,
            **common,
        )
    if kind == "sts":
        return scored_pairs(rows, min_score=scale[0], max_score=scale[1], **common)
    if kind == "pair_classification":
        return labelled_pairs(rows, **common)
    if kind == "reranking":
        return ranked_candidates(rows, **common)
    raise ValueError(f"{name}: {kind} sets hold no training examples; they are for evaluation")


def _pairs_of_folder(
    folder: TaskFolder, group_key: str, task: str | None, options: _Options
) -> ExampleFile:
    return ExampleFile(
        folder.pair_files,
        cache_dir=options.cache_dir,
        group_key=group_key,
        limit=options.limit,
        name=folder.name,
        task=folder.pair_instruction if task is None else task,
        symmetric=folder.pair_instruction is not None and folder.kind in SYMMETRIC_TYPES,
    )


def _rows_of_folder(folder: TaskFolder, task: str | None, options: _Options) -> ExampleSource:
    assert folder.kind is not None
    task = folder.instruction if task is None else task
    if folder.kind == "retrieval":
        return _judged_of_folder(folder, task, options)
    if options.label_texts is None:
        options = replace(options, label_texts=folder.label_texts or _known_label_texts(folder))
    return _labelled(
        folder.kind,
        lambda keep: RowFile(
            folder.rows_file, keep, cache_dir=options.cache_dir, limit=options.limit
        ),
        name=folder.name,
        task=task,
        options=options,
        scale=(folder.min_score, folder.max_score),
    )


def _known_label_texts(folder: TaskFolder) -> Mapping[str, str] | None:
    """What the labels of a known public set mean, for folders that keep its name."""
    from nvembed_jax.data.tfds.registry import all_sets

    public = all_sets().get(folder.name)
    return None if public is None else public.label_texts


def _judged_of_folder(folder: TaskFolder, task: str | None, options: _Options) -> JudgedPairs:
    if not options.allow_evaluation:
        raise ValueError(
            f"{folder.path}: a retrieval set without splits is an evaluation set, not to be "
            f"trained on; pass allow_evaluation=True if it is nowhere evaluated on"
        )
    return JudgedPairs(
        folder.file("corpus.jsonl"),
        folder.file("queries.jsonl"),
        folder.path / "qrels.tsv",
        name=folder.name,
        task=task,
        cache_dir=options.cache_dir,
        limit=options.limit,
    )


def _folder_of_task_file(path: Path) -> TaskFolder | None:
    """The folder, if the file is the one that holds the rows of the task.json beside it."""
    name = path.name.lower().removesuffix(".gz")
    if name not in TASK_FILES.values() or not (path.parent / "task.json").is_file():
        return None
    folder = read_task_folder(path.parent)
    return folder if folder.kind and TASK_FILES[folder.kind] == name else None


def _expanded(spec: str) -> list[Path]:
    """The files of a list or a pattern, in order; a file with a comma in its name is one file."""
    if Path(spec).is_file():
        return [Path(spec)]
    paths: list[Path] = []
    for part in (part.strip() for part in spec.split(",")):
        found = [part] if Path(part).is_file() else sorted(glob.glob(part, recursive=True))
        if not part or not found:
            raise FileNotFoundError(
                f"{part or spec!r}: no such file, folder or pattern; expected a .jsonl(.gz) file, "
                f"several joined with ',', a folder, or 'tfds:NAME'"
            )
        paths += map(Path, found)
    return paths
