"""Scores as probabilities that a pair matches: isotonic regression, and Platt's logistic curve.

Both are scikit-learn's; kept are the few numbers that are needed to apply them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

METHODS = ("isotonic", "platt")
_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class ProbabilityCurves:
    """Two ways from a score to a probability.

    Attributes:
        scores, probabilities: corners of the isotonic curve [M], both rising.
        slope, intercept: of the logistic curve.
        brier: mean squared error of each method on pairs that it was not fitted to.
    """

    scores: Float[np.ndarray, " M"]
    probabilities: Float[np.ndarray, " M"]
    slope: float
    intercept: float
    brier: dict[str, float]

    def apply(
        self, scores: Float[np.ndarray, "*N"], method: str = "isotonic"
    ) -> Float[np.ndarray, "*N"]:
        """Probabilities of scores."""
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
        if method == "isotonic":
            return np.asarray(np.interp(scores, self.scores, self.probabilities))
        return _logistic(self.slope * np.asarray(scores, np.float64) + self.intercept)


def fit_probability(
    scores: Float[np.ndarray, " N"], labels: Int[np.ndarray, " N"]
) -> ProbabilityCurves:
    """Fits both curves to labelled pairs.

    Source: Platt 1999 (with his targets, which keep the slope finite where scores separate the
    labels); Zadrozny and Elkan 2002.

    Raises:
        ImportError: scikit-learn is missing (the extra "eval").
    """
    isotonic = _isotonic(scores, labels)
    slope, intercept = _platt(scores, labels)
    return ProbabilityCurves(
        scores=np.asarray(isotonic.X_thresholds_, np.float64),
        probabilities=np.asarray(isotonic.y_thresholds_, np.float64),
        slope=slope,
        intercept=intercept,
        brier=_held_out_errors(scores, labels),
    )


def _isotonic(scores: np.ndarray, labels: np.ndarray) -> Any:
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError:
        raise ImportError(
            'calibration needs scikit-learn: pip install "nvembed_jax[eval]"'
        ) from None
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)


def _platt(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    positives = int(np.sum(labels == 1))
    high, low = (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)
    target = np.where(labels == 1, high, low)
    # Scores of any scale: the optimiser sees them standardised.
    center, width = float(np.mean(scores)), float(np.std(scores)) or 1.0
    inputs = np.tile((scores - center) / width, 2)[:, None]
    classes = np.repeat([1, 0], len(scores))
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        inputs, classes, sample_weight=np.concatenate([target, 1 - target])
    )
    slope = float(fitted.coef_[0, 0]) / width
    return slope, float(fitted.intercept_[0]) - slope * center


def _held_out_errors(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Brier score of each method by cross-validation; {} with too few pairs of a label."""
    if min(np.sum(labels == 1), np.sum(labels == 0)) < _FOLDS:
        return {}
    from sklearn.model_selection import StratifiedKFold

    found = {method: np.empty(len(scores)) for method in METHODS}
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    for train, test in folds.split(scores[:, None], labels):
        found["isotonic"][test] = _isotonic(scores[train], labels[train]).predict(scores[test])
        slope, intercept = _platt(scores[train], labels[train])
        found["platt"][test] = _logistic(slope * scores[test] + intercept)
    return {method: float(np.mean((p - labels) ** 2)) for method, p in found.items()}


def _logistic(values: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))
