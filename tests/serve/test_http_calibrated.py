"""POST /similarity with calibrations: labels and probabilities where they apply, and only there."""

from __future__ import annotations

import numpy as np
import pytest
import typer
from served_app import Served, error_of, make_embedder
from typer.testing import CliRunner

from nvembed_jax.calibration.artefact import ScoredModel
from nvembed_jax.calibration.calibrate import calibrate_scores
from nvembed_jax.calibration.pairs import PASSAGE_PASSAGE, QUERY_PASSAGE, PairScores
from nvembed_jax.calibration.thresholds import CalibrationOptions
from nvembed_jax.cli import options, serve
from nvembed_jax.serve import ServerSettings, logs, schema, server

TEXTS = {"queries": ["a", "b c d"], "passages": ["a", "c d", "e f g h"]}
EXTRA = {"preset", "threshold", "labels", "probabilities"}


def make_calibration(model, kinds, *, labelled=True, task=None):
    """Matches are the upper half of the scores that the test's texts have."""
    found = {}
    for kind, scores in kinds.items():
        low, high = scores.min() - 0.01, scores.max() + 0.01
        new = np.linspace(low, high, 60)
        labels = (new > (low + high) / 2).astype(np.int64) if labelled else np.full(60, -1)
        found[kind] = PairScores(old=new / 2, new=new, labels=labels)
    return calibrate_scores(
        found,
        ScoredModel(name="old", fingerprint="f-old"),
        ScoredModel(name="new", fingerprint=model.fingerprint),
        options=CalibrationOptions(samples=5),
        settings={"task": task, "encoding": {"batch_tokens": 7}},
    )


@pytest.fixture(scope="module")
def calibration(embedder):
    """Of both kinds of pairs, for the model `nv`."""
    queries = embedder.encode_query(TEXTS["queries"])
    first, passages = (embedder.encode_document(TEXTS[name]) for name in TEXTS)
    kinds = {QUERY_PASSAGE: queries @ passages.T, PASSAGE_PASSAGE: first @ passages.T}
    return make_calibration(embedder, kinds)


@pytest.fixture(scope="module")
def calibrated(embedder, symmetric, calibration):
    models = {"nv": embedder, "acme/sym": symmetric}
    with Served(models, calibrations=(calibration,), allow_dimensions=True) as running:
        yield running


def compare(served, model="nv", **fields) -> dict:
    response = served.post("/similarity", {"model": model, **TEXTS, **fields})
    assert response.status_code == 200, response.text
    schema.SimilarityAnswer.model_validate(response.json())
    return response.json()


@pytest.mark.parametrize("kind", [QUERY_PASSAGE, PASSAGE_PASSAGE])
def test_labels_and_probabilities_stand_beside_the_scores(calibrated, calibration, kind):
    fields = {"input_type": "passage"} if kind == PASSAGE_PASSAGE else {}
    answer = compare(calibrated, **fields)
    scores = np.array(answer["scores"], np.float32)
    limit = calibration.cosine_threshold("balanced", kind)
    assert (answer["preset"], answer["threshold"]) == ("balanced", limit)
    assert answer["labels"] == (scores >= limit).tolist()
    assert {label for row in answer["labels"] for label in row} == {True, False}
    expected = calibration.apply(scores, kind=kind, to="isotonic")
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)


def test_a_request_can_choose_the_preset(calibrated, calibration):
    for preset in ("high_precision", "high_recall"):
        answer = compare(calibrated, preset=preset)
        limit = calibration.cosine_threshold(preset, QUERY_PASSAGE)
        assert (answer["preset"], answer["threshold"]) == (preset, limit)
    body = {"model": "nv", **TEXTS, "preset": "best"}
    assert error_of(calibrated.post("/similarity", body), 422)["param"] == "preset"


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"model": "acme/sym"}, "no calibration of this model"),
        ({"input_type": "query"}, "scores of passages with queries or passages"),
        ({"model": "nv-query"}, "scores of passages with queries or passages"),
        ({"dimensions": 16}, "all dimensions"),
        ({"task": "secret words"}, "the model's own task, and these queries have another"),
    ],
)
def test_other_scores_are_not_judged(calibrated, fields, part):
    assert not EXTRA & compare(calibrated, **fields).keys()
    body = {"model": "nv", **TEXTS, **fields, "preset": "balanced"}
    error = error_of(calibrated.post("/similarity", body), 400)
    assert part in error["message"]
    assert error["param"] == "preset"
    assert "secret" not in error["message"]


def test_all_dimensions_and_the_passage_suffix_are_judged(calibrated, calibration, embedder):
    assert compare(calibrated, dimensions=embedder.embed_dim)["labels"]
    answer = compare(calibrated, model="nv-passage")
    assert answer["threshold"] == calibration.cosine_threshold("balanced", PASSAGE_PASSAGE)


def test_the_servers_task_and_preset_count(embedder):
    scores = embedder.encode_query(TEXTS["queries"], task="x") @ embedder.encode_document(["a"]).T
    made = make_calibration(embedder, {QUERY_PASSAGE: scores}, task="x")
    settings = {"calibrations": (made,), "preset": "high_recall"}
    with Served({"nv": embedder}, task="x", **settings) as served:
        assert compare(served)["preset"] == "high_recall"
        assert not EXTRA & compare(served, input_type="passage").keys()
    with Served({"nv": embedder}, **settings) as served:
        assert not EXTRA & compare(served).keys()
        assert compare(served, task="x")["preset"] == "high_recall"


def test_without_labels_there_are_no_presets_and_nothing_is_added(embedder):
    made = make_calibration(embedder, {QUERY_PASSAGE: np.array([0.1, 0.9])}, labelled=False)
    with Served({"nv": embedder}, calibrations=(made,)) as served:
        assert not EXTRA & compare(served).keys()


def test_calibrations_must_be_for_the_models_served(embedder, calibration):
    with pytest.raises(ValueError, match=r"for new \(.*\), which is not served; served: other"):
        Served({"other": make_embedder(3)}, calibrations=(calibration,))
    with pytest.raises(ValueError, match="two calibrations are for the model nv"):
        Served({"nv": embedder}, calibrations=(calibration, calibration))
    with pytest.raises(ValueError, match="preset must be one of high_precision, balanced"):
        ServerSettings(preset="best")


def test_options_of_the_command_reach_the_settings(monkeypatch, tmp_path, calibration):
    served, loaded = {}, []
    app = typer.Typer()
    app.command(context_settings=serve.SETTINGS)(serve.command)
    monkeypatch.setattr(options, "load_model", lambda spec, **given: loaded.append(spec))
    monkeypatch.setattr(server, "run_server", lambda models, s, *a, **kw: served.update(s=s))
    monkeypatch.setattr(logs, "configure", lambda level: None)
    calibration.save(tmp_path / "c.json")
    args = ["--calibration", str(tmp_path / "c.json"), "--preset", "high-recall"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert served["s"].preset == "high_recall"
    assert [made.new for made in served["s"].calibrations] == [calibration.new]
    loaded.clear()
    (tmp_path / "c.json").write_text("{}")
    result = CliRunner().invoke(app, args)
    assert "is no calibration" in str(result.exception)
    assert loaded == []
