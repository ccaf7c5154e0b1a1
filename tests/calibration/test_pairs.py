"""Files of pairs: what is read, what is refused, and the scores that models give."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from made_pairs import WrittenModel, rows, square, write_pairs

from nvembed_jax.calibration import pairs
from nvembed_jax.calibration.pairs import (
    PASSAGE_PASSAGE,
    QUERY_PASSAGE,
    Pair,
    PairScores,
    read_pair_facts,
    read_pairs,
    score_pairs,
)


def test_both_kinds_of_pairs_are_read(tmp_path):
    lines = [
        {"query": "q", "passage": "p", "label": 1, "split": "test"},
        {"text1": "a", "text2": "b"},
        {"query": "q", "passage": "r", "label": False},
        {"text1": "a", "text2": "c", "label": None},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert list(read_pairs(tmp_path / "p.jsonl.gz")) == [
        Pair("q", "p", QUERY_PASSAGE, 1),
        Pair("a", "b", PASSAGE_PASSAGE, -1),
        Pair("q", "r", QUERY_PASSAGE, 0),
        Pair("a", "c", PASSAGE_PASSAGE, -1),
    ]
    facts = read_pair_facts(tmp_path / "p.jsonl.gz")
    assert facts.kinds.tolist() == [0, 1, 0, 1]
    assert facts.labels.tolist() == [1, -1, 0, -1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1]", r"p\.jsonl:2: a JSON list; expected \{"),
        ('{"text1": "a"}', r"p\.jsonl:2: expected .*got the keys 'text1'"),
        ('{"text1": "a", "text2": "b", "query": "c", "passage": "d"}', "got the keys"),
        ('{"text1": "a", "text2": 3}', "'text2' holds int; expected a string"),
        ('{"text1": "a", "text2": "b", "label": 2}', "the label is 2; expected 0 or 1"),
        ('{"text1": "a", "text2": "b", "label": 0.5}', r"the label is 0\.5"),
        ("{", r"p\.jsonl:2: not JSON"),
    ],
)
def test_bad_rows_are_named(tmp_path, line, words):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"text1": "a", "text2": "b"}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=words):
        list(read_pairs(path))


def test_files_without_pairs_or_with_one_label_are_refused(tmp_path):
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no pairs in it"):
        list(read_pairs(tmp_path / "p.jsonl"))
    write_pairs(tmp_path / "p.jsonl", rows([0.1, 0.2], [1, 1]))
    with pytest.raises(ValueError, match="all labels of passage-passage pairs are 1"):
        read_pair_facts(tmp_path / "p.jsonl")


def test_scores_are_cosines_of_the_right_calls_whatever_the_blocks(tmp_path, monkeypatch):
    cosines = [0.5, -0.25, 0.75]
    lines = rows(cosines) + rows(cosines, keys=("query", "passage"))
    path = write_pairs(tmp_path / "p.jsonl", lines[::2] + lines[1::2])
    model = WrittenModel("bent", square)
    expected = [0.25, 0.5625, -0.0625, 0.0625, -0.25, -0.5625]
    for block in (2048, 2):
        monkeypatch.setattr(pairs, "_BLOCK", block)
        scores = score_pairs(path, model, 6, task="find it")
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert set(model.tasks) == {"find it"}


def test_scores_that_are_none_are_refused():
    one = np.array([0.5])
    with pytest.raises(ValueError, match="NaN or infinity"):
        PairScores(old=one, new=np.array([np.nan]), labels=np.array([1]))
    with pytest.raises(ValueError, match="as many old scores"):
        PairScores(old=one, new=one, labels=np.array([1, 0]))
