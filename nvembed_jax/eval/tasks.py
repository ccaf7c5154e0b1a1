"""Evaluation tasks: a folder with task.json and its data files becomes one frozen `Task`."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvembed_jax.eval.metrics import CUTS, SIMILARITIES
from nvembed_jax.eval.task_files import (
    Classification,
    Clustering,
    Data,
    Pairs,
    Reranking,
    Retrieval,
    data_files,
    read_data,
)

TASK_FILE = "task.json"
_PAIR_METRICS = ("ap", "accuracy", "f1", "precision", "recall")
MAIN_SCORES: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1"),
    "clustering": ("v_measure",),
    "pair_classification": tuple(
        f"{name}_{metric}" for name in (*SIMILARITIES, "max") for metric in _PAIR_METRICS
    ),
    "reranking": ("map", "mrr", "ndcg_at_10"),
    "retrieval": tuple(
        f"{name}_at_{k}" for name in ("ndcg", "map", "mrr", "recall", "precision") for k in CUTS
    ),
    "sts": tuple(
        f"{name}_{kind}"
        for name in ("cosine", "euclidean", "manhattan")
        for kind in ("spearman", "pearson")
    ),
    "summarization": ("cosine_spearman", "cosine_pearson", "mean_cosine_spearman"),
}
TYPES = tuple(MAIN_SCORES)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One evaluation set.

    Attributes:
        type: one of `TYPES`. instruction: task description of the queries ("": none).
        main_score: the metric that stands for the task.
        split: "test", "validation" or "all": which rows are scored.
        fingerprint: sha256 of its files.
    """

    name: str
    type: str
    instruction: str
    main_score: str
    folder: Path
    split: str
    fingerprint: str
    data: Data

    @property
    def size(self) -> int:
        """Queries, pairs or texts that are scored, before any limit."""
        match self.data:
            case Retrieval(queries=rows) | Reranking(queries=rows):
                return len(rows)
            case Pairs(first=rows) | Classification(texts=rows) | Clustering(texts=rows):
                return len(rows)
            case _:
                return len(self.data.human)


def load_task(folder: str | os.PathLike[str]) -> Task:
    """Reads a task folder and checks every row of it.

    The rows scored are those of split "test", else "validation", else all.

    Raises:
        FileNotFoundError: no such folder, no task.json, or a data file is missing.
        ValueError: `FILE:LINE: what is wrong`.
    """
    folder = Path(folder)
    path = folder / TASK_FILE
    if not path.is_file():
        reason = "it has no task.json" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"{folder}: {reason}; expected a task folder")
    facts = _facts(path)
    data, split = read_data(folder, facts["type"])
    return Task(
        **facts,
        folder=folder,
        split=split,
        fingerprint=_fingerprint([path, *data_files(folder, facts["type"])]),
        data=data,
    )


def find_tasks(folders: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The task folders among `folders`: each is one, or holds some one level below.

    Raises:
        FileNotFoundError: a folder is missing, or neither it nor its subfolders hold a task.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if (folder / TASK_FILE).is_file():
            below = [folder]
        else:
            below = sorted(path.parent for path in folder.glob(f"*/{TASK_FILE}"))
        if not below:
            reason = "neither it nor a folder in it has a task.json"
            raise FileNotFoundError(f"{folder}: {reason if folder.is_dir() else 'no such folder'}")
        found += [path for path in below if path not in found]
    return found


def _facts(path: Path) -> dict[str, str]:
    try:
        facts = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:1: not UTF-8 at byte {error.start}") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{path}:1: a JSON {type(facts).__name__}; expected an object")
    chosen = {key: _string(facts, key, path) for key in ("name", "type", "instruction")}
    if not chosen["name"].strip():
        raise ValueError(f"{path}:1: 'name' is blank; expected the name of the task")
    if chosen["type"] not in TYPES:
        raise ValueError(f"{path}:1: unknown type {_with_nearest(chosen['type'], TYPES)}")
    main_score, known = _string(facts, "main_score", path), MAIN_SCORES[chosen["type"]]
    if main_score not in known:
        raise ValueError(
            f"{path}:1: unknown main_score of {chosen['type']}: {_with_nearest(main_score, known)}"
        )
    return {**chosen, "main_score": main_score}


def _string(facts: dict[str, Any], key: str, path: Path) -> str:
    if not isinstance(facts.get(key), str):
        there = type(facts[key]).__name__ if key in facts else "nothing"
        raise ValueError(f"{path}:1: {key!r} holds {there}; expected a string")
    return facts[key]


def _with_nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    mend = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
    return f"{name!r}; {mend}"


def _fingerprint(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
