"""Places of stores: folders, servers, what cannot be one; and Weaviate without a server."""

from __future__ import annotations

import socket
import sys

import pytest
from made_stores import schema

from nvembed_jax.search.stores import Condition, StoreSchema, make_store, open_store
from nvembed_jax.search.stores.location import parse_location
from nvembed_jax.search.stores.weaviate_store import filter_terms, properties


def test_servers_have_a_collection():
    place = parse_location("https://host:6333/news", "qdrant")
    assert (place.url, place.collection, place.folder) == ("https://host:6333", "news", None)
    place = parse_location("http://host:8080/News?grpc_port=50052", "weaviate")
    assert (place.url, place.collection, place.grpc_port) == ("http://host:8080", "News", 50052)


@pytest.mark.parametrize(
    ("where", "kind", "message"),
    [
        ("store", "chroma", "must be one of faiss, milvus"),
        ("store", "weaviate", "needs a server"),
        (":memory:", "faiss", "only qdrant"),
        ("http://host:1/x", None, r"none was given \(--kind\)"),
        ("http://host:1/x", "faiss", "got faiss"),
        ("http://host:1", "qdrant", "got ''"),
        ("http://host:1/a/b", "qdrant", "got 'a/b'"),
        ("ftp://host/x", "qdrant", "expected http"),
        ("http://host:1/x?grpc_port=5", "qdrant", "only option"),
        ("http://host:1/x?port=5", "weaviate", "only option"),
    ],
)
def test_places_that_cannot_be_are_refused(where, kind, message):
    with pytest.raises(ValueError, match=message):
        parse_location(where, kind)


def test_the_key_comes_from_the_environment(monkeypatch):
    place = parse_location("http://host:1/x", "qdrant")
    monkeypatch.delenv("NVEMBED_STORE_KEY", raising=False)
    assert place.key is None
    monkeypatch.setenv("NVEMBED_STORE_KEY", "secret")
    assert place.key == "secret"
    assert "secret" not in repr(place)


def test_folders_that_hold_something_else_are_left_alone(tmp_path):
    (tmp_path / "file").write_text("x")
    for where, message in (
        (tmp_path / "file", "is a file"),
        (tmp_path, "is not a store"),
        (tmp_path / "no" / "store", "there is no folder"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            make_store(where, schema())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(FileNotFoundError, match="no such store"):
        open_store(tmp_path / "store")
    make_store(tmp_path / "store", schema()).close()
    with pytest.raises(ValueError, match="is a faiss store; asked for was lancedb"):
        open_store(tmp_path / "store", "lancedb")
    with open_store(tmp_path / "store") as store:
        assert store.kind == "faiss"


@pytest.mark.parametrize("kind", ["milvus", "qdrant"])
def test_a_server_that_does_not_answer_is_named(kind):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listened at
        where = f"http://127.0.0.1:{bound.getsockname()[1]}/points"
        with pytest.raises(ConnectionError, match=f"{where}: no {kind.capitalize()} answers"):
            open_store(where, kind)


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("faiss", "faiss", "stores"), ("lancedb", "lancedb", "stores"),
        ("milvus", "pymilvus", "stores"), ("qdrant", "qdrant_client", "stores"),
        ("weaviate", "weaviate", "weaviate"),
    ],
)  # fmt: skip
def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, kind, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    where = "http://127.0.0.1:1/Points" if kind == "weaviate" else tmp_path / "store"
    with pytest.raises(ImportError, match=rf'nvembed_jax\[{extra}\]"'):
        make_store(where, schema(), kind)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a b": "str"}, "letters, digits and _"),
        ({"2a": "str"}, "letters, digits and _"),
        ({"Text": "str"}, "the name 'text' is taken"),
        ({"id": "str"}, "taken"),
        ({"lang": "str", "Lang": "str"}, "the name 'lang' is taken"),
        ({"lang": "text"}, "type must be one of str, int, float, bool; got 'text'"),
    ],
)
def test_field_names_that_a_store_cannot_have(fields, message):
    with pytest.raises(ValueError, match=message):
        schema(fields=fields)


def test_descriptions_are_read_as_they_were_written():
    made = schema(settings={"tokens": 3}, embedding_type="int8")
    assert StoreSchema.from_json(made.to_json(), "here") == made
    for text in ("{", "[]", "{}", made.to_json().replace('"dim"', '"dims"')):
        with pytest.raises(ValueError, match="here: is no store of ours"):
            StoreSchema.from_json(text, "here")
    newer = made.to_json().replace('"format_version": 1', '"format_version": 2')
    with pytest.raises(ValueError, match="format 2; this version reads 1"):
        StoreSchema.from_json(newer, "here")
    with pytest.raises(ValueError, match="must be one of float, int8, binary"):
        schema(embedding_type="int4")


def test_weaviate_filters_name_its_properties_and_methods():
    conditions = [Condition("lang", "in", ("en", "de")), Condition("year", ">=", 3)]
    assert filter_terms(conditions) == [
        ("f_lang", "contains_any", ["en", "de"]), ("f_year", "greater_or_equal", 3),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="Weaviate has no order of strings"):
        filter_terms([Condition("lang", "<", "m")])


def test_weaviate_objects_have_only_values_that_are_there():
    assert properties("a", {"lang": None, "new": False}) == {"f_id": "a", "f_new": False}
