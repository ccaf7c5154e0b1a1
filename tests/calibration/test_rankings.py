"""Two systems over the same queries: agreement by hand, and indexes of real files."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from nvembed_jax.calibration.rankings import (
    compare_rankings,
    overlap,
    rank_corpus,
    rank_correlation,
    rank_index,
)
from nvembed_jax.data.records import Record
from nvembed_jax.search.index import IndexRequest, build_index


@pytest.mark.parametrize(
    ("first", "second", "share", "tau"),
    [
        ("abc", "abc", 1, 1),
        ("abc", "cba", 1, -1),
        ("abc", "acb", 1, 1 / 3),
        ("ab", "cd", 0, -0.5),  # pairs ab, cd: tied on one side; ac, ad, bc, bd: against
        ("a", "b", 0, -1),
        ("", "", 1, 1),
        ("abcd", "abce", 3 / 4, None),
    ],
)
def test_overlap_and_correlation_of_small_rankings(first, second, share, tau):
    assert overlap(list(first), list(second)) == share
    found = rank_correlation(list(first), list(second))
    if tau is None:
        assert 0.5 < found < 1
    else:
        assert found == pytest.approx(tau, abs=0.31 if tau == -0.5 else 1e-12)
    assert found == pytest.approx(rank_correlation(list(second), list(first)))


def test_what_changed_most_comes_first(tmp_path):
    first = [list("abc"), list("abc"), list("abc")]
    second = [list("abc"), list("xyz"), list("bac")]
    found = compare_rankings(["same", "other", "swapped"], first, second, 2)
    assert [change.query for change in found.changes] == ["other", "swapped", "same"]
    assert found.overlap == pytest.approx(2 / 3)
    assert found.same_first == pytest.approx(1 / 3)
    assert found.changes[0].first == ["a", "b"]
    low, high = found.intervals["overlap"]
    assert 0 <= low < found.overlap < high <= 1
    found.save(tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["changes"][0]["second"] == ["x", "y"]
    assert data["k"] == 2


@pytest.mark.parametrize(
    ("queries", "first", "second", "k", "words"),
    [
        ([], [], [], 1, "at least one query"),
        (["q"], [["a"]], [], 1, "1 queries, 1 and 0 rankings"),
        (["q"], [["a"]], [["a"]], 0, "k must be at least 1"),
        (["q"], [["a", "a"]], [["a", "b"]], 2, "holds an id twice"),
    ],
)
def test_rankings_that_do_not_fit_are_refused(queries, first, second, k, words):
    with pytest.raises(ValueError, match=words):
        compare_rankings(queries, first, second, k)


class LetterModel:
    """Embeds a text by the letters in it; queries with their task's too."""

    config = SimpleNamespace(name="letters")

    def __init__(self, fingerprint: str = "letters", letters: str = "abcdefgh") -> None:
        self.fingerprint, self.letters = fingerprint, letters

    def encode_document(self, inputs, **options) -> np.ndarray:
        counts = [[text.count(letter) + 1e-3 for letter in self.letters] for text in inputs]
        rows = np.array(counts, np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_query(self, inputs, task=None, **options) -> np.ndarray:
        return self.encode_document([f"{text}{task or ''}" for text in inputs])


RECORDS = [Record("1", "aaa"), Record("2", "abb"), Record("3", "bcc"), Record("4", "ddd")]


def test_a_corpus_is_ranked_by_a_model():
    model = LetterModel()
    found = rank_corpus(lambda: RECORDS, model, ["a", "d"], 2, block=2)
    assert found == [["1", "2"], ["4", "3"]]
    assert rank_corpus(lambda: RECORDS, model, ["a"], 9, task="bbbb")[0] == ["2", "3", "1", "4"]


def test_an_index_is_searched_with_its_own_model_only(tmp_path):
    model = LetterModel()
    index = build_index(
        tmp_path / "index",
        IndexRequest(records=lambda: RECORDS, digest="d", model=model, model_name="letters"),
    )
    assert rank_index(index, model, ["bc"], 1) == [["3"]]
    with pytest.raises(ValueError, match=r"was made with model letters \(letters\), not with oth"):
        rank_index(index, LetterModel("other"), ["bc"], 1)
