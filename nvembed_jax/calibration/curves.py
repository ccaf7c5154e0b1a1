"""What thresholds flag: pairs in falling order of score, counted with weights, so that a bootstrap
sample is a vector of weights and nothing is sorted again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

Vector = Float[np.ndarray, " N"]


class Measures(NamedTuple):
    """What a threshold does: `share` of all pairs that it flags; NaN for what is not defined."""

    share: float
    precision: float
    recall: float
    false_positive_rate: float


class Counts(NamedTuple):
    """Weights of the pairs flagged at every threshold, of the positive ones, and in all."""

    flagged: Float[np.ndarray, " G"]
    hits: Float[np.ndarray, " G"]
    total: float
    positives: float


class ScoreCurve:
    """Scores of pairs, with labels or without.

    A pair is flagged when its score is at least the threshold.

    Args:
        scores: finite, at least one. labels: 1 for pairs that match; None: there are none.

    Attributes:
        thresholds: falling [G], one below every score that differs from those before it: half way
            to the next one, so that the last digit of a score does not decide.
        values: the scores themselves, falling [G].
    """

    def __init__(self, scores: Vector, labels: Int[np.ndarray, " N"] | None = None) -> None:
        if not len(scores):
            raise ValueError("no scores; expected at least one")
        scores = np.asarray(scores, np.float64)
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self.values = ranked[self._ends]
        below = np.append(self.values[1:], np.nextafter(self.values[-1], -np.inf))
        self.thresholds = (self.values + below) / 2
        self._positive = None if labels is None else (labels == 1)[self._order].astype(np.float64)

    def counts(self, weights: Num[np.ndarray, " N"] | None = None) -> Counts:
        """Counts at `thresholds`; weights [N] of the pairs, in the order they were given."""
        if weights is None:
            ranked = np.ones(len(self._order))
        else:
            ranked = np.asarray(weights, np.float64)[self._order]
        flagged = np.cumsum(ranked)
        if self._positive is None:
            none = np.full(len(self._ends), np.nan)
            return Counts(flagged[self._ends], none, float(flagged[-1]), float("nan"))
        hits = np.cumsum(ranked * self._positive)
        return Counts(flagged[self._ends], hits[self._ends], float(flagged[-1]), float(hits[-1]))

    def at(self, threshold: float, counts: Counts) -> Measures:
        """What `threshold` does."""
        place = int(np.searchsorted(-self.values, -threshold, side="right")) - 1
        if place < 0:
            return measures(0.0, 0.0, counts)
        return measures(float(counts.flagged[place]), float(counts.hits[place]), counts)

    def for_share(self, share: float, counts: Counts) -> float:
        """The highest threshold that flags at least `share` of the pairs."""
        wanted = share * counts.total * (1 - 1e-12)
        if wanted <= 0:
            return self._nothing()
        return float(self.thresholds[min(_first(counts.flagged >= wanted), len(self._ends) - 1)])

    def for_recall(self, recall: float, counts: Counts) -> float:
        """The highest threshold whose recall is at least `recall`; NaN without positives."""
        if not counts.positives > 0:
            return float("nan")
        wanted = recall * counts.positives * (1 - 1e-12)
        if wanted <= 0:
            return self._nothing()
        return float(self.thresholds[min(_first(counts.hits >= wanted), len(self._ends) - 1)])

    def for_precision(self, precision: float, counts: Counts) -> float:
        """The lowest threshold whose precision is at least `precision`; NaN where none is."""
        good = counts.hits >= precision * counts.flagged * (1 - 1e-12)
        places = np.flatnonzero(good & (counts.flagged > 0))
        return float(self.thresholds[places[-1]]) if len(places) else float("nan")

    def for_false_positive_rate(self, rate: float, counts: Counts) -> float:
        """The lowest threshold whose false-positive rate is at most `rate`; NaN without
        negatives."""
        negatives = counts.total - counts.positives
        if not negatives > 0:
            return float("nan")
        false = counts.flagged - counts.hits
        places = np.flatnonzero(false <= rate * negatives * (1 + 1e-12))
        return float(self.thresholds[places[-1]]) if len(places) else self._nothing()

    def for_best_f1(self, counts: Counts) -> float:
        """The threshold of the highest F1, of equal ones the highest; NaN without positives."""
        if not counts.positives > 0:
            return float("nan")
        f1 = 2 * counts.hits / (counts.flagged + counts.positives)
        return float(self.thresholds[int(np.argmax(f1))])

    def _nothing(self) -> float:
        """A threshold that flags nothing."""
        return float(np.nextafter(self.values[0], np.inf))


def measures(flagged: float, hits: float, counts: Counts) -> Measures:
    """The shares that weights of flagged and of rightly flagged pairs stand for."""
    negatives = counts.total - counts.positives
    return Measures(
        share=_ratio(flagged, counts.total),
        precision=_ratio(hits, flagged),
        recall=_ratio(hits, counts.positives),
        false_positive_rate=_ratio(flagged - hits, negatives),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _first(mask: np.ndarray) -> int:
    return int(np.argmax(mask)) if mask.any() else len(mask)
