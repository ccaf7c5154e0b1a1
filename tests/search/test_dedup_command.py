"""`nvembed dedup`: what goes, what stays as it was, groups, thresholds, and runs that go on."""

from __future__ import annotations

import gzip
import json
import os
from functools import partial

import jax
import numpy as np
import pytest
from written_vectors import WrittenVectors, written, written_command

from nvembed_jax import Embedder
from nvembed_jax.calibration.artefact import ScoredModel
from nvembed_jax.calibration.calibrate import calibrate_scores
from nvembed_jax.calibration.pairs import PairScores
from nvembed_jax.calibration.thresholds import CalibrationOptions
from nvembed_jax.config import tiny
from nvembed_jax.model import init_params
from nvembed_jax.search.dedup import dedup
from nvembed_jax.text.tokenizer import Tokenizer

LINES = [
    '{"_id": "a", "text": "1 0 Cats purr", "note":  1.0e5}',
    '{"text": "0 1 dogs bark",   "_id": "b", "more": {"x": [1, 2.50]}}',
    '{"_id": "c", "text": " 1 0  cats PURR\\n"}',
    "",
    '{"_id": "d", "text": "0.96 0.28 kittens purr loudly", "caf\\u00e9": null}',
    '{"_id": "e", "text": "  "}',
    '{"_id": "f", "text": "0.02 0.9998 hounds bark"}',
    '{"_id": "g", "text": " "}',
]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(LINES))  # no line feed at the end
    return path


@pytest.fixture
def command(capsys, monkeypatch):
    return written_command("dedup", 2, capsys, monkeypatch)


@pytest.fixture(scope="module")
def calibration():
    """For the model "new": 0.9 and more match."""
    rng = np.random.default_rng(0)
    new = np.concatenate([rng.uniform(0.92, 1, 40), rng.uniform(0, 0.88, 60)])
    scores = PairScores(old=new**2, new=new, labels=(new > 0.9).astype(np.int64))
    return calibrate_scores(
        {"passage-passage": scores},
        ScoredModel(name="old", fingerprint="fingerprint of old"),
        ScoredModel(name="new", fingerprint="fingerprint of new"),
        options=CalibrationOptions(samples=5),
    )


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_that_stay_are_as_they_were(command, source, tmp_path):
    out = tmp_path / "out.jsonl"
    code, printed, err = command(source, "-o", out, "--threshold", 0.95)
    assert code == 0, err
    assert out.read_text() == "".join(LINES[i] + "\n" for i in (0, 1, 5, 7))
    words = [line.split() for line in printed.splitlines()]
    assert words[0] == ["rows", "7"]
    assert words[1] == ["threshold", "0.9500", "(--threshold)"]
    assert words[2] == ["dropped", "3", "(42.9%)"]
    assert [line[:2] for line in words[3:5]] == [["exact", "1"], ["near", "2"]]
    assert printed.splitlines()[-2:] == ["groups     2, the largest of 3 rows", "kept       4"]
    assert "2 rows without any text were kept" in err
    assert f"wrote 4 rows to {out}" in err
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl"]
    assert [len(block) for block in command.models[0].encoded] == [4]  # each text once, no blank


def test_groups_tell_who_went_with_whom(command, source, tmp_path):
    groups = tmp_path / "groups.jsonl"
    args = (source, "-o", tmp_path / "out.jsonl", "--threshold", 0.95, "--groups", groups)
    code, _, err = command(*args)
    assert code == 0, err
    a = {"group": 0, "representative": "a"}
    b = {"group": 1, "representative": "b"}
    assert read(groups) == [
        {"id": "a", "line": 1, **a, "score": 1.0},
        {"id": "b", "line": 2, **b, "score": 1.0},
        {"id": "c", "line": 3, **a, "score": 1.0},
        {"id": "d", "line": 5, **a, "score": 0.96},
        {"id": "f", "line": 7, **b, "score": 0.9998},
    ]
    code, _, err = command(*args, "--keep", "longest")
    assert code == 0, err
    assert [row["_id"] for row in read(tmp_path / "out.jsonl")] == ["d", "e", "f", "g"]
    assert [(row["id"], row["representative"]) for row in read(groups)] == [
        ("a", "d"), ("b", "f"), ("c", "d"), ("d", "d"), ("f", "f"),
    ]  # fmt: skip


def test_lines_of_text_and_gzip_are_read_and_written(command, tmp_path):
    lines = ["1 0 one", "", "0 1 two", "1 0 ONE", "", "0.01 1 too", "", ""]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    code, _, err = command(
        tmp_path / "a.txt.gz", "-o", tmp_path / "b.txt", "--groups", tmp_path / "g.jsonl.gz"
    )
    assert code == 0, err
    assert (tmp_path / "b.txt").read_text() == "1 0 one\n\n0 1 two\n\n"
    with gzip.open(tmp_path / "g.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    assert [(row["id"], row["line"], row["representative"]) for row in rows] == [
        ("0", 1, "0"), ("2", 3, "2"), ("3", 4, "0"), ("5", 6, "2"),
    ]  # fmt: skip
    code, _, err = command(tmp_path / "b.txt", "-o", tmp_path / "c.txt.gz")
    assert code == 0, err
    # Blank lines at the end are no rows.
    assert gzip.decompress((tmp_path / "c.txt.gz").read_bytes()) == b"1 0 one\n\n0 1 two\n"


def test_rows_in_a_chain_go_with_a_note(command, tmp_path):
    angles = np.radians([0, 15, 30, 45])
    texts = [written((np.cos(a), np.sin(a)), f"text {i}") for i, a in enumerate(angles)]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    groups = tmp_path / "g.jsonl"
    code, _, err = command(
        tmp_path / "a.txt", "-o", tmp_path / "b.txt", "--groups", groups, "--threshold", 0.96
    )
    assert code == 0, err
    assert (tmp_path / "b.txt").read_text() == texts[0] + "\n"
    np.testing.assert_allclose([row["score"] for row in read(groups)], np.cos(angles), atol=2e-6)
    assert "2 dropped rows reach the threshold with others of their group" in err


def test_a_file_of_distinct_rows_stays(command, tmp_path):
    for lines in (["1 0 one"], [" ", "1 0 one"], ["1 0 one", "0 1 two"]):
        (tmp_path / "a.txt").write_text("\n".join(lines))
        code, printed, err = command(tmp_path / "a.txt", "-o", tmp_path / "b.txt")
        assert code == 0, err
        assert (tmp_path / "b.txt").read_text() == "\n".join(lines) + "\n"
        assert "groups     0, the largest of 0 rows" in printed
        assert "the default, whatever the model" in printed


def test_a_run_that_was_stopped_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    texts = [written(v, f"t{i}") for i, v in enumerate(rng.normal(size=(50, 2)))]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    out = tmp_path / "b.txt"
    again = partial(
        dedup, tmp_path / "a.txt", out, threshold=0.999, encode_block=8, show_progress_bar=False
    )
    with pytest.raises(KeyboardInterrupt):
        again(WrittenVectors(fail_after=3))
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt.cache"]
    model = WrittenVectors()
    report = again(model)
    assert [block[0] for block in model.encoded] == [texts[i] for i in (24, 32, 40, 48)]
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]
    first = out.read_bytes()
    assert again(WrittenVectors()) == report
    assert out.read_bytes() == first
    assert report.rows == 50 == report.kept + report.near
    assert report.near > 5
    kept = WrittenVectors()
    for _ in range(2):
        again(kept, cache=tmp_path / "cache", keep="longest")
    assert len(kept.encoded) == 7


def test_a_real_model_decides_as_all_pairs_do(tmp_path):
    config = tiny(vocab_size=8192)
    params = jax.jit(partial(init_params, config))(jax.random.key(0))
    model = Embedder(config, params, Tokenizer.packaged(config.text))
    texts = ["the cat sat", "The  cat sat", "a cat sat", "dogs bark", "a dog barks", "dogs bark!"]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    distinct = [t for i, t in enumerate(texts) if i != 1]
    cosines = model.similarity(*[model.encode_document(distinct)] * 2)
    values = np.sort(cosines[np.triu_indices(5, 1)])
    for threshold in ((values[-1] + values[-2]) / 2, (values[-3] + values[-4]) / 2):
        report = dedup(tmp_path / "a.txt", tmp_path / "b.txt", model, threshold=float(threshold))
        near = cosines >= threshold
        for _ in range(5):
            near = near @ near
        kept = [t for i, t in enumerate(distinct) if not near[i, :i].any()]
        assert (tmp_path / "b.txt").read_text().splitlines() == kept
        assert (report.exact, report.near) == (1, 5 - len(kept))
        assert 0 < report.near < 4


def test_a_calibration_gives_the_threshold(command, source, tmp_path, calibration):
    path, out = tmp_path / "c.json", tmp_path / "out.jsonl"
    calibration.save(path)
    args = (source, "-o", out, "-m", "new", "--calibration", path)
    code, printed, err = command(*args)
    assert code == 0, err
    expected = calibration.cosine_threshold("high_precision", "passage-passage")
    line = f"threshold  {expected:.4f} (preset high-precision of {path}, which was made for this"
    assert line in printed
    code, printed, err = command(*args, "--preset", "high-recall")
    assert code == 0, err
    assert "(preset high-recall of" in printed
    code, printed, err = command(*args, "--threshold", 0.9025)
    assert code == 0, err
    mapped = calibration.cosine_threshold(0.9025, "passage-passage")
    assert mapped == pytest.approx(0.95, abs=0.01)
    assert f"threshold  {mapped:.4f} (the old model's 0.9025 of {path}" in printed


def test_a_calibration_of_another_model_is_refused(command, source, tmp_path, calibration):
    path, out = tmp_path / "c.json", tmp_path / "out.jsonl"
    calibration.save(path)
    code, printed, err = command(source, "-o", out, "-m", "other", "--calibration", path)
    assert (code, printed) == (1, "")
    assert "c.json: the calibration is for model new (fingerprint of new), not for" in err
    assert command.models[0].encoded == []
    assert sorted(os.listdir(tmp_path)) == ["c.json", "in.jsonl"]


def test_an_input_that_changes_is_noticed(source, tmp_path):
    class Changing(WrittenVectors):
        def encode_document(self, inputs, **options):
            source.write_text("\n".join(LINES[:3]))
            return super().encode_document(inputs, **options)

    with pytest.raises(ValueError, match=r"in\.jsonl: changed while it was read"):
        dedup(source, tmp_path / "out.jsonl", Changing(), threshold=0.9)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (("none.jsonl", "-o", "o.jsonl"), 1, "none.jsonl: no such file"),
        (("bad.jsonl", "-o", "o.jsonl"), 1, "bad.jsonl:2: not JSON"),
        (("in.jsonl", "-o", "o.jsonl", "--field", "body"), 1, "in.jsonl:1: no field 'body'"),
        (("in.jsonl", "-o", "o.txt"), 1, "name a .jsonl"),
        (("a.csv", "-o", "o.csv"), 1, "expected .jsonl or .txt"),
        ((".", "-o", "o.jsonl"), 1, "is a folder"),
        (("-", "-o", "o.jsonl"), 1, "is standard input"),
        (("in.jsonl", "-o", "in.jsonl"), 1, "in.jsonl: is in.jsonl too"),
        (("in.jsonl", "-o", "o.jsonl", "--groups", "o.jsonl"), 1, "is o.jsonl too"),
        (("in.jsonl", "-o", "o.jsonl", "--groups", "g.txt"), 1, "expected a .jsonl"),
        (("in.jsonl", "-o", "no/o.jsonl"), 1, "there is no folder no"),
        (("in.jsonl", "-o", "o.jsonl", "--calibration", "in.jsonl"), 1, "is no calibration"),
        (("in.jsonl", "-o", "o.jsonl", "--threshold", 1.5), 2, "--threshold is a cosine"),
        (("in.jsonl", "-o", "o.jsonl", "--threshold", 0), 2, "over 0 and up to 1"),
        (("in.jsonl", "-o", "o.jsonl", "--preset", "balanced"), 2, "give --calibration FILE"),
        (("in.jsonl", "-o", "o.jsonl", "--preset", "best"), 2, "best"),
        (("in.jsonl", "-o", "o.jsonl", "--keep", "last"), 2, "last"),
    ],
)
def test_failures_are_one_line_and_leave_nothing(
    command, source, tmp_path, monkeypatch, args, code, part
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"text": "1 0"}\n{"text": \n')
    (tmp_path / "a.csv").write_text("text\na\n")
    before = sorted(os.listdir())
    found, printed, err = command(*args)
    assert (found, printed, err.count("\n")) == (code, "", 1), err
    assert part in err
    assert command.models == []
    assert sorted(os.listdir()) == before


def test_two_thresholds_are_one_too_many(command, source, tmp_path):
    args = ("--threshold", 0.5, "--preset", "balanced", "--calibration", "c.json")
    code, _, err = command(source, "-o", tmp_path / "o.jsonl", *args)
    assert code == 2
    assert "two thresholds" in err
