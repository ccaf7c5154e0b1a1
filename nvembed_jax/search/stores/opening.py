"""Stores by kind and place: made, or opened again for the model that they were made with."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path

from nvembed_jax.data.writers import write_text
from nvembed_jax.search.stores.location import FOLDER_KINDS, Location, parse_location
from nvembed_jax.search.stores.schema import StoreSchema, check_model, check_same
from nvembed_jax.search.stores.store import Store

MARK = "store.json"  # in a folder: of which kind the store is
DEFAULT_KIND = "faiss"
_ADAPTERS = {
    "faiss": "FaissStore",
    "milvus": "MilvusStore",
    "qdrant": "QdrantStore",
    "weaviate": "WeaviateStore",
    "lancedb": "LanceDBStore",
}


def make_store(
    where: str | os.PathLike[str], schema: StoreSchema, kind: str | None = None
) -> Store:
    """The store at a place, made if there is none.

    Args:
        where: a folder, `http://HOST:PORT/COLLECTION`, or `:memory:` (qdrant).
        kind: one of `KINDS`; None: what the folder holds, faiss for a new one.

    Raises:
        ValueError: what is there was made for another model, dimension, fields or settings; or the
            folder holds something else.
        ImportError: the client library is missing. ConnectionError: no server answers.
    """
    location = parse_location(where, kind)
    if location.folder is not None:
        location = _marked_folder(location, location.folder)
    store = _adapter(location)
    try:
        made = store.connect()
        if made is None:
            store.create(schema)
        else:
            check_same(made, schema, str(location))
    except BaseException:
        store.close()
        raise
    return store


def open_store(
    where: str | os.PathLike[str],
    kind: str | None = None,
    *,
    fingerprint: str | None = None,
    model_name: str = "this model",
) -> Store:
    """The store at a place, as `make_store` left it.

    Args:
        fingerprint: of the model that is going to be used with it; None: not compared.
        model_name: for messages.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it was made with a model of another fingerprint, or is of another kind.
    """
    location = parse_location(where, kind)
    if location.folder is not None:
        location = _with_kind(location, _kind_of(location.folder))
    store = _adapter(location)
    try:
        made = store.connect()
        if made is None:
            raise FileNotFoundError(
                f"{location}: there is no store; make one with `nvembed index build`"
            )
        if fingerprint is not None:
            check_model(made, fingerprint, model_name, str(location))
    except BaseException:
        store.close()
        raise
    return store


def _adapter(location: Location) -> Store:
    assert location.kind is not None
    module = import_module(f"nvembed_jax.search.stores.{location.kind}_store")
    return getattr(module, _ADAPTERS[location.kind])(location)


def _with_kind(location: Location, kind: str) -> Location:
    if location.kind not in (None, kind):
        raise ValueError(f"{location}: is a {kind} store; asked for was {location.kind}")
    return Location(location.text, kind, folder=location.folder)


def _marked_folder(location: Location, folder: Path) -> Location:
    """The location with its kind, of a folder that says so in its mark."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; expected a folder, or a name that is free")
    if not folder.exists() and not folder.parent.is_dir():
        raise FileNotFoundError(f"{folder}: cannot be made, there is no folder {folder.parent}")
    if folder.exists() and _entries(folder):
        return _with_kind(location, _kind_of(folder))
    kind = location.kind or DEFAULT_KIND
    folder.mkdir(exist_ok=True)
    write_text(folder / MARK, json.dumps({"kind": kind}) + "\n")
    return _with_kind(location, kind)


def _kind_of(folder: Path) -> str:
    if not folder.exists():
        raise FileNotFoundError(
            f"{folder}: there is no such store; make one with `nvembed index build`"
        )
    try:
        kind = json.loads((folder / MARK).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if kind not in FOLDER_KINDS:
        raise ValueError(
            f"{folder}: is not a store (no readable {MARK}); name another, or an empty folder"
        )
    return kind


def _entries(folder: Path) -> list[str]:
    """What stands in a folder, but for files of a mark that was being written."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(f".{MARK}.")]
