"""Task folders in the shape of mteb's tasks, and mteb's tasks in the shape of ours.

Knows mteb's conventions, and imports nothing of it: see `mteb_encoder`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.data.records import read_records
from nvembed_jax.eval.scoring import Settings, judged_queries, sampled
from nvembed_jax.eval.task_files import (
    Classification,
    Clustering,
    Pairs,
    Reranking,
    Retrieval,
    Summarization,
)
from nvembed_jax.eval.tasks import Task
from nvembed_jax.text.instructions import MTEB_INSTRUCTIONS

MTEB_TYPES = {
    "classification": "Classification",
    "clustering": "Clustering",
    "pair_classification": "PairClassification",
    "reranking": "Reranking",
    "retrieval": "Retrieval",
    "sts": "STS",
    "summarization": "Summarization",
}
_OTHER_SCORES = {"map": "map_at_1000", "mrr": "mrr_at_1000"}  # of reranking, whole lists in both
_SIMILAR = "Retrieve semantically similar text."
_ANSWERS = "Given a question, retrieve passages that answer the question"
_BY_TYPE = {
    "Classification": "Classify the given text",
    "Clustering": "Identify the topic or theme of the given text",
    "MultilabelClassification": "Identify all categories of the given text",
    "PairClassification": "Retrieve texts that are semantically similar to the given text",
    "Summarization": "Given a summary, retrieve other semantically similar summaries",
    **dict.fromkeys(("Retrieval", "InstructionRetrieval"), _ANSWERS),
    **dict.fromkeys(("Reranking", "InstructionReranking"), _ANSWERS),
}

Rows = list[dict[str, Any]]


def require_mteb() -> None:
    """Raises an ImportError that says what to install where mteb is missing."""
    if find_spec("mteb") is None:
        raise ImportError('mteb is missing: pip install "mteb>=2.26"')


@dataclass(frozen=True, kw_only=True)
class MtebTask:
    """A task of mteb's, which loads and scores it; `evaluate` takes it beside our `Task`s.

    Attributes:
        type: as ours, where we have it. folder: where its data comes from.
        fingerprint: revision of the data. source: mteb's own object.
    """

    name: str
    type: str
    main_score: str
    split: str
    folder: Path
    fingerprint: str
    source: Any


def as_ours(task: Any) -> MtebTask:
    """A task object of mteb's as an `MtebTask`; types that we do not have keep mteb's name."""
    facts = task.metadata
    ours = [ours for ours, theirs in MTEB_TYPES.items() if theirs == facts.type]
    return MtebTask(
        name=facts.name,
        type=ours[0] if ours else facts.type,
        main_score=facts.main_score,
        split=", ".join(task.eval_splits),
        folder=Path(facts.dataset["path"]),
        fingerprint=f"{facts.dataset['revision']} {', '.join(task.hf_subsets)}",
        source=task,
    )


def mean_metrics(scores: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, float]:
    """The mean of every metric over the splits and subsets of a result of mteb's."""
    rows = [row for split in scores.values() for row in split]
    names = [name for name, value in rows[0].items() if isinstance(value, float | int)]
    names = [name for name in names if all(np.isfinite(row.get(name, np.nan)) for row in rows)]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def instruction_by_name_or_type(name: str, type: str) -> str:
    """Our instruction of an mteb task that brings none: by its name, else by mteb's type."""
    known = MTEB_INSTRUCTIONS.get(name)
    return known.instruction if known else _BY_TYPE.get(type, _SIMILAR)


def mteb_split(task: Task) -> str:
    """The split as mteb wants one named; without splits it is "test"."""
    return "test" if task.split == "all" else task.split


def mteb_score_name(type: str, name: str) -> str | None:
    """mteb's name of one of our metrics; None where it has no such metric."""
    if type == "reranking":
        return _OTHER_SCORES.get(name, name)
    return None if name == "mean_cosine_spearman" else name


def mteb_main_score(task: Task) -> str:
    """mteb's name of the task's main score.

    Raises:
        ValueError: mteb does not compute it.
    """
    name = mteb_score_name(task.type, task.main_score)
    if name is None:
        raise ValueError(
            f"{task.folder}: mteb computes no {task.main_score}; expected cosine_spearman or "
            f"cosine_pearson as main_score"
        )
    return name


def corpus_rows(data: Retrieval) -> Iterator[dict[str, str]]:
    """The passages {id, title, text}, one at a time."""
    for record in read_records(data.corpus):
        yield {"id": record.id, "title": record.title, "text": record.text}


def query_rows(data: Retrieval, settings: Settings) -> tuple[Rows, dict[str, dict[str, int]]]:
    """The judged queries that are scored, and their judgements."""
    rows = judged_queries(data, settings)
    queries = [{"id": data.query_ids[i], "text": data.queries[i]} for i in rows]
    return queries, {data.query_ids[i]: dict(data.qrels[data.query_ids[i]]) for i in rows}


def reranking_rows(data: Reranking) -> tuple[Rows, Rows, dict[str, dict[str, int]]]:
    """Candidates as a corpus of their own, queries, and judgements of every candidate.

    Of equal scores the higher id comes first, so with these ids the irrelevant candidates do.
    """
    corpus: Rows = []
    queries: Rows = []
    qrels: dict[str, dict[str, int]] = {}
    for i, (query, *candidates) in enumerate(zip(*data, strict=True)):
        if not all(candidates):
            continue
        queries.append({"id": f"q{i}", "text": query})
        qrels[f"q{i}"] = {}
        for relevant, texts in zip((1, 0), candidates, strict=True):
            for j, text in enumerate(texts):
                id_ = f"{'a' if relevant else 'n'}{i}-{j:05}"
                corpus.append({"id": id_, "title": "", "text": text})
                qrels[f"q{i}"][id_] = relevant
    return corpus, queries, qrels


def task_attributes(task: Task, settings: Settings) -> dict[str, Any]:
    """Attributes of mteb's task that decide how it is scored, where its defaults do not do."""
    if task.type == "clustering":
        return {"max_fraction_of_documents_to_embed": None}
    if task.type == "classification":
        return {"samples_per_label": settings.per_label}
    if task.type == "sts":
        return _range(task.data.gold)  # type: ignore[union-attr]
    if task.type == "summarization":
        return _range(np.concatenate(task.data.relevance))  # type: ignore[union-attr]
    return {}


def dataset_of(task: Task, settings: Settings, folder: str) -> Any:
    """What mteb's task holds as its `dataset`; the corpus of a retrieval task goes to `folder`."""
    from datasets import Dataset, DatasetDict

    if task.type not in ("retrieval", "reranking"):
        parts = _ROWS[task.type](task, settings)
        return DatasetDict({split: Dataset.from_list(rows) for split, rows in parts.items()})
    data: Any = task.data
    if task.type == "retrieval":
        queries, qrels = query_rows(data, settings)
        corpus: Any = Dataset.from_generator(partial(corpus_rows, data), cache_dir=folder)
    else:
        rows, queries, qrels = reranking_rows(data)
        corpus = Dataset.from_list(rows)
    candidates = None if task.type == "retrieval" else {id_: list(g) for id_, g in qrels.items()}
    parts = {"corpus": corpus, "queries": Dataset.from_list(queries), "relevant_docs": qrels}
    return {"default": {mteb_split(task): {**parts, "top_ranked": candidates}}}


def _range(values: np.ndarray) -> dict[str, float]:
    """Bounds that mteb scales scores by, which moves no correlation; never of no width."""
    low, high = float(values.min()), float(values.max())
    return {"min_score": low, "max_score": high if high > low else low + 1}


def _classification(task: Task, settings: Settings) -> dict[str, Rows]:
    data = task.data
    assert isinstance(data, Classification)
    # The order of the classes is part of a fit: numbers, in the order that the names sort in.
    names = sorted({*data.train_labels, *data.labels})
    code = {name: i for i, name in enumerate(names)}
    test = sampled(len(data.texts), settings.limit, random.Random(settings.seed))
    train = zip(data.train_texts, data.train_labels, strict=True)
    return {
        "train": [{"text": text, "label": code[label]} for text, label in train],
        mteb_split(task): [{"text": data.texts[i], "label": code[data.labels[i]]} for i in test],
    }


def _clustering(task: Task, settings: Settings) -> dict[str, Rows]:
    data = task.data
    assert isinstance(data, Clustering)
    limit = None if settings.limit is None else 2 * settings.limit
    rows = sampled(len(data.texts), limit, random.Random(settings.seed))
    pairs = [{"sentences": data.texts[i], "labels": data.labels[i]} for i in rows]
    return {mteb_split(task): pairs}


def _pairs(task: Task, settings: Settings) -> dict[str, Rows]:
    data = task.data
    assert isinstance(data, Pairs)
    sts = task.type == "sts"
    return {
        mteb_split(task): [
            {"sentence1": a, "sentence2": b, **({"score": gold} if sts else {"labels": int(gold)})}
            for a, b, gold in zip(data.first, data.second, data.gold.tolist(), strict=True)
        ]
    }


def _summarization(task: Task, settings: Settings) -> dict[str, Rows]:
    data = task.data
    assert isinstance(data, Summarization)
    return {
        mteb_split(task): [
            {"text": "", "human_summaries": list(human), "machine_summaries": list(machine),
             "relevance": relevance.tolist()}
            for human, machine, relevance in zip(*data, strict=True)
        ]
    }  # fmt: skip


_ROWS: dict[str, Callable[[Task, Settings], dict[str, Rows]]] = {
    "classification": _classification,
    "clustering": _clustering,
    "pair_classification": _pairs,
    "sts": _pairs,
    "summarization": _summarization,
}
