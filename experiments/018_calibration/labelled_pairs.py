"""Task folders as labelled pairs, and a split of pairs in which no text stands on both sides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax.calibration.pairs import PASSAGE_PASSAGE, QUERY_PASSAGE
from nvembed_jax.data.row_file import read_rows, row_writer
from nvembed_jax.data.task_folder import TaskFolder, read_task_folder

KINDS = {"pair_classification": PASSAGE_PASSAGE, "sts": PASSAGE_PASSAGE, "reranking": QUERY_PASSAGE}
_KEYS = {PASSAGE_PASSAGE: ("text1", "text2"), QUERY_PASSAGE: ("query", "passage")}


class PairSet(NamedTuple):
    """The pairs of a task folder.

    Attributes:
        kind: "passage-passage", or "query-passage" of reranking sets.
        file: with the pairs, as `nvembed calibrate` reads them. fingerprint: of that file.
        labels: 0 or 1 [N]. groups: pairs that share a text, by way of others too, have one number.
    """

    name: str
    kind: str
    instruction: str | None
    file: Path
    fingerprint: str
    labels: np.ndarray
    groups: np.ndarray


def read_set(folder: Path, out: Path, match: float, limit: int, seed: int) -> PairSet:
    """Writes at most `limit` random pairs of a task folder into `out`.

    Args:
        match: pairs of an sts set match from this share of its range of scores.

    Raises:
        ValueError: not a folder of pairs, or of one label only.
    """
    task = read_task_folder(folder)
    if task.kind not in KINDS:
        raise ValueError(f"{folder}: a {task.kind} task; expected one of {', '.join(KINDS)}")
    rows = list({json.dumps(pair[:2]): pair for pair in _pairs(task, match)}.values())
    rng = np.random.default_rng(seed)
    if len(rows) > limit:
        rows = [rows[i] for i in np.sort(rng.choice(len(rows), limit, replace=False))]
    labels = np.array([label for _, _, label in rows])
    if set(labels.tolist()) != {0, 1}:
        raise ValueError(f"{folder}: expected pairs of both labels; got {set(labels.tolist())}")
    kind = KINDS[task.kind]
    first, second = _KEYS[kind]
    path = out / f"{task.name}.jsonl"
    with row_writer(path) as write:
        for one, other, label in rows:
            write({first: one, second: other, "label": label})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    groups = _groups([row[:2] for row in rows])
    return PairSet(task.name, kind, task.instruction, path, digest, labels, groups)


def calibration_half(pairs: PairSet, seed: int) -> np.ndarray:
    """Whether each pair is of the half to calibrate on; whole groups, in random order."""
    sizes = np.bincount(pairs.groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = np.zeros(len(sizes), bool)
    chosen[order] = before < len(pairs.groups) / 2
    return chosen[pairs.groups]


def _pairs(task: TaskFolder, match: float) -> Iterator[tuple[str, str, int]]:
    least = task.min_score + match * (task.max_score - task.min_score)
    for where, row in read_rows(task.rows_file):
        try:
            if task.kind == "reranking":
                for key, label in (("positive", 1), ("negative", 0)):
                    yield from ((row["query"], text, label) for text in row[key])
            elif task.kind == "sts":
                yield row["text1"], row["text2"], int(row["score"] >= least)
            else:
                yield row["text1"], row["text2"], int(row["label"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{where}: not a row of a {task.kind} set ({error!r})") from None


def _groups(pairs: list[tuple[str, str]] | list[Any]) -> np.ndarray:
    """The connected parts of the graph whose edges the pairs are."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number: dict[str, int] = {}
    ends = np.array([[number.setdefault(text, len(number)) for text in pair] for pair in pairs])
    graph = coo_array((np.ones(len(ends)), ends.T), shape=(len(number), len(number)))
    parts = connected_components(graph, directed=False)[1]
    return np.unique(parts[ends[:, 0]], return_inverse=True)[1]
