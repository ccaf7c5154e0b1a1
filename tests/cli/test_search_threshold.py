"""`nvembed search` with a threshold: of one's own, or from a calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nvembed_jax.calibration.artefact import ScoredModel
from nvembed_jax.calibration.calibrate import calibrate_scores
from nvembed_jax.calibration.pairs import PairScores
from nvembed_jax.calibration.thresholds import CalibrationOptions

TEXTS = ["the cat sat on the mat", "dogs bark at night", "gradient descent finds a minimum"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture
def hits(nvembed, corpus):
    """What a search without a threshold finds."""
    return json.loads(nvembed("search", corpus, "-q", "dogs", "--json").out)


@pytest.fixture
def make_calibration(tmp_path, model, hits):
    """(fields) -> a file: the old score is 100 times the new one, the two best hits are matches."""

    def make(*, labelled: bool = True, task=None, kind="query-passage", fingerprint=None):
        middle = (hits[1]["score"] + hits[2]["score"]) / 2
        new = middle + np.linspace(-0.02, 0.02, 41)[np.arange(41) != 20]
        labels = (new > middle).astype(np.int64) if labelled else np.full(40, -1)
        made = calibrate_scores(
            {kind: PairScores(old=100 * new, new=new, labels=labels)},
            ScoredModel(name="old", fingerprint="f-old", scale=100.0),
            ScoredModel(name="tiny", fingerprint=fingerprint or model.fingerprint),
            options=CalibrationOptions(samples=5),
            settings={"task": task, "encoding": {}},
        )
        made.save(tmp_path / "c.json")
        return tmp_path / "c.json"

    return make


def test_results_below_a_threshold_are_left_out(nvembed, corpus, hits):
    args = ("search", corpus, "-q", "dogs", "--json", "--threshold")
    middle = (hits[1]["score"] + hits[2]["score"]) / 2
    result = nvembed(*args, middle)
    assert (result.code, json.loads(result.out)) == (0, hits[:2])
    assert result.err == (
        f"nvembed: 1 of 3 results lie below {middle:.4f} (--threshold) and are left out\n"
    )
    assert json.loads(nvembed(*args, -1).out) == hits
    nothing = nvembed(*args, 1)
    assert (nothing.code, json.loads(nothing.out)) == (0, [])
    assert nvembed("search", corpus, "-q", "dogs", "--threshold", 1).out == ""


def test_each_of_many_queries_has_its_own_results(nvembed, corpus):
    args = ("search", corpus, "-q", "dogs", "-q", TEXTS[0], "--json")
    every = json.loads(nvembed(*args).out)
    limit = every[1]["results"][1]["score"] - 1e-6
    found = json.loads(nvembed(*args, "--threshold", limit).out)
    for before, after in zip(every, found, strict=True):
        assert after["results"] == [hit for hit in before["results"] if hit["score"] >= limit]
    assert len(found[1]["results"]) == 2


def test_a_calibration_gives_threshold_and_probabilities(nvembed, corpus, hits, make_calibration):
    path = make_calibration()
    args = ("search", corpus, "-q", "dogs", "--json", "--calibration", path)
    result = nvembed(*args)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [{k: v for k, v in hit.items() if k != "probability"} for hit in found] == hits[:2]
    assert [hit["probability"] for hit in found] == [1, 1]
    assert f"(preset balanced of {path}) and are left out" in result.err
    old = 100 * (hits[0]["score"] + hits[1]["score"]) / 2
    low, high = 100 * (hits[1]["score"] - 0.02), 100 * (hits[0]["score"])
    assert low < old < high
    lines = nvembed("search", corpus, "-q", "dogs", "--calibration", path).out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("1  ")


def test_an_old_threshold_is_carried_over(nvembed, corpus, hits, make_calibration):
    path = make_calibration(labelled=False)
    middle = (hits[1]["score"] + hits[2]["score"]) / 2
    args = ("search", corpus, "-q", "dogs", "--json", "--calibration", path)
    result = nvembed(*args, "--threshold", 100 * middle)
    assert result.code == 0, result.err
    assert json.loads(result.out) == hits[:2]  # no labels, no probabilities
    assert "(the old model's" in result.err


def test_calibrations_that_do_not_apply_are_refused(nvembed, one_error, corpus, make_calibration):
    args = ("search", corpus, "-q", "dogs", "--calibration")
    path = make_calibration(fingerprint="f-other")
    assert "c.json: the calibration is for model tiny (f-other)" in one_error(
        nvembed(*args, path), 1
    )
    path = make_calibration(task="Find pets")
    assert "c.json: the calibration was made with the task 'Find pets'" in one_error(
        nvembed(*args, path), 1
    )
    assert nvembed(*args, path, "--task", "Find pets").code == 0
    path = make_calibration(kind="passage-passage")
    assert "c.json: calibrated were passage-passage pairs" in one_error(nvembed(*args, path), 1)
    path = make_calibration(labelled=False)
    assert "c.json: there are no presets" in one_error(nvembed(*args, path), 1)
    assert "is none of the old model's" in one_error(nvembed(*args, path, "--threshold", 0.5), 1)


def test_options_that_clash_are_wrong_usage(nvembed, one_error, corpus):
    for args, part in (
        (("--threshold", 1.2), "--threshold is a cosine"),
        (("--preset", "balanced"), "give --calibration FILE"),
        (("--threshold", 0.5, "--hybrid"), "fused scores"),
        (("--threshold", 0.5, "--preset", "balanced", "--calibration", "c"), "two thresholds"),
    ):
        assert part in one_error(nvembed("search", corpus, "-q", "x", *args), 2)
