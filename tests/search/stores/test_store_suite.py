"""What every store does: exact cosines, upserts, filters, durable deletes, refusals."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import made_stores
import numpy as np
import pytest
from made_stores import DIM, TEXTS, TextModel, build, schema, unit_vectors

from nvembed_jax.search.stores import Condition, make_store, open_store

ODD = [
    "o'neil",
    'say "hi"',
    "back\\slash",
    "two\nlines",
    "tab\t",
    "数据 é",
    "a; DROP TABLE",
    "%_",
    "#0",
]
LANGS = ["en", "de", None, "o'neil", 'q"\\']
COUNT = 60


def payload(i: int) -> dict:
    return {
        "lang": LANGS[i % 5],
        "year": None if i % 7 == 6 else 2000 + i % 10 - 5,
        "price": i / 4,
        "new": i % 3 == 0,
    }


def ids(count: int = COUNT) -> list[str]:
    return [f"p{i}" for i in range(count)]


@pytest.fixture
def filled(store):
    store.add(ids(), unit_vectors(COUNT), payloads=[payload(i) for i in range(COUNT)])
    return store


def test_search_gives_exact_cosines_in_order(make):
    store = make(fields={})
    vectors, queries = unit_vectors(300), unit_vectors(5, seed=1)
    store.add(ids(300), vectors)
    expected = queries @ vectors.T
    for found, scores in zip(store.search(queries, 20), expected, strict=True):
        order = np.argsort(-scores)[:20]
        assert [match.id for match in found] == [f"p{i}" for i in order]
        np.testing.assert_allclose([match.score for match in found], scores[order], atol=1e-5)


def test_search_gives_all_where_k_is_more_and_none_where_nothing_is(filled, make):
    assert [len(found) for found in filled.search(unit_vectors(2), 200)] == [COUNT] * 2
    filled.delete(ids())
    assert filled.count() == 0
    assert filled.search(unit_vectors(2), 5) == [[], []]
    assert filled.search(np.zeros((0, DIM), np.float32), 5) == []


def test_payloads_come_back_as_they_were(filled):
    found = filled.fetch(["p0", "p6", "nowhere"])
    assert set(found) == {"p0", "p6"}
    system = {"text": None, "chunk": 0, "digest": None}
    assert found["p6"] == {**payload(6), **system, "document": "p6"}
    match = filled.search(unit_vectors(COUNT)[3:4], 1)[0][0]
    assert (match.id, match.payload) == ("p3", {**payload(3), **system, "document": "p3"})
    assert [type(found["p0"][name]) for name in made_stores.FIELDS] == [str, int, float, bool]


def test_adding_an_id_again_replaces_it(filled):
    vector = unit_vectors(1, seed=9)
    filled.add(["p3"], vector, texts=["new text"], payloads=[{"lang": "fr"}])
    assert filled.count() == COUNT
    best = filled.search(vector, 2)[0]
    assert (best[0].id, best[0].payload["text"], best[0].payload["lang"]) == (
        "p3", "new text", "fr",
    )  # fmt: skip
    assert best[0].payload["year"] is None
    assert best[1].score < 0.99


COMPARE = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt,
           ">=": operator.ge, "in": lambda value, values: value in values}  # fmt: skip


FILTERS = [
    [("lang", "=", "en")],
    [("lang", "=", "o'neil")],
    [("lang", "=", 'q"\\')],
    [("lang", "=", "EN")],
    [("lang", "in", ["de", 'q"\\', "xx"])],
    [("year", "=", 1997)],
    [("year", "in", [1996, 2001])],
    [("year", ">=", 1999)],
    [("year", "<", -5)],
    [("price", "=", 2.5)],
    [("price", "in", [0.25, 3])],
    [("price", "<=", 1.25)],
    [("new", "=", True)],
    [("new", "in", [False])],
    [("new", "in", [True, False])],
    [("lang", "=", "en"), ("year", ">", 1996), ("year", "<=", 2003), ("new", "=", False)],
]


def test_filters_hold(filled):
    query = unit_vectors(1, seed=3)
    for conditions in FILTERS:
        expected = {
            f"p{i}"
            for i in range(COUNT)
            if all(
                payload(i)[name] is not None and COMPARE[op](payload(i)[name], value)
                for name, op, value in conditions
            )
        }
        found = filled.search(query, COUNT, [Condition(*c) for c in conditions])[0]
        assert {match.id for match in found} == expected, conditions
        scores = [match.score for match in found]
        assert scores == sorted(scores, reverse=True), conditions
        few = filled.search(query, 3, [Condition(*c) for c in conditions])[0]
        np.testing.assert_allclose([match.score for match in few], scores[:3], atol=1e-5)


def test_filters_that_a_store_cannot_express_raise(filled):
    condition = Condition("lang", ">", "de")
    if filled.kind == "qdrant":
        with pytest.raises(ValueError, match="no order of strings"):
            filled.search(unit_vectors(1), 5, [condition])
        with pytest.raises(ValueError, match="64-bit floats"):
            filled.search(unit_vectors(1), 5, [Condition("year", "<", 2**60)])
    else:
        found = filled.search(unit_vectors(1), COUNT, [condition])[0]
        assert {match.payload["lang"] for match in found} == {"en", "o'neil", 'q"\\'}


def test_wrong_filters_are_refused(filled):
    for condition, message in (
        (("lnag", "=", "en"), "did you mean 'lang'"),
        (("lang", "~", "en"), "operator must be one of"),
        (("year", "=", "1997"), "expected int"),
        (("year", "=", 1997.5), "expected int"),
        (("year", "=", 2**63), "64 bits"),
        (("price", "<", float("nan")), "finite"),
        (("new", ">", True), "no order"),
        (("lang", "in", []), "one value or more"),
        (("lang", "in", "en"), "needs a list"),
    ):
        with pytest.raises(ValueError, match=message):
            filled.search(unit_vectors(1), 5, [Condition(*condition)])


def test_odd_strings_are_ids_texts_and_values(store):
    names = [*ODD, "x" * 300]
    vectors = unit_vectors(len(names))
    store.add(names, vectors, texts=names, payloads=[{"lang": name} for name in names])
    store.add(names, vectors, texts=names, payloads=[{"lang": name} for name in names])
    assert store.count() == len(names)
    assert set(store.fetch(names)) == set(names)
    for name, vector in zip(names, vectors, strict=True):
        found = store.search(vector[None], 5, [Condition("lang", "=", name)])[0]
        assert [(match.id, match.payload["text"]) for match in found] == [(name, name)]
    store.delete(names[:4])
    store.delete_documents(names[4:])
    assert store.count() == 0


def test_documents_are_deleted_with_all_chunks(store):
    names = [f"d{d}#{c}" for d in range(3) for c in range(20)]
    payloads = [{"document": n.split("#")[0], "chunk": int(n.split("#")[1])} for n in names]
    store.add(names, unit_vectors(60), payloads=payloads)
    store.delete_documents(["d1", "d9"])
    assert store.count() == 40
    left = store.search(unit_vectors(1), 60)[0]
    assert {match.payload["document"] for match in left} == {"d0", "d2"}


def test_bad_points_are_refused_and_nothing_is_written(store):
    good = unit_vectors(2)
    for names, vectors, payloads, message in (
        (["a", "b"], unit_vectors(2, dim=8), None, r"expected \[2, 16\] for 2 ids of first"),
        (["a"], good, None, "expected"),
        (["a", "b"], good * 2, None, "has length 2; expected unit vectors"),
        (["a", "b"], good * np.nan, None, "has length nan"),
        (["a", "a"], good, None, "'a' stands twice"),
        (["a", ""], good, None, "not empty"),
        (["a", "b"], good, [{}, {"yaer": 1}], "did you mean 'year'"),
        (["a", "b"], good, [{}, {"year": "1"}], "'year' of 'b': expected int; got '1'"),
        (["a", "b"], good, [{}, {"new": 1}], "expected bool"),
        (["a", "b"], good, [{}, {"price": float("inf")}], "finite"),
        (["a", "b"], good, [{}, {"lang": ["en"]}], "expected str"),
    ):
        with pytest.raises(ValueError, match=message):
            store.add(names, vectors, payloads=payloads)
    assert store.count() == 0
    with pytest.raises(ValueError, match=r"expected \[1, 16\]"):
        store.search(unit_vectors(1, dim=8), 1)
    with pytest.raises(ValueError, match="k must be 1"):
        store.search(good, 0)


def test_threads_share_a_store(store):
    vectors = unit_vectors(80)

    def work(part: int) -> list[str]:
        names = [f"t{part}-{i}" for i in range(20)]
        store.add(names, vectors[part * 20 : part * 20 + 20])
        found = store.search(vectors[part * 20 : part * 20 + 20], 1)
        return [name for name, match in zip(names, found, strict=True) if match[0].id != name]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [[]] * 4
    assert store.count() == 80


def test_adds_and_deletes_survive_a_restart(place):
    vectors = unit_vectors(COUNT)
    with place.make() as store:
        store.add(ids(), vectors, payloads=[payload(i) for i in range(COUNT)])
        store.delete(["p1", "p2"])
        before = store.search(vectors[:4], COUNT)
    with place.open() as store:
        assert store.count() == COUNT - 2
        after = store.search(vectors[:4], COUNT)
        assert [[m.id for m in found] for found in after] == [[m.id for m in f] for f in before]
        store.delete_documents(["p3"])
        store.add(["p2"], vectors[2:3])
    with place.open() as store:
        assert set(store.fetch(ids(5))) == {"p0", "p2", "p4"}
        assert store.schema == schema()


def test_store_of_another_model_is_refused_by_both_names(place):
    with place.make() as store:
        store.add(["a"], unit_vectors(1))
    for changes, message in (
        ({"fingerprint": "f2", "model_name": "second"}, r"model first \(f1\), not with second"),
        ({"dim": 8}, "vectors of 16 dimensions .*makes 8"),
        ({"fields": {"lang": "str"}}, 'fields .*"price": "float".*not {"lang": "str"}'),
        ({"settings": {"tokens": 9}}, 'settings {}, not {"tokens": 9}'),
    ):
        with pytest.raises(ValueError, match=message):
            place.make(**changes)
    with pytest.raises(ValueError, match=r"first \(f1\), not with second \(f2\)"):
        place.open(fingerprint="f2", model_name="second")
    with place.open(fingerprint="f1") as store:
        assert store.count() == 1


def test_codes_are_refused_where_only_floats_are_kept(place):
    if place.kind == "faiss":
        place.make(embedding_type="int8").close()
        with pytest.raises(ValueError, match='embedding type "int8", not "binary"'):
            place.make(embedding_type="binary")
    else:
        with pytest.raises(ValueError, match="not int8 codes; use faiss"):
            place.make(embedding_type="int8")


def test_store_whose_making_was_cut_short_is_completed(place):
    with pytest.raises(FileNotFoundError, match="nvembed index build"):
        place.open()
    if not place.where.startswith("http"):
        Path(place.where).mkdir()
        Path(place.where, "store.json").write_text(f'{{"kind": "{place.kind}"}}')
        with pytest.raises(FileNotFoundError, match="there is no store"):
            place.open()
    with place.make() as store:
        assert store.count() == 0


@pytest.mark.parametrize("kind", ["faiss", "lancedb"])
def test_a_store_that_is_open_sees_what_another_writes(tmp_path, kind):
    vectors = unit_vectors(20)
    where = tmp_path / "s"
    with make_store(where, schema(), kind) as one, open_store(where) as other:
        one.add(["a", "b"], vectors[:2])
        assert other.search(vectors[:1], 5)[0][0].id == "a"
        one.delete(["a"])
        one.add(["c"], vectors[:1])
        assert {match.id for match in other.search(vectors[:1], 5)[0]} == {"b", "c"}
        other.add(["d"], vectors[3:4])
        assert {match.id for match in one.search(vectors[:1], 5)[0]} == {"b", "c", "d"}


def in_another_process(*args: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.run([sys.executable, *args], env=environment, capture_output=True)


@pytest.mark.parametrize("kind", ["milvus", "qdrant"])
def test_a_folder_in_use_is_refused_to_another_process(tmp_path, kind):
    where = str(tmp_path / "store")
    code = f"from nvembed_jax.search.stores import open_store; open_store({where!r})"
    with make_store(where, schema(), kind):
        done = in_another_process("-c", code)
    assert done.returncode == 1
    message = f"ValueError: {where}: cannot be opened; is another process using it?"
    assert done.stderr.decode().splitlines()[-1].startswith(message)
    assert in_another_process("-c", code).returncode == 0


@pytest.mark.parametrize("kind", ["faiss", "lancedb", "milvus", "qdrant"])
def test_a_killed_build_is_completed_by_the_same_build(tmp_path, kind):
    where = str(tmp_path / "store")
    for die_at in (2, 3):
        done = in_another_process(made_stores.__file__, where, kind, str(die_at))
        assert done.returncode == -9, done.stderr.decode()
    model = TextModel()
    report = build(where, kind, model)
    assert (report.texts, len(model.encoded)) == (TEXTS, report.encoded)
    assert 0 < report.encoded <= TEXTS - 100  # what the killed ones wrote was not made again
    assert report.unchanged == TEXTS - report.encoded
    with make_store(where, schema(fields={"year": "int"}), kind) as store:
        assert store.count() == TEXTS
        found = store.search(unit_vectors(1), TEXTS + 9)[0]
    assert sorted(match.id for match in found) == sorted(f"d{i}" for i in range(TEXTS))
    assert all(match.payload["text"] == f"text number {match.id[1:]}" for match in found)
