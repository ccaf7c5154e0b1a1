"""`nvembed decontaminate`: options, the summary, failures that leave nothing."""

from __future__ import annotations

import json
import os

import pytest

ROWS = [
    {"query": "what is a bond", "positive": "a loan", "note": 1},
    {"query": "what is a share", "positive": "a part of a company"},
    {"query": "who sings", "positive": "a man"},
]


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    for name in ("fiqa", "other"):
        (folder / name).mkdir(parents=True)
    (folder / "fiqa" / "queries.jsonl").write_text('{"_id": 1, "text": "What is a BOND"}\n')
    (folder / "fiqa" / "corpus.jsonl").write_text('{"_id": 1, "text": "A part of a company"}\n')
    return folder


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_contaminated_rows_are_dropped_and_summed_up(nvembed, tmp_path, pairs, tasks):
    out = tmp_path / "out.jsonl"
    result = nvembed("decontaminate", pairs, "--against", tasks, "-o", out)
    assert result.code == 0, result.err
    assert read(out) == ROWS[2:]
    assert "dropped  2 (66.7%)" in result.out
    assert "by exact    2" in result.out
    assert "in fiqa: 2" in result.out
    assert "no evaluation texts in 1 folders" in result.err
    report = json.loads((tmp_path / "out.jsonl.report.json").read_text())
    assert [row["line"] for row in report["dropped_rows"]] == [1, 2]


def test_options_reach_the_library(nvembed, tmp_path, pairs, tasks):
    out = tmp_path / "out.jsonl"
    (tmp_path / "extra.txt").write_text("who sings\n")
    common = ("decontaminate", pairs, "--against", tasks / "fiqa", "-o", out)
    assert nvembed(*common, "--no-corpus").code == 0
    assert read(out) == ROWS[1:]
    assert nvembed(*common, "--fields", "positive", "--split", "test").code == 0
    assert read(out) == [ROWS[0], ROWS[2]]
    assert nvembed(*common, "--methods", "bm25").code == 0
    assert read(out) == ROWS
    thresholds = ("--minhash-threshold", "0.9", "--bm25-threshold", "0.9")
    more = ("--against", tmp_path / "extra.txt", "--methods", "exact, minhash")
    assert nvembed(*common, *thresholds, *more).code == 0
    assert read(out) == []


def test_failures_are_one_line_and_leave_nothing(nvembed, one_error, tmp_path, pairs, tasks):
    (tmp_path / "bad.jsonl").write_text('{"query": "q"}\n')
    before, out = sorted(os.listdir(tmp_path)), tmp_path / "out.jsonl"
    for args, code, part in (
        ((tmp_path / "bad.jsonl", "--against", tasks, "-o", out), 1, "bad.jsonl:1: no 'positive'"),
        ((pairs, "--against", tmp_path / "no", "-o", out), 1, "no such file or folder"),
        ((pairs, "--against", tasks / "other", "-o", out), 1, "no evaluation texts"),
        ((pairs, "--against", tasks, "-o", tmp_path / "o.csv"), 1, "expected a .jsonl"),
        ((pairs, "-o", out), 2, "--against"),
        ((pairs, "--against", tasks, "-o", out, "--methods", "fuzzy"), 2, "got fuzzy"),
        ((pairs, "--against", tasks, "-o", out, "--bm25-threshold", "8"), 2, "up to 1"),
    ):
        assert part in one_error(nvembed("decontaminate", *args), code)
    assert sorted(os.listdir(tmp_path)) == before
