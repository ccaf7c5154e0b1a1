"""`nvembed calibrate` and `nvembed compare`: files, what is printed, wrong usage; and reports."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
from made_pairs import WrittenModel, rows, square, write_pairs

from nvembed_jax.calibration.artefact import load_calibration
from nvembed_jax.calibration.calibrate import calibrate
from nvembed_jax.calibration.report import write_report
from nvembed_jax.calibration.thresholds import CalibrationOptions
from nvembed_jax.cli.main import run
from nvembed_jax.data.records import Record
from nvembed_jax.search.index import IndexRequest, build_index

MODELS = {"one": lambda s: s, "two": square}


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(0)
    cosines = np.round(rng.uniform(0.05, 0.95, 80), 4)
    labels = cosines + 0.2 * rng.normal(size=80) > 0.5
    lines = rows(cosines, labels) + rows(cosines[:30], keys=("query", "passage"))
    return write_pairs(tmp_path / "pairs.jsonl", lines)


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs `nvembed ARGS` with models that read cosines from texts: (code, out, err)."""
    monkeypatch.setattr(
        "nvembed_jax.cli.options.load_model",
        lambda name, **options: WrittenModel(name, MODELS[name]),
    )

    def call(*args: object) -> tuple[int, str, str]:
        code = run([str(arg) for arg in args])
        return code, *capsys.readouterr()

    return call


def test_the_command_writes_what_it_prints(command, tmp_path, pairs, caplog):
    out, report = tmp_path / "c.json", tmp_path / "c.html"
    models = ("--old", "one", "--new", "two", "--samples", 50)
    code, printed, err = command(
        "calibrate", pairs, *models, "--threshold", 0.6, "-o", out, "--report", report
    )
    assert code == 0, err  # query-passage scores are negative here
    assert "the threshold 0.6 lies outside of the old model's scores of these pairs" in caplog.text
    assert "query-passage: 30 pairs" in printed
    code, printed, err = command("calibrate", pairs, *models, "--threshold", 60, "-o", out)
    assert code == 1
    assert "query-passage pairs: the threshold 60 lies outside" in err
    assert "and of its scale, -1 to 1; is that right?" in err
    lines = pairs.read_text().splitlines()[:80]
    pairs.write_text("\n".join(lines))
    code, printed, err = command(
        "calibrate", pairs, *models, "--threshold", 0.6, "-o", out, "--report", report
    )
    assert code == 0, err
    assert printed.startswith("passage-passage: 80 pairs, 80 with a label\n  old 0.6")
    for words in ("new, the same number", "the same share of pairs", "high precision: precision"):
        assert words in printed
    assert f"wrote {out} and {report}" in err
    calibration = load_calibration(out, "fingerprint of two")
    migration = calibration.kind("passage-passage").migrations[0]
    assert migration.new["share"].score.value == pytest.approx(0.36, abs=0.02)
    page = report.read_text()
    assert page.count("<svg") == 1
    assert "Calibration: one to two" in page
    assert "the same false positive rate" in page
    assert "fingerprint of two" in page


def test_without_labels_and_threshold_there_is_the_map_alone(command, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", rows(np.linspace(0.1, 0.9, 20)))
    out = tmp_path / "c.json"
    code, _, err = command("calibrate", pairs, "--old", "one", "--new", "two", "-o", out)
    assert code == 0, err
    assert "no presets for passage-passage pairs: they need labels, or --threshold" in err
    part = load_calibration(out).kind("passage-passage")
    assert part.mapping.to_new(np.array(0.5)) == pytest.approx(0.25, abs=0.01)


def test_scales_reach_the_calibration(command, tmp_path, pairs):
    out = tmp_path / "c.json"
    scales = ("--old-scale", 100, "--new-scale", 100, "--samples", 5)
    code, _, err = command("calibrate", pairs, "--old", "one", "--new", "two", *scales, "-o", out)
    assert code == 0, err
    calibration = load_calibration(out)
    assert (calibration.old.scale, calibration.new.scale) == (100, 100)
    mapped = calibration.cosine_threshold(50.0, "passage-passage")
    assert mapped == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("-o", "c.txt"), 2, "--output names a .json file"),
        (("-o", "c.json", "--precision", 1.5), 2, "precision must lie between 0 and 1"),
        (("-o", "c.json", "--samples", 0), 2, "--samples"),
        (("-o", "c.json", "--report", "c.docx"), 1, "cannot report to this suffix"),
        (("-o", "no/c.json"), 1, "there is no folder no"),
        (("-o", "c.json", "--old-scale", -1), 1, "a scale is a positive number"),
    ],
)
def test_wrong_usage(command, tmp_path, pairs, monkeypatch, args, code, words):
    monkeypatch.chdir(tmp_path)
    found, out, err = command("calibrate", pairs, "--old", "one", "--new", "two", *args)
    assert (found, out, err.count("\n")) == (code, "", 1), err
    assert words in err
    assert os.listdir(tmp_path) == ["pairs.jsonl"]


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_reports_are_pictures_of_both_kinds(tmp_path, pairs, suffix, magic):
    calibration, scores = calibrate(
        pairs,
        lambda: WrittenModel("one"),
        lambda: WrittenModel("two", square),
        options=CalibrationOptions(samples=5),
    )
    write_report(tmp_path / f"r{suffix}", calibration, scores)
    assert (tmp_path / f"r{suffix}").read_bytes().startswith(magic)


def test_missing_packages_are_named_before_the_work(command, tmp_path, pairs, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = command(
        "calibrate", pairs, "--old", "none", "--new", "none", "-o", tmp_path / "c.json",
        "--report", tmp_path / "c.png",
    )  # fmt: skip
    assert code == 1
    assert "nvembed_jax[eval]" in err


def test_compare_prints_what_changed(command, tmp_path):
    (tmp_path / "queries.txt").write_text("0.9 first\n0.2 second\n")
    lines = [{"_id": f"d{i}", "text": f"{i / 10:.1f} text"} for i in range(10)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ("compare", tmp_path / "queries.txt", "--old", "one", "--new", "two", "-k", 3)
    code, out, err = command(
        *args, "--corpus", tmp_path / "corpus.jsonl", "-o", tmp_path / "c.json"
    )
    assert code == 0, err
    assert out.startswith("queries           2\noverlap@3         ")
    assert "0.2 second" in out
    data = json.loads((tmp_path / "c.json").read_text())
    assert {change["query"] for change in data["changes"]} == {"0.9 first", "0.2 second"}
    assert all(len(change["first"]) == 3 for change in data["changes"])
    indexes = []
    for name in ("one", "two"):
        model = WrittenModel(name, MODELS[name])
        records = [Record(row["_id"], row["text"]) for row in lines]
        request = IndexRequest(
            records=lambda found=records: found, digest="", model=model, model_name=name
        )
        build_index(tmp_path / name, request)
        indexes += [f"--{'old' if name == 'one' else 'new'}-index", tmp_path / name]
    assert command(*args, *indexes) == (0, out, "")
    code, _, err = command(*args, *indexes[:3], tmp_path / "one")
    assert code == 1
    assert "was made with model one" in err


@pytest.mark.parametrize(
    "args", [(), ("--old-index", "x"), ("--corpus", "c", "--new-index", "x"), ("--top-k", 0)]
)
def test_compare_wants_a_corpus_or_two_indexes(command, tmp_path, args):
    (tmp_path / "q.txt").write_text("a\n")
    code, out, err = command("compare", tmp_path / "q.txt", "--old", "one", "--new", "two", *args)
    assert (code, out, err.count("\n")) == (2, "", 1), err
