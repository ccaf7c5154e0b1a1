"""What a change of model does to search: the rankings of two systems over the same queries."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from nvembed_jax.data.records import Record
from nvembed_jax.data.writers import write_text
from nvembed_jax.search.index import IndexRequest, SearchIndex, build_index


class Change(NamedTuple):
    """One query before and after: ids of both rankings, best first."""

    query: str
    overlap: float
    correlation: float
    first: list[str]
    second: list[str]


@dataclass(frozen=True, kw_only=True)
class RankingComparison:
    """How far two systems agree.

    Attributes:
        overlap: mean share of the k best that both have. correlation: mean Kendall's tau-b over
            what either has among its k best; what one lacks stands behind its last.
        same_first: share of the queries with the same best text.
        intervals: of those three, by name: (low, high) of 95 % of bootstrap samples of the queries.
        changes: all queries, those that changed most first.
    """

    k: int
    queries: int
    overlap: float
    correlation: float
    same_first: float
    intervals: dict[str, tuple[float, float]]
    changes: list[Change]

    def save(self, path: str | Path) -> None:
        """Writes all of it as JSON."""
        data = asdict(self) | {"changes": [change._asdict() for change in self.changes]}
        write_text(Path(path), json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def compare_rankings(
    queries: Sequence[str],
    first: Sequence[Sequence[str]],
    second: Sequence[Sequence[str]],
    k: int,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> RankingComparison:
    """Compares the k best of two systems for the same queries.

    Args:
        first, second: ids for each query, best first, without repetitions.

    Raises:
        ValueError: no queries, rankings of other queries, or one that holds an id twice.
    """
    if not queries or not len(queries) == len(first) == len(second):
        raise ValueError(
            f"expected two rankings for each of at least one query; got {len(queries)} queries, "
            f"{len(first)} and {len(second)} rankings"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    changes = []
    for query, one, other in zip(queries, first, second, strict=True):
        before, after = list(one)[:k], list(other)[:k]
        for ranking in (before, after):
            if len(set(ranking)) != len(ranking):
                raise ValueError(f"the ranking for {query!r} holds an id twice")
        changes.append(
            Change(query, overlap(before, after), rank_correlation(before, after), before, after)
        )
    values = np.array(
        [[c.overlap, c.correlation, float(c.first[:1] == c.second[:1])] for c in changes]
    )
    means = values.mean(axis=0).tolist()
    names = ("overlap", "correlation", "same_first")
    bounds = _intervals(values, samples, seed)
    return RankingComparison(
        k=k,
        queries=len(queries),
        **dict(zip(names, means, strict=True)),
        intervals=dict(zip(names, bounds, strict=True)),
        changes=sorted(changes, key=lambda change: (change.overlap, change.correlation)),
    )


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of ids that both rankings have, of the longer one; 1 for two empty ones."""
    longest = max(len(first), len(second))
    return len(set(first) & set(second)) / longest if longest else 1.0


def rank_correlation(first: Sequence[str], second: Sequence[str]) -> float:
    """Kendall's tau-b over the ids of both; an id that a ranking lacks stands behind its last one.

    1 for equal rankings. Source: Fagin, Kumar and Sivakumar 2003, comparing top k lists.
    """
    if list(first) == list(second):
        return 1.0
    from scipy.stats import kendalltau

    places = [{id_: place for place, id_ in enumerate(ranking)} for ranking in (first, second)]
    union = list(dict.fromkeys([*first, *second]))
    ranks = [[place.get(id_, len(place)) for id_ in union] for place in places]
    result: Any = kendalltau(*ranks)
    return float(result.statistic) if np.isfinite(result.statistic) else 0.0


def rank_index(index: SearchIndex, model: Any, queries: list[str], k: int, **encoding: Any) -> Any:
    """The ids of an index folder's k best texts for each query.

    Args:
        model: of the index. encoding: options of `model.encode_query`, say `task`.

    Raises:
        ValueError: the index was made with another model.
    """
    made = index.meta["model"]
    if made["fingerprint"] != model.fingerprint:
        raise ValueError(
            f"{index.folder}: was made with model {made['name']} ({made['fingerprint']}), not with "
            f"{model.fingerprint}"
        )
    embeddings = model.encode_query(queries, **encoding)
    found = index.search(embeddings, min(k, index.num_documents))
    return [[hit.id for hit in hits] for hits in found]


def rank_corpus(
    records: Callable[[], Iterable[Record]],
    model: Any,
    queries: list[str],
    k: int,
    *,
    task: str | None = None,
    encoding: dict[str, Any] | None = None,
    block: int = 1024,
) -> list[list[str]]:
    """The ids of the k best of a corpus for each query; its embeddings stand on the disk meanwhile.

    Args:
        records: gives the corpus from its start. task: of the queries.
        encoding: further options of both calls. block: texts encoded at once.
    """
    options = {"show_progress_bar": False, **(encoding or {})}
    with tempfile.TemporaryDirectory(prefix="nvembed-") as folder:
        request = IndexRequest(
            records=records,
            digest="",
            model=model,
            model_name=model.config.name,
            encoding=options,
            block=block,
        )
        index = build_index(Path(folder, "index"), request)
        return rank_index(index, model, queries, k, task=task, **options)


def _intervals(
    values: Float[np.ndarray, "Q M"], samples: int, seed: int
) -> list[tuple[float, float]]:
    rng = np.random.default_rng(seed)
    means = np.stack(
        [values[rng.integers(len(values), size=len(values))].mean(axis=0) for _ in range(samples)]
    )
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
