"""Scores of rankings, pairs and summaries: pure functions on arrays, one value a query kept.

The definitions are those of MTEB and of the trec_eval programme it calls: gains are the grades
themselves, queries without judgements are left out, equal scores are ordered against the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

CUTS = (1, 3, 5, 10, 20, 100, 1000)
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
_PAIR_BLOCK = 4096

Vector = Float[np.ndarray, " N"]


def ranking_scores(
    ranked: Sequence[str], grades: Mapping[str, int], cuts: Sequence[int] = CUTS
) -> dict[str, float]:
    """nDCG, MAP, MRR, recall and precision at each cut, for one query.

    Args:
        ranked: ids of passages, best first.
        grades: judged passages; above 0 is relevant. What is not judged is not relevant.
        cuts: depths k of the names `ndcg_at_k`, `map_at_k`, `mrr_at_k`, `recall_at_k` and
            `precision_at_k`.

    A query whose judged passages are all irrelevant scores 0, as in trec_eval.
    """
    depth = max(cuts)
    gains = np.zeros(depth)
    found = [max(grades.get(name, 0), 0) for name in ranked[:depth]]
    gains[: len(found)] = found
    ideal = np.zeros(depth)
    best = sorted((g for g in grades.values() if g > 0), reverse=True)[:depth]
    ideal[: len(best)] = best
    count = sum(g > 0 for g in grades.values())
    ranks = np.arange(1, depth + 1)
    hits = np.cumsum(gains > 0)
    dcg, ideal_dcg = (np.cumsum(g / np.log2(ranks + 1)) for g in (gains, ideal))
    precision = hits / ranks
    average = np.cumsum(np.where(gains > 0, precision, 0.0)) / max(count, 1)
    first = int(np.argmax(gains > 0)) + 1 if hits[-1] else depth + 1
    scores: dict[str, float] = {}
    for k in cuts:
        scores[f"ndcg_at_{k}"] = dcg[k - 1] / ideal_dcg[k - 1] if count else 0.0
        scores[f"map_at_{k}"] = average[k - 1]
        scores[f"mrr_at_{k}"] = 1 / first if first <= k else 0.0
        scores[f"recall_at_{k}"] = hits[k - 1] / max(count, 1)
        scores[f"precision_at_{k}"] = precision[k - 1]
    return {name: float(value) for name, value in scores.items()}


def retrieval_scores(
    ranked: Sequence[Sequence[str]], grades: Sequence[Mapping[str, int]], cuts: Sequence[int] = CUTS
) -> dict[str, Float[np.ndarray, " Q"]]:
    """`ranking_scores` of every query, one array a metric; queries must have judgements.

    Raises:
        ValueError: no queries, or a query without any judgement (leave it out).
    """
    if len(ranked) != len(grades) or not ranked:
        raise ValueError(
            f"expected rankings and judgements of the same queries, at least one; got "
            f"{len(ranked)} and {len(grades)}"
        )
    for i, judged in enumerate(grades):
        if not judged:
            raise ValueError(f"query {i} has no judgements; leave such queries out")
    rows = [ranking_scores(r, g, cuts) for r, g in zip(ranked, grades, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def reranking_scores(
    scores: Vector, relevant: Bool[np.ndarray, " N"], *, relevant_first: bool = False
) -> dict[str, float]:
    """Average precision, reciprocal rank and nDCG@10 of one query's candidates.

    Args:
        scores: of the candidates, higher is better. relevant: which of them are.
        relevant_first: how equal scores are ordered; MTEB's ids put the irrelevant ones first.

    Raises:
        ValueError: no candidate is relevant (MTEB leaves such queries out).
    """
    if not relevant.any():
        raise ValueError("no candidate is relevant; leave such queries out")
    order = np.lexsort((relevant != relevant_first, -scores))
    hits = relevant[order]
    ranks = np.flatnonzero(hits) + 1
    discounts = 1 / np.log2(np.arange(2, len(hits) + 2))
    ideal = discounts[: min(10, len(ranks))].sum()
    return {
        "map": float(np.mean(np.arange(1, len(ranks) + 1) / ranks)),
        "mrr": float(1 / ranks[0]),
        "ndcg_at_10": float(discounts[:10][hits[:10]].sum() / ideal),
    }


def unit_rows(embeddings: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Embeddings in float32, scaled to length one; rows of zeros stay."""
    embeddings = np.asarray(embeddings, np.float32)
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def pair_similarities(
    first: Float[np.ndarray, "N D"], second: Float[np.ndarray, "N D"]
) -> dict[str, Vector]:
    """Similarity of each row of `first` with the same row of `second`, by each of `SIMILARITIES`.

    Distances are negated: higher always means more alike.
    """
    out = {name: np.empty(len(first), np.float32) for name in SIMILARITIES}
    for start in range(0, len(first), _PAIR_BLOCK):
        part = slice(start, start + _PAIR_BLOCK)
        a, b = (np.asarray(x[part], np.float32) for x in (first, second))
        out["cosine"][part] = (unit_rows(a) * unit_rows(b)).sum(1)
        out["dot"][part] = (a * b).sum(1)
        out["euclidean"][part] = -np.linalg.norm(a - b, axis=1)
        out["manhattan"][part] = -np.abs(a - b).sum(1)
    return out


def binary_scores(similarity: Vector, labels: Int[np.ndarray, " N"]) -> dict[str, float]:
    """How well a similarity tells pairs of label 1 from pairs of label 0.

    `ap` is the average precision; `accuracy` and `f1` (with its `precision` and `recall`) are
    those of the best threshold between two scores that differ.
    """
    order = np.argsort(-similarity, kind="stable")
    ranked, positive = similarity[order], labels[order] == 1
    hits, taken = np.cumsum(positive), np.arange(1, len(ranked) + 1)
    total = max(int(hits[-1]), 1)
    precision, recall = hits / taken, hits / total
    # A threshold cannot part equal scores: the order of the rows would leak into the score.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    average = np.sum(precision[ends] * np.diff(recall[ends], prepend=0.0))
    usable = ends[:-1]
    f1 = 2 * hits / (taken + total)
    accuracy = (hits + (len(ranked) - total) - (taken - hits)) / len(ranked)
    at = int(usable[np.argmax(f1[usable])]) if len(usable) else None
    return {
        "ap": float(average),
        "accuracy": float(accuracy[usable].max(initial=0.0)),
        "f1": 0.0 if at is None else float(f1[at]),
        "precision": 0.0 if at is None else float(precision[at]),
        "recall": 0.0 if at is None else float(recall[at]),
    }


def pair_scores(
    similarities: Mapping[str, Vector], labels: Int[np.ndarray, " N"]
) -> dict[str, float]:
    """`binary_scores` of every similarity (`cosine_ap`, `dot_f1`, ...), and the best as `max_...`.

    Raises:
        ValueError: the labels are not 0 and 1, both there.
    """
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise ValueError(f"expected labels 0 and 1, both there; got {np.unique(labels).tolist()}")
    by_name = {name: binary_scores(values, labels) for name, values in similarities.items()}
    scores = {f"{n}_{metric}": v for n, row in by_name.items() for metric, v in row.items()}
    for metric in next(iter(by_name.values())):
        scores[f"max_{metric}"] = max(row[metric] for row in by_name.values())
    return scores


def spearman(x: Any, y: Any) -> float:
    """Spearman's rank correlation; 0 where one side is constant (it has no order to agree with)."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, x, y)


def pearson(x: Any, y: Any) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, x, y)


def _correlation(function: Any, x: Any, y: Any) -> float:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nearly constant input: the value is still defined
        value = float(function(x, y).statistic)
    return value if np.isfinite(value) else 0.0


def sts_scores(similarities: Mapping[str, Vector], gold: Vector) -> dict[str, float]:
    """Spearman and Pearson of cosine, Euclidean and Manhattan similarity with the human scores."""
    scores = {}
    for name in ("cosine", "euclidean", "manhattan"):
        scores[f"{name}_spearman"] = spearman(similarities[name], gold)
        scores[f"{name}_pearson"] = pearson(similarities[name], gold)
    return scores


def summary_scores(
    cosines: Float[np.ndarray, "M H"], relevance: Float[np.ndarray, " M"]
) -> dict[str, float]:
    """One text's machine summaries against the judgements of people.

    A machine summary counts as its best cosine with a human one (`mean_cosine_...`: its mean one).
    NaN where judgements or predictions are all alike: such texts are left out of the mean.

    Args:
        cosines: of M machine summaries with H human ones.
    """
    best, mean = cosines.max(axis=1), cosines.mean(axis=1)
    if np.ptp(relevance) == 0 or np.ptp(best) == 0:
        return dict.fromkeys(("cosine_spearman", "cosine_pearson", "mean_cosine_spearman"), np.nan)
    return {
        "cosine_spearman": spearman(best, relevance),
        "cosine_pearson": pearson(best, relevance),
        "mean_cosine_spearman": spearman(mean, relevance),
    }
