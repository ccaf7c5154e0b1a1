"""What thresholds flag: by hand, as scikit-learn has it, and with weights as repetitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from nvembed_jax.calibration.curves import ScoreCurve

SCORES = np.array([0.3, 0.9, 0.8, 0.8, 0.1])
LABELS = np.array([0, 1, 0, 1, 0])


def test_thresholds_stand_half_way_and_count_what_is_above_them():
    curve = ScoreCurve(SCORES, LABELS)
    np.testing.assert_allclose(curve.thresholds, [0.85, 0.55, 0.2, 0.1])
    counts = curve.counts()
    assert counts.flagged.tolist() == [1, 3, 4, 5]
    assert counts.hits.tolist() == [1, 2, 2, 2]
    assert (counts.total, counts.positives) == (5, 2)
    assert curve.at(0.8, counts) == (0.6, 2 / 3, 1.0, 1 / 3)
    assert curve.at(0.81, counts) == (0.2, 1.0, 0.5, 0.0)
    nothing = curve.at(0.95, counts)
    assert (nothing.share, nothing.recall, nothing.false_positive_rate) == (0, 0, 0)
    assert np.isnan(nothing.precision)


def test_thresholds_are_chosen_by_what_they_reach():
    curve = ScoreCurve(SCORES, LABELS)
    counts = curve.counts()
    assert curve.for_share(0.2, counts) == pytest.approx(0.85)
    assert curve.for_share(0.3, counts) == pytest.approx(0.55)
    assert curve.for_share(0.0, counts) > 0.9
    assert curve.for_recall(0.5, counts) == pytest.approx(0.85)
    assert curve.for_recall(0.6, counts) == pytest.approx(0.55)
    assert curve.for_precision(0.6, counts) == pytest.approx(0.55)
    assert curve.for_precision(0.5, counts) == pytest.approx(0.2)
    assert curve.for_false_positive_rate(0.4, counts) == pytest.approx(0.55)
    assert curve.for_false_positive_rate(0.0, counts) == pytest.approx(0.85)
    assert curve.for_best_f1(counts) == pytest.approx(0.55)


def test_what_cannot_be_reached_is_nan():
    worst = ScoreCurve(np.array([0.9, 0.1]), np.array([0, 1]))
    assert np.isnan(worst.for_precision(0.6, worst.counts()))
    assert worst.for_false_positive_rate(0.5, worst.counts()) > 0.9
    negatives = ScoreCurve(SCORES, np.zeros(5, np.int64))
    counts = negatives.counts()
    assert np.isnan([negatives.for_recall(0.5, counts), negatives.for_best_f1(counts)]).all()
    positives = ScoreCurve(SCORES, np.ones(5, np.int64))
    assert np.isnan(positives.for_false_positive_rate(0.5, positives.counts()))
    with pytest.raises(ValueError, match="no scores"):
        ScoreCurve(np.zeros(0))


@pytest.mark.parametrize("weighted", [False, True])
def test_curves_equal_those_of_scikit_learn(weighted):
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=200), 1)  # with many equal ones
    labels = rng.integers(0, 2, 200)
    weights = rng.integers(0, 4, 200) if weighted else np.ones(200, np.int64)
    curve = ScoreCurve(scores, labels)
    counts = curve.counts(weights)
    false, recall, places = roc_curve(
        labels, scores, sample_weight=weights, drop_intermediate=False
    )
    np.testing.assert_allclose(curve.values, places[1:])
    np.testing.assert_allclose(counts.hits / counts.positives, recall[1:])
    negatives = counts.total - counts.positives
    np.testing.assert_allclose((counts.flagged - counts.hits) / negatives, false[1:])
    precision, _, places = precision_recall_curve(labels, scores, sample_weight=weights)
    for threshold, expected in zip(places, precision[:-1], strict=True):
        found = curve.at(float(threshold), counts)
        if found.share:
            assert found.precision == pytest.approx(expected)


def test_weights_are_repetitions():
    rng = np.random.default_rng(1)
    scores, labels = rng.random(50), rng.integers(0, 2, 50)
    drawn = rng.integers(50, size=50)
    weights = np.bincount(drawn, minlength=50)
    curve, repeated = ScoreCurve(scores, labels), ScoreCurve(scores[drawn], labels[drawn])
    left, right = curve.counts(weights), repeated.counts()
    for threshold in np.linspace(-0.1, 1.1, 25):
        expected = repeated.at(threshold, right)
        np.testing.assert_allclose(curve.at(threshold, left), expected, equal_nan=True)
    for goal in (0.1, 0.5, 0.9):
        for choose in ("for_share", "for_recall"):
            found = getattr(curve, choose)(goal, left)
            same = getattr(repeated, choose)(goal, right)
            assert curve.at(found, left) == curve.at(same, left)
