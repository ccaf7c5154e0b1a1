"""Thresholds carried over: what they keep, their intervals, and the presets."""

from __future__ import annotations

import numpy as np
import pytest
from made_pairs import noisy_scores, square

from nvembed_jax.calibration.artefact import ScoredModel
from nvembed_jax.calibration.calibrate import calibrate_scores
from nvembed_jax.calibration.pairs import PairScores
from nvembed_jax.calibration.probability import fit_probability
from nvembed_jax.calibration.thresholds import CalibrationOptions

OLD, NEW = (ScoredModel(name=name, fingerprint=name) for name in ("old", "new"))
KIND = "passage-passage"


def learn(scores: PairScores, *thresholds: float, old=OLD, new=NEW, **options):
    settings = CalibrationOptions(thresholds=thresholds, **{"samples": 200, **options})
    return calibrate_scores({KIND: scores}, old, new, options=settings).kinds[KIND]


def values(measures) -> dict:
    return {name: estimate.value for name, estimate in measures.items()}


def test_a_rising_change_of_scores_keeps_every_measure():
    first = noisy_scores(400)
    part = learn(PairScores(old=first.old, new=square(first.old), labels=first.labels), 0.42)
    migration = part.migrations[0]
    before = values(migration.old.measures)
    assert 0.1 < before["false_positive_rate"] < 0.9 * before["recall"]
    assert values(migration.new["share"].measures) == pytest.approx(before)
    assert migration.new["share"].score.value == pytest.approx(0.42**2, abs=1e-4)
    for basis in ("precision", "recall", "false_positive_rate"):
        found = values(migration.new[basis].measures)
        if basis != "precision":
            assert found[basis] == pytest.approx(before[basis])
        assert found["precision"] >= before["precision"] - 1e-9
        assert found["recall"] >= before["recall"] - 1e-9
    reused = migration.new["reused"]
    assert reused.score.value == 0.42
    assert reused.measures["recall"].value < before["recall"]


def test_quantile_mapping_mends_what_reuse_breaks_on_pairs_not_seen():
    part = learn(noisy_scores(2000, seed=1), 0.6)
    fresh = noisy_scores(20_000, seed=2)
    flagged = np.mean(fresh.old >= 0.6)
    found = part.migrations[0].new
    mapped = np.mean(fresh.new >= found["share"].score.value)
    assert abs(mapped - flagged) < 0.02
    assert abs(np.mean(fresh.new >= found["reused"].score.value) - flagged) > 0.1


def test_labels_match_the_measure_that_is_asked_for():
    part = learn(noisy_scores(1000), 0.5)
    migration = part.migrations[0]
    before = values(migration.old.measures)
    found = {name: values(threshold.measures) for name, threshold in migration.new.items()}
    assert found["recall"]["recall"] >= before["recall"] > found["recall"]["recall"] - 0.01
    rate = "false_positive_rate"
    assert found[rate][rate] <= before[rate] < found[rate][rate] + 0.01
    assert found["precision"]["precision"] >= before["precision"]


def test_intervals_hold_the_value_and_narrow_with_more_pairs():
    widths = []
    for count in (100, 10_000):
        score = learn(noisy_scores(count), 0.5).migrations[0].new["share"].score
        assert score.low < score.value < score.high
        widths.append(score.high - score.low)
    assert widths[1] < widths[0] / 5


def test_the_interval_holds_the_threshold_of_very_many_pairs_about_as_often_as_it_says():
    def share(count: int, seed: int, samples: int):
        scores = noisy_scores(count, seed=seed)
        scores.labels[:] = -1
        return learn(scores, 0.5, samples=samples).migrations[0].new["share"].score

    truth = share(200_000, 99, 1).value
    found = [share(300, seed, 60) for seed in range(40)]
    held = sum(score.low <= truth <= score.high for score in found)
    assert held >= 34  # 38 are expected


def test_seeds_decide_the_intervals_and_nothing_else():
    first, again, other = (learn(noisy_scores(200), 0.5, seed=seed) for seed in (0, 0, 1))
    assert first.migrations == again.migrations
    assert first.presets["balanced"].score.value == other.presets["balanced"].score.value
    assert first.presets != other.presets


def test_presets_reach_their_goals_in_order():
    presets = learn(noisy_scores(1000)).presets
    assert list(presets) == ["high_precision", "balanced", "high_recall"]
    scores = [preset.score.value for preset in presets.values()]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3
    assert presets["high_precision"].measures["precision"].value >= 0.95
    assert presets["high_recall"].measures["recall"].value >= 0.95
    assert presets["high_recall"].basis == "recall of at least 0.95"
    assert learn(noisy_scores(1000), recall=0.8).presets["high_recall"].score.value > scores[2]


def test_presets_of_a_model_that_parts_all_pairs_are_one():
    labels = np.arange(100) % 2
    scores = PairScores(old=labels + 0.0, new=0.2 + 0.6 * labels, labels=labels)
    presets = learn(scores).presets
    assert {preset.score.value for preset in presets.values()} == {0.5}


def test_a_preset_that_no_threshold_reaches_is_empty():
    labels = np.array([0, 1, 0, 1, 0])
    scores = np.array([0.9, 0.5, 0.5, 0.3, 0.2])
    presets = learn(PairScores(old=scores, new=scores, labels=labels)).presets
    assert presets["high_precision"].score.value is None
    assert set(values(presets["high_precision"].measures).values()) == {None}
    assert presets["balanced"].score.value == pytest.approx(0.25)


def test_without_labels_presets_stand_around_the_threshold():
    scores = noisy_scores(1000)
    bare = PairScores(old=scores.old, new=scores.new, labels=np.full(1000, -1))
    threshold = float(np.quantile(scores.old, 0.9))
    part = learn(bare, threshold)
    shares = [preset.measures["share"].value for preset in part.presets.values()]
    assert shares == pytest.approx([0.05, 0.1, 0.2], abs=0.002)
    assert set(part.migrations[0].new) == {"share", "reused"}
    assert set(part.presets["balanced"].measures) == {"share"}
    assert (part.labelled, part.probability, part.roc_auc) == (0, {}, {})
    assert learn(bare).presets == {}


def test_pairs_without_labels_count_for_the_share_only():
    scores = noisy_scores(600)
    some = np.where(np.arange(600) < 300, scores.labels, -1)
    part = learn(PairScores(old=scores.old, new=scores.new, labels=some), 0.5)
    assert (part.pairs, part.labelled, part.positives) == (600, 300, int(np.sum(some == 1)))
    known = PairScores(old=scores.old[:300], new=scores.new[:300], labels=some[:300])
    alone = learn(known, 0.5)
    for basis in ("precision", "recall"):
        both = (part.migrations[0].new[basis], alone.migrations[0].new[basis])
        assert both[0].score.value == both[1].score.value
    assert part.migrations[0].old.measures["share"].value == np.mean(scores.old >= 0.5)


def test_scales_change_the_numbers_only():
    scores = noisy_scores(300)
    large = PairScores(old=scores.old, new=100 * scores.new, labels=scores.labels)
    part = learn(scores, 0.5)
    scaled = learn(large, 0.5, new=ScoredModel(name="new", fingerprint="new", scale=100.0))
    for basis in ("share", "recall", "reused"):
        small, big = (p.migrations[0].new[basis] for p in (part, scaled))
        assert big.score.value == pytest.approx(100 * small.score.value)
        assert values(big.measures) == pytest.approx(values(small.measures))


def test_a_threshold_of_another_scale_is_refused():
    with pytest.raises(ValueError, match=r"passage-passage pairs: the threshold 50 .*of its scale"):
        learn(noisy_scores(100), 50.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precision": 1.0}, "precision must lie"), ({"level": 0.0}, "level must"),
     ({"samples": 0}, "samples must be at least 1")],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CalibrationOptions(**options)


def test_probabilities_are_those_of_the_labels():
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(8 * scores - 3)))).astype(np.int64)
    curves = fit_probability(100 * scores, labels)
    assert curves.slope == pytest.approx(0.08, rel=0.05)
    assert curves.intercept == pytest.approx(-3, rel=0.05)
    places = np.linspace(5, 95, 10)
    truth = 1 / (1 + np.exp(-(0.08 * places - 3)))
    np.testing.assert_allclose(curves.apply(places, "platt"), truth, atol=0.02)
    np.testing.assert_allclose(curves.apply(places, "isotonic"), truth, atol=0.06)
    expected = np.mean(truth * (1 - truth))
    assert curves.brier == pytest.approx({"isotonic": expected, "platt": expected}, abs=0.03)
    with pytest.raises(ValueError, match="one of isotonic, platt; got 'logit'"):
        curves.apply(places, "logit")


def test_platts_slope_stays_finite_where_scores_part_the_labels():
    curves = fit_probability(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]))
    low, high = curves.apply(np.array([0.1, 0.9]), "platt")
    assert 0.15 < low < 0.35
    assert 0.65 < high < 0.85
    assert curves.brier == {}
