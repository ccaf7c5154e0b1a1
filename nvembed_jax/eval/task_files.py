"""The files of a task folder into checked rows; whatever is wrong is told as `FILE:LINE: ...`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from nvembed_jax.data.records import read_records
from nvembed_jax.eval.task_rows import (
    Row,
    binary_label_of,
    evaluated,
    label_of,
    number_of,
    numbers_of,
    read_rows,
    split_of,
    text_of,
    texts_of,
)

_QRELS_HEADER = "query-id\tcorpus-id\tscore"


class Retrieval(NamedTuple):
    """Queries and judgements; the corpus stays on disk, only its ids are held."""

    corpus: Path
    corpus_ids: tuple[str, ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    qrels: dict[str, dict[str, int]]


class Classification(NamedTuple):
    """Labelled texts to train on, and to test on."""

    train_texts: tuple[str, ...]
    train_labels: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...]


class Clustering(NamedTuple):
    """Labelled texts."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


class Pairs(NamedTuple):
    """Pairs of texts with a score (sts) or a label 0 or 1 (pair classification)."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: Float[np.ndarray, " N"]


class Reranking(NamedTuple):
    """Queries, each with its candidates."""

    queries: tuple[str, ...]
    positive: tuple[tuple[str, ...], ...]
    negative: tuple[tuple[str, ...], ...]


class Summarization(NamedTuple):
    """Texts, each with summaries by people and by machines, and what people think of the latter."""

    human: tuple[tuple[str, ...], ...]
    machine: tuple[tuple[str, ...], ...]
    relevance: tuple[Float[np.ndarray, " M"], ...]


Data = Retrieval | Classification | Clustering | Pairs | Reranking | Summarization


def read_data(folder: Path, type: str) -> tuple[Data, str]:
    """The data of a folder of this type of task, and the split they are of ("all": no splits).

    Raises:
        FileNotFoundError: a file of the layout is missing. ValueError: `FILE:LINE: what is wrong`.
    """
    return _READERS[type](folder)


def data_files(folder: Path, type: str) -> list[Path]:
    """The files that a task of this type consists of, besides task.json.

    Raises:
        FileNotFoundError: one is missing; .jsonl stands in for .jsonl.gz.
    """
    names = {"retrieval": ("corpus", "queries"), "pair_classification": ("pairs",)}
    paths = [_jsonl(folder, name) for name in names.get(type, (type,))]
    if type == "retrieval":
        if not (folder / "qrels.tsv").is_file():
            raise FileNotFoundError(
                f"{folder / 'qrels.tsv'}: no such file; it holds the judgements"
            )
        paths.append(folder / "qrels.tsv")
    return paths


def _jsonl(folder: Path, name: str) -> Path:
    for suffix in (".jsonl.gz", ".jsonl"):
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise FileNotFoundError(f"{folder / name}.jsonl.gz: no such file; the type of task needs it")


def _retrieval(folder: Path) -> tuple[Data, str]:
    corpus, queries_path, qrels_path = data_files(folder, "retrieval")
    corpus_ids = tuple(record.id for record in read_records(corpus))
    queries = list(read_records(queries_path))
    query_ids = tuple(record.id for record in queries)
    qrels = _qrels(qrels_path, frozenset(query_ids), frozenset(corpus_ids))
    texts = tuple(record.text for record in queries)
    return Retrieval(corpus, corpus_ids, query_ids, texts, qrels), "all"


def _qrels(
    path: Path, query_ids: frozenset[str], corpus_ids: frozenset[str]
) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            query, passage, grade = _cells(line, where)
            if number == 1:
                if _is_int(grade):
                    raise ValueError(
                        f"{where}: no header; expected {_QRELS_HEADER!r} in the first line"
                    )
                continue
            if not _is_int(grade):
                raise ValueError(f"{where}: the score {grade!r} is no whole number")
            for name, known, place in (
                (query, query_ids, "the queries"),
                (passage, corpus_ids, "the corpus"),
            ):
                if name not in known:
                    raise ValueError(f"{where}: the id {name!r} does not stand in {place}")
            qrels.setdefault(query, {})[passage] = int(grade)
    if not qrels:
        raise ValueError(f"{path}: no judgements in it; expected at least one")
    if not any(grade > 0 for grades in qrels.values() for grade in grades.values()):
        raise ValueError(f"{path}: no score is above 0: no query has a relevant passage")
    return qrels


def _cells(line: bytes, where: str) -> list[str]:
    try:
        cells = line.decode().rstrip("\r\n").split("\t")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 at byte {error.start + 1} of the line") from None
    if len(cells) != 3:
        raise ValueError(f"{where}: {len(cells)} cells; expected three, as in {_QRELS_HEADER!r}")
    return cells


def _classification(folder: Path) -> tuple[Data, str]:
    path = data_files(folder, "classification")[0]
    rows = list(read_rows(path))
    train = [row for row in rows if split_of(row) == "train"]
    test, split = evaluated(rows)
    if not train or split == "all":
        raise ValueError(
            f"{path}: expected rows of split 'train' and of split 'test' (or 'validation'); got "
            f"{len(train)} and {len(rows) - len(train)}"
        )
    train_texts, texts = (tuple(text_of(row, "text") for row in part) for part in (train, test))
    train_labels, labels = (tuple(label_of(row) for row in part) for part in (train, test))
    _at_least_two(train_labels, f"{path}: of split 'train'")
    return Classification(train_texts, train_labels, texts, labels), split


def _clustering(folder: Path) -> tuple[Data, str]:
    path = data_files(folder, "clustering")[0]
    rows, split = evaluated(list(read_rows(path)))
    labels = tuple(label_of(row) for row in rows)
    _at_least_two(labels, str(path))
    return Clustering(tuple(text_of(row, "text") for row in rows), labels), split


def _pairs(name: str, gold: Callable[[Row], float]) -> Callable[[Path], tuple[Data, str]]:
    def read(folder: Path) -> tuple[Data, str]:
        path = data_files(folder, name)[0]
        rows, split = evaluated(list(read_rows(path)))
        values = np.array([gold(row) for row in rows])
        if np.ptp(values) == 0:
            raise ValueError(
                f"{path}: every row of split {split!r} has the same "
                f"{'score' if name == 'sts' else 'label'}, {values[0]:g}; nothing can be measured"
            )
        first, second = (tuple(text_of(row, key) for row in rows) for key in ("text1", "text2"))
        return Pairs(first, second, values), split

    return read


def _reranking(folder: Path) -> tuple[Data, str]:
    path = data_files(folder, "reranking")[0]
    rows, split = evaluated(list(read_rows(path)))
    queries = tuple(text_of(row, "query") for row in rows)
    positive, negative = (
        tuple(texts_of(row, key) for row in rows) for key in ("positive", "negative")
    )
    if not any(p and n for p, n in zip(positive, negative, strict=True)):
        raise ValueError(f"{path}: no row has both a positive and a negative; nothing to rank")
    return Reranking(queries, positive, negative), split


def _summarization(folder: Path) -> tuple[Data, str]:
    path = data_files(folder, "summarization")[0]
    rows, split = evaluated(list(read_rows(path)))
    human, machine = (
        tuple(texts_of(row, f"{key}_summaries") for row in rows) for key in ("human", "machine")
    )
    relevance = tuple(numbers_of(row, "relevance") for row in rows)
    for row, people, machines, judged in zip(rows, human, machine, relevance, strict=True):
        if not people or not machines or len(machines) != len(judged):
            raise ValueError(
                f"{row.where}: {len(people)} human_summaries, {len(machines)} machine_summaries, "
                f"{len(judged)} relevance; expected at least one of each, as many of the last two"
            )
    return Summarization(human, machine, relevance), split


def _at_least_two(labels: Sequence[str], where: str) -> None:
    if len(set(labels)) < 2:
        raise ValueError(f"{where}: one label only, {labels[0]!r}; expected at least two")


def _is_int(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[Path], tuple[Data, str]]] = {
    "retrieval": _retrieval,
    "classification": _classification,
    "clustering": _clustering,
    "sts": _pairs("sts", lambda row: number_of(row, "score")),
    "pair_classification": _pairs("pair_classification", binary_label_of),
    "reranking": _reranking,
    "summarization": _summarization,
}
