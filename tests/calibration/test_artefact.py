"""calibration.json: written, read and applied; refused for another model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_pairs import WrittenModel, noisy_scores, rows, square, write_pairs

from nvembed_jax.calibration.artefact import ScoredModel, load_calibration
from nvembed_jax.calibration.calibrate import calibrate, calibrate_scores
from nvembed_jax.calibration.pairs import PASSAGE_PASSAGE, QUERY_PASSAGE
from nvembed_jax.calibration.thresholds import CalibrationOptions

OPTIONS = CalibrationOptions(thresholds=(0.5,), samples=50)
OLD = ScoredModel(name="a", fingerprint="f-a")
NEW = ScoredModel(name="b", fingerprint="f-b", scale=100.0)


@pytest.fixture(scope="module")
def made():
    scores = noisy_scores(500, new=lambda cosine: 100 * square(cosine))
    return calibrate_scores({PASSAGE_PASSAGE: scores}, OLD, NEW, options=OPTIONS)


@pytest.fixture
def path(tmp_path, made):
    made.save(tmp_path / "calibration.json")
    return tmp_path / "calibration.json"


def test_what_is_written_is_read_back(path, made):
    read = load_calibration(path, "f-b")
    assert (read.old, read.new, read.settings) == (made.old, made.new, made.settings)
    part, before = read.kind(PASSAGE_PASSAGE), made.kind(PASSAGE_PASSAGE)
    assert (part.presets, part.migrations) == (before.presets, before.migrations)
    assert (part.pairs, part.labelled, part.roc_auc) == (500, 500, before.roc_auc)
    cosines = np.linspace(-1, 1, 21)
    for to in ("new", "old", "isotonic", "platt"):
        np.testing.assert_array_equal(
            read.apply(cosines, kind=PASSAGE_PASSAGE, to=to),
            made.apply(cosines, kind=PASSAGE_PASSAGE, to=to),
        )


def test_the_file_is_plain_json(path):
    data = json.loads(path.read_text())
    part = data["kinds"][PASSAGE_PASSAGE]
    assert data["new"] == {"name": "b", "fingerprint": "f-b", "scale": 100.0}
    assert set(part["presets"]) == {"high_precision", "balanced", "high_recall"}
    assert set(part["mapping"]) == {"old", "new"}
    assert set(part["presets"]["balanced"]["score"]) == {"value", "low", "high"}


def test_applied_cosines_stand_on_the_scale_that_is_asked_for(made):
    cosines = np.array([[0.1, 0.25], [0.3, 0.36]])
    scaled = made.apply(cosines, kind=PASSAGE_PASSAGE, to="new")
    np.testing.assert_allclose(scaled, 100 * cosines)
    old = made.apply(cosines, kind=PASSAGE_PASSAGE)
    assert old.shape == (2, 2)
    assert (np.diff(old.ravel()) > 0).all()
    np.testing.assert_allclose(old, np.sqrt(cosines), atol=0.05)
    chances = made.apply(cosines, kind=PASSAGE_PASSAGE, to="platt")
    assert (np.diff(chances.ravel()) > 0).all()


def test_thresholds_are_applied_to_cosines(made):
    mapped = made.cosine_threshold(0.5, PASSAGE_PASSAGE)
    migration = made.kind(PASSAGE_PASSAGE).migrations[0]
    assert mapped == pytest.approx(migration.new["share"].score.value / 100)
    preset = made.kind(PASSAGE_PASSAGE).presets["balanced"].score.value
    assert made.cosine_threshold("balanced", PASSAGE_PASSAGE) == preset / 100
    cosines = np.array([preset / 100 - 0.01, preset / 100 + 0.01])
    found = made.matches(cosines, "balanced", kind=PASSAGE_PASSAGE)
    assert found.tolist() == [False, True]


@pytest.mark.parametrize(
    ("threshold", "kind", "words"),
    [
        ("balanced", QUERY_PASSAGE, "calibrated were passage-passage pairs, not query-passage"),
        ("balanced", "sts", "kind must be one of query-passage, passage-passage; got 'sts'"),
        ("balance", PASSAGE_PASSAGE, "unknown preset 'balance'; did you mean 'balanced'"),
        ("x", PASSAGE_PASSAGE, "there are high_precision, balanced, high_recall"),
        (1.5, PASSAGE_PASSAGE, r"the threshold 1\.5 is none of the old model's"),
    ],
)
def test_thresholds_that_are_not_there_are_refused(made, threshold, kind, words):
    with pytest.raises(ValueError, match=words):
        made.cosine_threshold(threshold, kind)


def test_without_labels_there_are_no_probabilities():
    scores = noisy_scores(50)
    scores.labels[:] = -1
    bare = calibrate_scores({QUERY_PASSAGE: scores}, OLD, NEW, options=CalibrationOptions())
    with pytest.raises(ValueError, match="probabilities need labels"):
        bare.apply(np.zeros(1), kind=QUERY_PASSAGE, to="platt")
    with pytest.raises(ValueError, match="no presets: they need labels"):
        bare.cosine_threshold("balanced", QUERY_PASSAGE)
    with pytest.raises(ValueError, match="to must be one of new, old, isotonic, platt"):
        bare.apply(np.zeros(1), kind=QUERY_PASSAGE, to="probability")


def test_another_model_is_refused(path):
    with pytest.raises(ValueError, match=r"calibration\.json: the calibration is for model b"):
        load_calibration(path, "f-a")
    assert load_calibration(path).new == NEW


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1}', "\x00"])
def test_files_that_are_no_calibration_are_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=r"c\.json: is no calibration"):
        load_calibration(tmp_path / "c.json")


def test_missing_files_and_other_versions_are_refused(tmp_path, path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_calibration(tmp_path / "none.json")
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 7'))
    with pytest.raises(ValueError, match="version 7; this version reads 1"):
        load_calibration(path)


def test_two_models_and_a_file_of_both_kinds(tmp_path):
    cosines = np.linspace(0.1, 0.9, 40)
    labels = cosines + 0.1 * np.sin(40 * cosines) > 0.5
    lines = rows(cosines, labels) + rows(cosines[:20], keys=("query", "passage"))
    path = write_pairs(tmp_path / "pairs.jsonl", lines)
    found, scores = calibrate(
        path,
        lambda: WrittenModel("one"),
        lambda: WrittenModel("two", square),
        options=CalibrationOptions(samples=20),
        names=("", "given"),
        scales=(100.0, 1.0),
    )
    assert found.old == ScoredModel(name="one", fingerprint="fingerprint of one", scale=100.0)
    assert found.new.name == "given"
    assert list(found.kinds) == list(scores) == [QUERY_PASSAGE, PASSAGE_PASSAGE]
    np.testing.assert_allclose(scores[PASSAGE_PASSAGE].old, 100 * cosines, atol=1e-4)
    np.testing.assert_allclose(scores[QUERY_PASSAGE].new, -(cosines[:20] ** 2), atol=1e-6)
    mapped = found.cosine_threshold(float(scores[PASSAGE_PASSAGE].old[7]), PASSAGE_PASSAGE)
    assert mapped == pytest.approx(cosines[7] ** 2, abs=1e-5)
    assert found.kind(QUERY_PASSAGE).labelled == 0
    with pytest.raises(ValueError, match="a scale is a positive number"):
        calibrate(path, lambda: None, lambda: None, scales=(0.0, 1.0))
