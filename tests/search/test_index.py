"""Index folders: made once, loaded when they fit, refused when not; a text is its best passage."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from nvembed_jax.data import Record
from nvembed_jax.search.index import IndexRequest, Passage, SearchIndex, build_index, open_index


class LetterModel:
    """Embeds a text as its counts of a, b, c and d."""

    def __init__(self, fingerprint: str = "f1"):
        self.fingerprint = fingerprint
        self.encoded: list[list[str]] = []

    def encode_document(self, inputs, **kwargs):
        self.encoded.append(list(inputs))
        return np.array([[text.count(c) for c in "abcd"] for text in inputs], np.float32)


RECORDS = [Record("x", "aab"), Record("y", "abb", "c"), Record("z", ""), Record("w", "dd aaa")]


def request(records=RECORDS, model=None, **kw) -> IndexRequest:
    fields = {"digest": repr(records), "model": model or LetterModel(), "model_name": "letters"}
    return IndexRequest(records=lambda: iter(records), **(fields | kw))


def by_words(record: Record) -> list[Passage]:
    return [Passage(record.id, word) for word in record.full_text.split()]


def query(*counts) -> np.ndarray:
    return np.array([counts], np.float32)


def test_hits_are_the_best_texts_in_order(tmp_path):
    index = build_index(tmp_path / "index", request())
    assert index.num_documents == 3  # the empty text is no find
    hits = index.search(query(1, 0, 0, 0), 3)[0]
    assert [(h.rank, h.score, h.id, h.text) for h in hits] == [
        (1, 3, "w", "dd aaa"), (2, 2, "x", "aab"), (3, 1, "y", "c abb"),
    ]  # fmt: skip


def test_a_text_scores_as_its_best_passage(tmp_path):
    records = [
        Record("many", "a aa aaa aaaa aaaaa aaaaaa"),
        Record("one", "ab"),
        Record("two", "b a"),
    ]
    index = build_index(tmp_path / "index", request(records, split=by_words))
    assert index.meta["passages"] == 9
    for k in (1, 2, 3):  # the first six passages are all of one text: more are fetched
        hits = index.search(query(1, 0, 0, 0), k)[0]
        assert [(h.id, h.text) for h in hits] == [("many", "aaaaaa"), ("one", "ab"), ("two", "a")][
            :k
        ]


def test_blocks_and_progress_do_not_change_the_index(tmp_path):
    seen: list[int] = []
    whole = build_index(tmp_path / "a", request(split=by_words))
    blocks = build_index(tmp_path / "b", request(split=by_words, block=1, progress=seen.append))
    np.testing.assert_array_equal(whole.embeddings, blocks.embeddings)
    assert list(whole.passages()) == list(blocks.passages())
    assert seen == [1, 2, 4]


def test_a_fitting_index_is_loaded_without_encoding(tmp_path):
    model = LetterModel()
    _, reason = open_index(tmp_path / "index", request(model=model))
    assert reason == "new"
    count = len(model.encoded)
    index, reason = open_index(tmp_path / "index", request(model=model))
    assert (reason, len(model.encoded)) == ("", count)
    assert index.search(query(0, 0, 0, 1), 1)[0][0].id == "w"


def test_a_changed_corpus_or_setting_makes_it_anew(tmp_path):
    folder = tmp_path / "index"
    open_index(folder, request())
    index, reason = open_index(folder, request(RECORDS[:2]))
    assert (reason, index.num_documents) == ("the corpus changed", 2)
    _, reason = open_index(folder, request(RECORDS[:2], settings={"tokens": 5}))
    assert reason == "the settings changed"
    assert os.listdir(tmp_path) == ["index"]


def test_another_model_is_refused_by_both_names(tmp_path):
    folder = tmp_path / "index"
    open_index(folder, request())
    other = replace(request(model=LetterModel("f2")), model_name="digits")
    with pytest.raises(ValueError, match=r"letters \(f1\).*digits \(f2\)"):
        open_index(folder, other)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not an index folder"):
        open_index(tmp_path, request())
    with pytest.raises(ValueError, match="is a file"):
        open_index(tmp_path / "mine.txt", request())
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        open_index(tmp_path / "a" / "b", request())
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_a_failed_build_leaves_the_old_index(tmp_path):
    class Failing(LetterModel):
        def encode_document(self, inputs, **kwargs):
            raise RuntimeError("out of memory")

    folder = tmp_path / "index"
    open_index(folder, request())
    with pytest.raises(RuntimeError, match="out of memory"):
        open_index(folder, request(RECORDS[:1], model=Failing()))
    assert os.listdir(tmp_path) == ["index"]
    assert SearchIndex(folder).num_documents == 3


def test_damaged_and_foreign_formats_are_named(tmp_path):
    folder = tmp_path / "index"
    build_index(folder, request())
    np.save(folder / "embeddings.npy", np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="damaged"):
        SearchIndex(folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"format_version": 99}))
    with pytest.raises(ValueError, match="index format 99"):
        SearchIndex(folder)


def test_hybrid_search_lifts_the_word_and_keeps_bm25(tmp_path):
    records = [Record(str(i), f"aaa {i}") for i in range(20)] + [Record("word", "aab zebra")]
    index = build_index(tmp_path / "index", request(records))
    assert index.search(query(1, 0, 0, 0), 1)[0][0].id == "0"
    first = index.search_hybrid(query(1, 0, 0, 0), ["zebras"], 3)
    assert [hit.id for hit in first[0]] == ["word", "0", "1"]
    assert (tmp_path / "index" / "bm25").is_dir()
    assert SearchIndex(tmp_path / "index").search_hybrid(query(1, 0, 0, 0), ["zebras"], 3) == first


def test_bad_requests_are_refused(tmp_path):
    index = build_index(tmp_path / "index", request())
    for k in (0, 4):
        with pytest.raises(ValueError, match="k must be 1 to 3"):
            index.search(query(1, 0, 0, 0), k)
    with pytest.raises(ValueError, match="NaN"):
        index.search(query(np.nan, 0, 0, 0), 1)
    with pytest.raises(ValueError, match="every text of the corpus is empty"):
        build_index(tmp_path / "none", request([Record("a", " ")]))
    assert os.listdir(tmp_path) == ["index"]
