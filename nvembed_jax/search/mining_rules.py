"""Which candidates may serve as hard negatives: pure functions on scores (arXiv 2407.15831).

A candidate is kept while it scores below a limit that depends on the positive, so that texts that
answer the query as well as the positive does (false negatives) are left out.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nvembed_jax.data.examples import DEFAULT_GROUP_KEY
from nvembed_jax.search.topk import PASSAGE_BLOCK

# method -> default threshold; None: the method has none
METHODS: dict[str, float | int | None] = {
    "perc-pos": 0.95,
    "margin-pos": 0.05,
    "abs": 0.7,
    "shifted": 10,
    "naive": None,
    "random": None,
}
POSITIVES = ("min", "max", "each")
COMBINE = ("average", "intersect")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A mining method with its threshold.

    Attributes:
        method: "naive": every candidate; "shifted": all but the first `threshold`; "abs": score
            below `threshold`; "margin-pos": below positive - threshold; "perc-pos": below
            threshold * positive; "random": drawn from the whole pool, scores do not matter.
        threshold: None: the method's default, as in the paper.
        positives: which of several positives sets the limit: "min" (the lowest, the most careful),
            "max", or "each" (a row of its own for every positive).

    Raises:
        ValueError: an unknown name, or a threshold that means nothing to the method.
    """

    method: str = "perc-pos"
    threshold: float | int | None = None
    positives: str = "min"

    def __post_init__(self) -> None:
        _check_name("method", self.method, tuple(METHODS))
        _check_name("positives", self.positives, POSITIVES)
        default, given = METHODS[self.method], self.threshold
        if given is None:
            object.__setattr__(self, "threshold", default)
            return
        if default is None:
            raise ValueError(f"method {self.method!r} has no threshold; got {given}: leave it away")
        reason = _threshold_error(self.method, given)
        if reason:
            raise ValueError(f"the threshold of {self.method!r} {reason}; got {given}")


@dataclass(frozen=True, kw_only=True)
class MiningOptions:
    """How to mine.

    Attributes:
        rule: method, threshold, and which of several positives counts.
        negatives: wanted for each query; fewer where the pool or the rule gives fewer.
        depth: candidates looked at for each query; four times as many, again and again up to
            `max_depth`, where too few of them pass.
        sample: draw the negatives from the first `sample` that pass; None: take the first ones.
        seed: of `sample` and of the method "random".
        combine: with several teachers: "average" of the standardised scores, or "intersect": a
            candidate must also pass the rule on each teacher's own scores.
        task: task description of the queries that have none; None: the model's default.
        pool_negatives: negatives that stand in the pairs join the pool (without a corpus).
        group_key: the key whose equal values mark rows as positives of each other.
        query_block, passage_block: queries and passages scored at a time.

    Raises:
        ValueError: a number out of its range, or an unknown `combine`.
    """

    rule: Rule = field(default_factory=Rule)
    negatives: int = 7
    depth: int = 100
    max_depth: int = 2000
    sample: int | None = None
    seed: int = 0
    combine: str = "average"
    task: str | None = None
    pool_negatives: bool = False
    group_key: str = DEFAULT_GROUP_KEY
    query_block: int = 1024
    passage_block: int = PASSAGE_BLOCK

    def __post_init__(self) -> None:
        if self.negatives < 1 or self.depth < 1:
            raise ValueError(
                f"negatives and depth must be at least 1; got {self.negatives} and {self.depth}"
            )
        if self.max_depth < self.depth:
            raise ValueError(
                f"max_depth must be at least depth, {self.depth}; got {self.max_depth}"
            )
        if self.sample is not None and self.sample < self.negatives:
            raise ValueError(
                f"sample must be at least the {self.negatives} negatives wanted; got {self.sample}"
            )
        _check_name("combine", self.combine, COMBINE)


@dataclass(kw_only=True)
class MiningReport:
    """What was mined.

    Attributes:
        queries: rows written. pool: texts that could become negatives.
        negatives: mined in all. wanted: for each query.
        candidates: looked at among the first `depth` of each query, known positives not counted.
        filtered: of those, rejected by the rule. known: left out as known positives or own text.
        short, none: rows with fewer negatives than wanted, and with none at all.
        replaced: rows whose own negatives gave way to the mined ones.
    """

    queries: int = 0
    pool: int = 0
    negatives: int = 0
    wanted: int = 0
    candidates: int = 0
    filtered: int = 0
    known: int = 0
    short: int = 0
    none: int = 0
    replaced: int = 0

    @property
    def mean_negatives(self) -> float:
        """Negatives a query."""
        return self.negatives / max(self.queries, 1)

    @property
    def filtered_fraction(self) -> float:
        """The share of the candidates looked at that the rule rejected."""
        return self.filtered / max(self.candidates, 1)

    def to_json(self) -> dict[str, Any]:
        """All counts, and the two figures made of them."""
        return {
            **asdict(self),
            "mean_negatives": self.mean_negatives,
            "filtered_fraction": self.filtered_fraction,
        }


def reduce_positives(
    scores: Sequence[Float[np.ndarray, " _"]], positives: str
) -> Float[np.ndarray, " Q"]:
    """One score of each query's positives: the lowest ("min", "each") or the highest ("max")."""
    reduce = np.max if positives == "max" else np.min
    return np.array([reduce(row) for row in scores], np.float32)


def score_limits(rule: Rule, positive: Float[np.ndarray, " Q"]) -> Float[np.ndarray, " Q"]:
    """The score that a candidate must stay below, for each query.

    For perc-pos it is `s - |s| * (1 - threshold)`: `threshold * s` for s >= 0, and still below s
    where the positive's score is negative.
    """
    if rule.method == "abs":
        return np.full_like(positive, rule.threshold)
    if rule.method == "margin-pos":
        return positive - np.float32(rule.threshold)
    if rule.method == "perc-pos":
        return positive - np.abs(positive) * np.float32(1 - (rule.threshold or 0))
    return np.full_like(positive, np.inf)


def allowed_mask(
    rows: Int[np.ndarray, "Q K"], known: Sequence[Int[np.ndarray, " _"]]
) -> Bool[np.ndarray, "Q K"]:
    """False where a candidate is one of the query's `known` rows (its positives, its own text)."""
    return np.array(
        [~np.isin(found, mine) for found, mine in zip(rows, known, strict=True)], bool
    ).reshape(rows.shape)


def keep_mask(
    rule: Rule,
    scores: Float[np.ndarray, "Q K"],
    allowed: Bool[np.ndarray, "Q K"],
    positive: Float[np.ndarray, " Q"],
) -> Bool[np.ndarray, "Q K"]:
    """The candidates that may serve as negatives.

    Args:
        scores: of the candidates, best first. allowed: from `allowed_mask`.
        positive: one positive score a query, from `reduce_positives`.
    """
    keep = allowed & (scores < score_limits(rule, positive)[:, None])
    if rule.method == "shifted":
        keep &= np.cumsum(allowed, axis=1) > (rule.threshold or 0)
    return keep


def choose(
    keep: Bool[np.ndarray, " K"],
    count: int,
    sample: int | None = None,
    rng: np.random.Generator | None = None,
) -> Int[np.ndarray, " N"]:
    """Columns of the negatives, hardest first: the first `count` that are kept, or `count` drawn
    from the first `sample` of them."""
    columns = np.flatnonzero(keep)
    if sample is None or rng is None:
        return columns[:count]
    columns = columns[:sample]
    return np.sort(rng.permutation(columns)[:count])


def _check_name(what: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        near = difflib.get_close_matches(str(given), known, n=1)
        mend = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what} must be one of {', '.join(known)}; got {given!r}{mend}")


def _threshold_error(method: str, value: float | int) -> str:
    if not math.isfinite(value):
        return "must be a finite number"
    if method == "perc-pos" and not 0 < value <= 1:
        return "is a share of the positive's score, over 0 and up to 1"
    if method == "margin-pos" and value < 0:
        return "is a distance below the positive's score, 0 or more"
    if method == "abs" and not -1 <= value <= 1:
        return "is a cosine, -1 to 1"
    if method == "shifted" and (value < 0 or value != int(value)):
        return "is a number of ranks to pass over, a whole number from 0"
    return ""
