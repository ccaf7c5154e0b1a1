"""`nvembed mine`: options that reach the library, the summary, failures that leave nothing."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

ROWS = [
    {"query": "where is the cat", "positive": "the cat sat on the mat", "source": "a"},
    {"query": "do dogs bark", "positive": ["dogs bark", "yes, they do"]},
    {"query": "what is descent", "positive": "gradient descent", "task": "Define it"},
]
CORPUS = ["tea is hot", "the moon is far", "dogs bark", "rivers run", "birds sing"]


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": t}) + "\n" for i, t in enumerate(CORPUS))
    )
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_naive_negatives_are_the_nearest_texts(nvembed, tmp_path, model, pairs, corpus):
    out = tmp_path / "out.jsonl"
    result = nvembed(
        "mine", pairs, "-o", out, "--corpus", corpus, "--method", "naive", "--negatives", "3"
    )
    assert result.code == 0, result.err
    assert "queries    3" in result.out
    assert "pool       5 texts" in result.out
    assert "3.00 a query" in result.out
    assert "wrote 3 examples" in result.err
    passages = model.encode_document(CORPUS)
    for row, given in zip(read(out), ROWS, strict=True):
        assert {key: row[key] for key in given} == given
        scores = passages @ model.encode_query(given["query"], task=given.get("task"))
        order = [i for i in np.argsort(-scores) if CORPUS[i] not in given["positive"]]
        assert row["negatives"] == [CORPUS[i] for i in order[:3]]
        np.testing.assert_allclose(row["negative_scores"], scores[order[:3]], atol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl", "out.jsonl", "pairs.jsonl"]


def test_options_reach_the_library(nvembed, tmp_path, make_model, pairs, corpus):
    out, cache = tmp_path / "out.jsonl", tmp_path / "cache"
    common = ("mine", pairs, "-o", out, "--corpus", corpus, "--cache", cache)
    assert nvembed(*common, "--method", "abs", "--threshold", "-1").code == 0
    assert [row["negatives"] for row in read(out)] == [[], [], []]
    assert nvembed(*common, "--method", "shifted", "--threshold", "4").code == 0
    assert [len(row["negatives"]) for row in read(out)] == [1, 0, 1]
    assert nvembed(*common, "--positives", "each", "--group-key", "g").code == 0
    assert [row["positive"] for row in read(out)][1:3] == ROWS[1]["positive"]
    assert "g" in read(out)[1]
    args = ("--method", "random", "-n", "2", "--seed", "3", "--task", "Find it")
    assert nvembed(*common, *args).code == 0
    assert all(len(row["negatives"]) == 2 for row in read(out))
    several = ("--combine", "intersect", "--depth", "3", "--sample", "9", "--max-depth", "4")
    two = ("-m", make_model(0), "-m", make_model(1))
    result = nvembed(*common, *several, *two)
    assert result.code == 0, result.err
    assert len(list(cache.glob("passages-*.npy"))) == 2


def test_the_pool_is_the_positives_and_negatives_when_asked(nvembed, tmp_path, pairs):
    out, again = tmp_path / "out.jsonl.gz", tmp_path / "again.jsonl"
    result = nvembed("mine", pairs, "-o", out, "--method", "naive")
    assert "pool       4 texts" in result.out
    assert "3 queries with fewer than 7" in result.out
    result = nvembed("mine", out, "-o", again, "--pool-negatives", "--method", "naive")
    assert result.code == 0, result.err
    assert "3 rows had negatives of their own" in result.err


def test_failures_are_one_line_and_leave_nothing(nvembed, one_error, tmp_path, pairs):
    out = tmp_path / "out.jsonl"
    (tmp_path / "bad.jsonl").write_text('{"query": "q", "positive": "p"}\n{"query": "q"}\n')
    for args, code, part in (
        ((tmp_path / "bad.jsonl", "-o", out), 1, "bad.jsonl:2: no 'positive'"),
        ((pairs, "-o", tmp_path / "no" / "out.jsonl"), 1, "there is no folder"),
        ((pairs, "-o", out, "--corpus", tmp_path / "none.jsonl"), 1, "no such file"),
        ((pairs, "-o", out, "-m", tmp_path / "nomodel"), 1, "nomodel"),
        ((pairs, "-o", out, "--method", "percpos"), 2, "percpos"),
        ((pairs, "-o", out, "--threshold", "95"), 2, "share of the positive's score"),
        ((pairs, "-o", out, "--sample", "3"), 2, "at least the 7 negatives"),
        ((pairs, "-o", out, "--method", "naive", "--threshold", "0.5"), 2, "has no threshold"),
    ):
        assert part in one_error(nvembed("mine", *args), code)
    assert sorted(os.listdir(tmp_path)) == ["bad.jsonl", "pairs.jsonl"]
