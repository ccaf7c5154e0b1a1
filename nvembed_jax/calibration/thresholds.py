"""Thresholds of a new model in the place of an old one's, each with a bootstrap interval.

Pairs are drawn with replacement, the same ones for both models. Measures are taken on the pairs
that the thresholds were chosen on: on other pairs expect a little less.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from nvembed_jax.calibration.curves import Counts, Measures, ScoreCurve
from nvembed_jax.calibration.mapping import QuantileMap
from nvembed_jax.calibration.pairs import PairScores
from nvembed_jax.runtime import progress_bar

_logger = logging.getLogger(__name__)
PRESETS = ("high_precision", "balanced", "high_recall")


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """How thresholds are chosen.

    Attributes:
        thresholds: of the old model, on its scale.
        precision, recall: what the presets high precision and high recall are to reach.
        samples: bootstrap samples. level: share of them inside an interval. seed: of the draws.
    """

    thresholds: tuple[float, ...] = ()
    precision: float = 0.95
    recall: float = 0.95
    samples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("precision", "recall", "level"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1; got {value}")
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1; got {self.samples}")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval; None for what is not defined, say a precision of no pairs."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold, why it was chosen, and what it does.

    Attributes:
        basis: for people. score: the threshold itself; its value is None where none fits.
        measures: share of pairs flagged, and with labels precision, recall, false_positive_rate.
    """

    basis: str
    score: Estimate
    measures: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One threshold of the old model, and those that may take its place.

    Attributes:
        old: with its measures by the old model.
        new: "reused" (the same number), "share" (quantile mapping), and with labels "precision",
            "recall" and "false_positive_rate" (the same measure as before).
    """

    old: Threshold
    new: dict[str, Threshold]


class _Counts(NamedTuple):
    """Counts of one sample, of the old and the new model: of all pairs, and of labelled ones."""

    everything: list[Counts]
    labelled: list[Counts]


def _check_thresholds(
    thresholds: Sequence[float], old: Float[np.ndarray, " N"], scale: float
) -> None:
    """Raises ValueError for a threshold that the old model's scores cannot reach; warns of one
    that those of these pairs do not."""
    low, high = float(old.min()), float(old.max())
    for threshold in thresholds:
        if low <= threshold <= high:
            continue
        told = (
            f"the threshold {threshold:g} lies outside of the old model's scores of these pairs, "
            f"{low:.4g} to {high:.4g}"
        )
        if abs(threshold) > scale:
            raise ValueError(f"{told}, and of its scale, {-scale:g} to {scale:g}; is that right?")
        _logger.warning("%s: what takes its place is only their nearest end", told)


class ThresholdFinder:
    """Finds thresholds for one kind of pairs.

    Args:
        scores: by both models. quantiles: the map of all of them.
        scales: of the old and the new model's scores (1: cosine, 100: 100 x cosine).
    """

    def __init__(
        self,
        scores: PairScores,
        quantiles: QuantileMap,
        scales: tuple[float, float],
        options: CalibrationOptions,
    ) -> None:
        self._options, self._quantiles = options, quantiles
        self._all = ScoreCurve(scores.old), ScoreCurve(scores.new)
        self._labelled = None
        self._known = scores.labels >= 0
        if scores.has_labels:
            part = scores.labelled
            self._labelled = ScoreCurve(part.old, part.labels), ScoreCurve(part.new, part.labels)
        self._size = len(scores.old)
        self._reused = [t * (scales[1] / scales[0]) for t in options.thresholds]
        _check_thresholds(options.thresholds, scores.old, scales[0])

    def find(self) -> tuple[list[Migration], dict[str, Threshold]]:
        """The migrations of all thresholds, and the presets.

        Without labels presets stand around the first threshold: high precision flags half as many
        pairs, high recall twice as many. Without thresholds too there are none.
        """
        counts = self._count(None)
        chosen = self._choose(counts)
        for number, threshold in enumerate(self._options.thresholds):
            chosen[f"{number} share"] = float(self._quantiles.to_new(np.array(threshold)))
            chosen[f"{number} reused"] = self._reused[number]
        if self._labelled is None and self._options.thresholds:
            chosen["balanced"] = chosen["0 share"]
        drawn, done, old = self._bootstrap(chosen)
        found = {
            name: Threshold(
                basis=self._basis(name),
                score=self._estimate(value, drawn.get(name, [value])),
                measures=self._measures(done[name], self._measured(1, value, counts)),
            )
            for name, value in chosen.items()
        }
        migrations = []
        for number, threshold in enumerate(self._options.thresholds):
            fixed = Estimate(value=threshold, low=threshold, high=threshold)
            measures = self._measures(old[number], self._measured(0, threshold, counts))
            before = Threshold(basis="as it was", score=fixed, measures=measures)
            own = [name for name in found if name.startswith(f"{number} ")]
            migrations.append(
                Migration(old=before, new={name.split()[1]: found[name] for name in own})
            )
        return migrations, {name: found[name] for name in PRESETS if name in found}

    def _bootstrap(
        self, chosen: Mapping[str, float]
    ) -> tuple[dict[str, list[float]], dict[str, list[Measures]], list[list[Measures]]]:
        """Over the samples: thresholds as they would be chosen, what the chosen ones do, and what
        the old ones do."""
        drawn: dict[str, list[float]] = {name: [] for name in chosen if "reused" not in name}
        done: dict[str, list[Measures]] = {name: [] for name in chosen}
        old: list[list[Measures]] = [[] for _ in self._options.thresholds]
        rng = np.random.default_rng(self._options.seed)
        with progress_bar(self._options.samples, None, "sample") as bar:
            for _ in range(self._options.samples):
                rows = rng.integers(self._size, size=self._size)
                counts = self._count(np.bincount(rows, minlength=self._size))
                for name, value in self._choose(counts).items():
                    drawn[name].append(value)
                for name, value in chosen.items():
                    done[name].append(self._measured(1, value, counts))
                for number, threshold in enumerate(self._options.thresholds):
                    old[number].append(self._measured(0, threshold, counts))
                bar.update(1)
        return drawn, done, old

    def _count(self, weights: Num[np.ndarray, " N"] | None) -> _Counts:
        known = None if weights is None else weights[self._known]
        everything = [curve.counts(weights) for curve in self._all]
        labelled = [curve.counts(known) for curve in self._labelled or ()]
        return _Counts(everything, labelled)

    def _choose(self, counts: _Counts) -> dict[str, float]:
        """All thresholds by name: "NUMBER BASIS", or a preset."""
        old, new = self._all
        thresholds = self._options.thresholds
        shares = [old.at(t, counts.everything[0]).share for t in thresholds]

        def for_share(share: float) -> float:
            return new.for_share(min(share, 1.0), counts.everything[1])

        found = {f"{number} share": for_share(share) for number, share in enumerate(shares)}
        if self._labelled is not None:
            return found | self._choose_by_labels(*self._labelled, *counts.labelled)
        if shares:
            factors = zip(PRESETS, (0.5, 1.0, 2.0), strict=True)
            found |= {name: for_share(factor * shares[0]) for name, factor in factors}
        return found

    def _choose_by_labels(
        self, before: ScoreCurve, curve: ScoreCurve, old: Counts, new: Counts
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for number, threshold in enumerate(self._options.thresholds):
            was = before.at(threshold, old)
            rate = was.false_positive_rate
            found[f"{number} precision"] = curve.for_precision(was.precision, new)
            found[f"{number} recall"] = curve.for_recall(was.recall, new)
            found[f"{number} false_positive_rate"] = curve.for_false_positive_rate(rate, new)
        balanced = curve.for_best_f1(new)
        # Of a model that parts the pairs well each goal is met on the far side of the best F1.
        return found | {
            "high_precision": max(curve.for_precision(self._options.precision, new), balanced),
            "balanced": balanced,
            "high_recall": min(curve.for_recall(self._options.recall, new), balanced),
        }

    def _measured(self, model: int, threshold: float, counts: _Counts) -> Measures:
        """What a threshold of model 0 (old) or 1 (new) does: by the labelled pairs if there are
        any, but for the share, which is of all."""
        if not np.isfinite(threshold):
            return Measures(np.nan, np.nan, np.nan, np.nan)
        share = self._all[model].at(threshold, counts.everything[model]).share
        if self._labelled is None:
            return Measures(share, np.nan, np.nan, np.nan)
        measured = self._labelled[model].at(threshold, counts.labelled[model])
        return measured._replace(share=share)

    def _measures(self, drawn: Sequence[Measures], point: Measures) -> dict[str, Estimate]:
        names = Measures._fields if self._labelled is not None else ("share",)
        return {
            name: self._estimate(getattr(point, name), [getattr(m, name) for m in drawn])
            for name in names
        }

    def _estimate(self, value: float, drawn: Sequence[float]) -> Estimate:
        finite = np.array([number for number in drawn if np.isfinite(number)])
        if not np.isfinite(value) or not len(finite):
            return Estimate(value=None, low=None, high=None)
        bounds = [(1 - self._options.level) / 2, (1 + self._options.level) / 2]
        low, high = np.quantile(finite, bounds).tolist()
        return Estimate(value=float(value), low=low, high=high)

    def _basis(self, name: str) -> str:
        if name not in PRESETS:
            basis = name.split()[1]
            return {"reused": "the same number", "share": "the same share of pairs"}.get(
                basis, f"the same {basis.replace('_', ' ')}"
            )
        if self._labelled is None:
            shares = dict(zip(PRESETS, ("half the", "the same", "twice the"), strict=True))
            return f"{shares[name]} share of pairs that the old threshold flags"
        return {
            "high_precision": f"precision of at least {self._options.precision:g}",
            "balanced": "highest F1",
            "high_recall": f"recall of at least {self._options.recall:g}",
        }[name]
