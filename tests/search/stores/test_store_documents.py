"""Texts in stores: chunks, grouping, builds that go on, texts that change."""

from __future__ import annotations

import numpy as np
import pytest
from made_stores import TextModel, schema, unit_vectors

from nvembed_jax.data import Record
from nvembed_jax.search.index import Passage
from nvembed_jax.search.stores import Condition, make_store
from nvembed_jax.search.stores.documents import (
    BuildReport,
    BuildRequest,
    build_documents,
    delete_documents,
    search_documents,
)

LONG = " ".join(f"word{i}" for i in range(30))
CHUNKED = {"tokens": 1, "overlap": 0}


def by_words(record: Record) -> list[Passage]:
    return [Passage(record.id, word) for word in record.full_text.split()]


@pytest.fixture
def store(tmp_path):
    with make_store(tmp_path / "store", schema(settings=CHUNKED)) as opened:
        yield opened


def put(store, texts: dict[str, str], **options) -> tuple[BuildReport, list[str]]:
    model = TextModel()
    records = ((Record(id_, text), {"year": len(text)}) for id_, text in texts.items())
    options = {"split": by_words, "chunked": True} | options
    report = build_documents(store, BuildRequest(records=records, model=model, **options))
    return report, model.encoded


def query(text: str) -> np.ndarray:
    return TextModel().encode_document([text])


def test_a_text_is_its_best_chunk(store):
    texts = {"long": LONG, "short": "apple", "mid": "word3 pear"}
    report, _ = put(store, texts, block=4)
    assert report == BuildReport(texts=3, unchanged=0, encoded=33)
    hits = search_documents(store, query("word7"), 3)[0]
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert {hit.id for hit in hits} == set(texts)
    assert hits[0]._replace(score=1.0) == (1, 1.0, "long", "word7", 7, hits[0].payload)
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert hits[0].payload == {"lang": None, "year": len(LONG), "price": None, "new": None}
    for hit in hits:
        own = np.concatenate([query(word) for word in texts[hit.id].split()])
        assert hit.score == pytest.approx((own @ query("word7")[0]).max(), abs=1e-5)


def test_search_goes_deeper_where_one_text_has_all_the_best(store):
    vectors = np.tile(unit_vectors(1), (200, 1))
    payloads = [{"document": "greedy", "chunk": i} for i in range(200)]
    store.add([f"greedy#{i}" for i in range(200)], vectors, payloads=payloads)
    store.add(["other#0"], unit_vectors(1, seed=5), payloads=[{"document": "other", "year": 7}])
    assert [h.id for h in search_documents(store, vectors[:1], 2)[0]] == ["greedy", "other"]
    assert [h.id for h in search_documents(store, vectors[:1], 50)[0]] == ["greedy", "other"]
    late = search_documents(store, vectors[:1], 2, [Condition("year", "=", 7)])[0]
    assert [hit.id for hit in late] == ["other"]
    store.most_matches = 100
    with pytest.raises(ValueError, match="at most 100 points, which belong to fewer than 2 texts"):
        search_documents(store, vectors[:1], 2)


def test_only_what_differs_is_encoded_again(store):
    texts = {"a": "one two", "b": "three", "c": "four five six"}
    put(store, texts)
    assert put(store, texts, block=1) == (BuildReport(3, 3, 0), [])
    report, encoded = put(store, {"a": "one two", "b": "drei", "d": "seven"})
    assert (report, encoded) == (BuildReport(3, 1, 2), ["drei", "seven"])
    assert store.count() == 2 + 1 + 3 + 1  # c was not named, so it stays


def test_texts_that_became_shorter_or_empty_lose_their_chunks(store):
    put(store, {"a": "one two three", "b": "four five"})
    report, encoded = put(store, {"a": "one", "b": " "})
    assert (report.encoded, encoded) == (1, ["one"])
    assert set(store.fetch([f"{x}#{i}" for x in "ab" for i in range(3)])) == {"a#0"}


def test_chunks_left_by_a_build_that_died_are_removed(store):
    put(store, {"a": "one two three"})
    store.delete(["a#0"])  # a delete that was cut short
    assert put(store, {"a": "new"})[1] == ["new"]
    assert set(store.fetch(["a#0", "a#1", "a#2"])) == {"a#0"}


def test_a_changed_payload_replaces_the_text(store):
    put(store, {"a": "one"})
    request = BuildRequest(
        records=[(Record("a", "one"), {"year": 1})], model=TextModel(), split=by_words, chunked=True
    )
    assert build_documents(store, request).encoded == 1
    assert store.fetch(["a#0"])["a#0"]["year"] == 1


def test_deleting_says_which_ids_are_unknown(store):
    put(store, {"a": "one two", "b": "three"})
    assert delete_documents(store, ["a", "z", "b#0"]) == ["z", "b#0"]
    assert store.count() == 1


def test_whole_texts_keep_their_ids(tmp_path):
    with make_store(tmp_path / "s", schema()) as store:
        model = TextModel()
        records = [(Record("a#0", "text", "title"), {}), (Record("b", ""), {})]
        done = build_documents(store, BuildRequest(records=records, model=model))
        assert (done, model.encoded) == (BuildReport(2, 0, 1), ["title text"])
        hit = search_documents(store, query("title text"), 5)[0][0]
        assert (hit.id, hit.text, hit.chunk) == ("a#0", "title text", 0)
        assert delete_documents(store, ["a#0"]) == []
        with pytest.raises(ValueError, match="every text of the corpus is empty"):
            build_documents(store, BuildRequest(records=[(Record("b", ""), {})], model=model))


def test_progress_counts_texts(store):
    seen: list[int] = []
    put(store, {str(i): "one two" for i in range(7)}, block=4, progress=seen.append)
    assert seen == [2, 4, 6, 7]
