"""One system on one task: which rows, what is encoded how, and the scores with their examples.

Two protocols. "mteb" (the default) has MTEB's definitions; its own seed is 42. "quick" needs fewer
fits: classification draws 16 examples a class 5 times, clustering runs on all texts with 3 seeds,
and equal scores keep the order of the files.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from nvembed_jax.eval import metrics, probes
from nvembed_jax.eval.systems import Dense, System
from nvembed_jax.eval.task_files import (
    Classification,
    Clustering,
    Pairs,
    Reranking,
    Retrieval,
    Summarization,
)
from nvembed_jax.eval.tasks import Task

PROTOCOLS = ("mteb", "quick")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How tasks are scored.

    Attributes:
        protocol: "mteb" or "quick", see the module.
        limit: queries (retrieval) or test texts (classification) that are scored at most, twice as
            many texts in clustering; the other types are scored whole.
        seed: of the samples and of the fits.
        samples_per_label: training texts a class in classification; None: the protocol's, 8 or 16.
    """

    protocol: str = "mteb"
    limit: int | None = None
    seed: int = 0
    samples_per_label: int | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(
                f"protocol must be one of {', '.join(PROTOCOLS)}; got {self.protocol!r}"
            )
        for name in ("limit", "samples_per_label"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or None; got {value}")

    @property
    def quick(self) -> bool:
        """Whether the protocol is the shorter one."""
        return self.protocol == "quick"

    @property
    def per_label(self) -> int:
        """Training texts a class."""
        return self.samples_per_label or (16 if self.quick else 8)


class Outcome(NamedTuple):
    """Scores of one system on one task.

    Attributes:
        scores: every metric, 0 to 1 (correlations -1 to 1).
        examples: what the main score is computed from, a row a query, pair, text or draw.
        left_out: queries or texts that MTEB's definitions do not count: without judgements, without
            a positive or a negative, or with summaries that are all alike.
    """

    scores: dict[str, float]
    examples: dict[str, np.ndarray]
    left_out: int = 0


def score_task(task: Task, system: System, settings: Settings) -> Outcome:
    """Scores `system` on `task`.

    Raises:
        ValueError: embeddings with NaN, or nothing left to score.
    """
    if task.type in ("retrieval", "reranking"):
        return _RANKED[task.type](task, system, settings)
    if not isinstance(system, Dense):
        raise ValueError(f"{task.name}: a baseline without embeddings cannot score {task.type}")
    return _EMBEDDED[task.type](task, system, settings)


def mean_scores(per_example: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean of each metric; examples that are NaN are left out (none left: 0)."""
    return {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
        for name, values in per_example.items()
    }


def _retrieval(task: Task, system: System, settings: Settings) -> Outcome:
    data = task.data
    assert isinstance(data, Retrieval)
    judged = judged_queries(data, settings)
    picked = min(settings.limit or len(data.queries), len(data.queries))
    if not judged:
        raise ValueError(f"{task.folder}: none of the {picked} queries has judgements")
    rows = system.rank(
        data,
        [data.queries[i] for i in judged],
        task.instruction,
        min(max(metrics.CUTS), len(data.corpus_ids)),
        tie_order(data.corpus_ids, settings.quick),
    )
    per_query = metrics.retrieval_scores(
        [[data.corpus_ids[row] for row in ranked] for ranked in rows],
        [data.qrels[data.query_ids[i]] for i in judged],
    )
    ids = np.array([data.query_ids[i] for i in judged])
    return Outcome(mean_scores(per_query), {"id": ids, **per_query}, picked - len(judged))


def judged_queries(data: Retrieval, settings: Settings) -> list[int]:
    """Rows of the queries that are scored: the sample, less those without judgements."""
    rng = random.Random(settings.seed)
    picked = sampled(len(data.queries), settings.limit, rng)
    return [i for i in picked if data.query_ids[i] in data.qrels]


def tie_order(ids: Sequence[str], by_row: bool) -> Int[np.ndarray, " P"]:
    """The order of passages of equal score: by row, or as trec_eval has it, the higher id first."""
    if by_row:
        return np.arange(len(ids))
    order = np.empty(len(ids), np.int64)
    order[sorted(range(len(ids)), key=ids.__getitem__, reverse=True)] = np.arange(len(ids))
    return order


def _reranking(task: Task, system: System, settings: Settings) -> Outcome:
    data = task.data
    assert isinstance(data, Reranking)
    usable = [i for i, (p, n) in enumerate(zip(*data[1:], strict=True)) if p and n]
    scores = system.score_candidates(
        [data.queries[i] for i in usable],
        [[text.strip() for text in (*data.positive[i], *data.negative[i])] for i in usable],
        task.instruction,
    )
    rows = [
        metrics.reranking_scores(
            values,
            np.arange(len(values)) < len(data.positive[i]),
            relevant_first=settings.quick,
        )
        for i, values in zip(usable, scores, strict=True)
    ]
    per_query = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    left_out = len(data.queries) - len(usable)
    return Outcome(mean_scores(per_query), {"id": np.array(usable), **per_query}, left_out)


def _classification(task: Task, system: Dense, settings: Settings) -> Outcome:
    data = task.data
    assert isinstance(data, Classification)
    rng = random.Random(settings.seed)
    test = sampled(len(data.texts), settings.limit, rng)
    if settings.quick:
        draws = probes.quick_draws(data.train_labels, settings.per_label, 5, rng)
    else:
        draws = probes.few_shot_draws(data.train_labels, settings.per_label, 10, settings.seed)
    used = np.unique(np.concatenate(draws))
    texts = [*(data.train_texts[i] for i in used), *(data.texts[i] for i in test)]
    embeddings = _embed(task, system, settings, texts)
    predictions = probes.classify(
        embeddings[: len(used)],
        [data.train_labels[i] for i in used],
        embeddings[len(used) :],
        [data.labels[i] for i in test],
        [np.searchsorted(used, draw) for draw in draws],
        settings.seed,
    )
    scores = probes.classification_scores(*predictions)
    return Outcome(scores, {"id": np.array(test), **predictions._asdict()})


def _clustering(task: Task, system: Dense, settings: Settings) -> Outcome:
    data = task.data
    assert isinstance(data, Clustering)
    limit = None if settings.limit is None else 2 * settings.limit
    rows = sampled(len(data.texts), limit, random.Random(settings.seed))
    labels = [data.labels[i] for i in rows]
    embeddings = _embed(task, system, settings, [data.texts[i] for i in rows])
    if settings.quick:
        values = probes.cluster_whole(embeddings, labels, 3)
    else:
        values = probes.cluster_draws(embeddings, labels, 10, settings.seed)
    scores = {"v_measure": float(values.mean()), "v_measure_std": float(values.std())}
    return Outcome(scores, {"id": np.arange(len(values)), "v_measure": values})


def _pairs(task: Task, system: Dense, settings: Settings) -> Outcome:
    data = task.data
    assert isinstance(data, Pairs)
    embeddings = _embed(task, system, settings, [*data.first, *data.second])
    halves = embeddings[: len(data.first)], embeddings[len(data.first) :]
    similarities = metrics.pair_similarities(*halves)
    if task.type == "sts":
        scores = metrics.sts_scores(similarities, data.gold)
    else:
        scores = metrics.pair_scores(similarities, data.gold.astype(np.int64))
    examples = {"id": np.arange(len(data.gold)), "gold": data.gold, **similarities}
    return Outcome(scores, examples)


def main_score_of(type: str, main_score: str, examples: Mapping[str, np.ndarray]) -> float:
    """The main score again, from (some of) the examples of an `Outcome`."""
    if type == "sts":
        similarity, _, kind = main_score.partition("_")
        correlation = metrics.spearman if kind == "spearman" else metrics.pearson
        return correlation(examples[similarity], examples["gold"])
    if type == "pair_classification":
        similarity, _, metric = main_score.partition("_")
        names = metrics.SIMILARITIES if similarity == "max" else (similarity,)
        labels = examples["gold"].astype(np.int64)
        return max(metrics.binary_scores(examples[name], labels)[metric] for name in names)
    if type == "classification" and main_score == "accuracy":
        return probes.mean_accuracy(examples["gold"], examples["predicted"])
    if type == "classification":
        return probes.classification_scores(examples["gold"], examples["predicted"])[main_score]
    return mean_scores({main_score: examples[main_score]})[main_score]


def _summarization(task: Task, system: Dense, settings: Settings) -> Outcome:
    data = task.data
    assert isinstance(data, Summarization)
    groups = [group for pair in zip(data.human, data.machine, strict=True) for group in pair]
    embeddings = _embed(task, system, settings, [text for group in groups for text in group])
    ends = np.cumsum([len(group) for group in groups])[:-1]
    parts = np.split(metrics.unit_rows(embeddings), ends)
    rows = [
        metrics.summary_scores(machine @ human.T, relevance)
        for human, machine, relevance in zip(parts[::2], parts[1::2], data.relevance, strict=True)
    ]
    per_text = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    alike = int(np.isnan(per_text["cosine_spearman"]).sum())
    return Outcome(mean_scores(per_text), {"id": np.arange(len(rows)), **per_text}, alike)


def _embed(task: Task, system: Dense, settings: Settings, texts: Sequence[str]) -> np.ndarray:
    embeddings = system.embed(texts, task.instruction)
    return metrics.unit_rows(embeddings) if settings.quick else embeddings


def sampled(count: int, limit: int | None, rng: random.Random) -> list[int]:
    """At most `limit` of the rows 0 ... `count`, in the order drawn; all of them in theirs."""
    return rng.sample(range(count), limit) if limit and count > limit else list(range(count))


_RANKED: dict[str, Callable[[Task, System, Settings], Outcome]] = {
    "retrieval": _retrieval,
    "reranking": _reranking,
}
_EMBEDDED: dict[str, Callable[[Task, Any, Settings], Outcome]] = {
    "classification": _classification,
    "clustering": _clustering,
    "pair_classification": _pairs,
    "sts": _pairs,
    "summarization": _summarization,
}
