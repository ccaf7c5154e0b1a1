"""The places that stores are tried at: every kind that runs without a server of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from made_stores import schema

from nvembed_jax.cli.main import run
from nvembed_jax.search.stores import Store, make_store, open_store

LOCAL = ("faiss", "lancedb", "milvus", "qdrant")


@dataclass
class Place:
    """Where a store can be made, and opened again."""

    where: str
    kind: str

    def make(self, **changes: Any) -> Store:
        return make_store(self.where, schema(**changes), self.kind)

    def open(self, **options: Any) -> Store:
        return open_store(self.where, self.kind, **options)


@pytest.fixture(params=[*LOCAL, "milvus over the network"])
def place(request, tmp_path, milvus_url) -> Place:
    """A place for a store that is durable."""
    if request.param in LOCAL:
        return Place(str(tmp_path / "store"), request.param)
    return Place(milvus_url(), "milvus")


@pytest.fixture(scope="session")
def milvus_url(tmp_path_factory):
    """Gives a new collection of a milvus-lite server that is spoken to over the network."""
    servers: list[Any] = []
    counter = iter(range(10**6))

    def url() -> str:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        if not servers:
            folder = tmp_path_factory.mktemp("milvus") / "data"
            servers.append(start_server_in_thread(str(folder), host="127.0.0.1", port=0))
        return f"http://127.0.0.1:{servers[0][2]}/collection_{next(counter)}"

    yield url
    for server, database, _ in servers:
        server.stop(grace=0)
        database.close()


@pytest.fixture(params=[*LOCAL, "milvus over the network", "qdrant in memory"])
def make(request, tmp_path, milvus_url) -> Any:
    """Makes stores at one place; they are closed at the end."""
    made: list[Store] = []
    if request.param == "qdrant in memory":
        here = Place(":memory:", "qdrant")
    elif request.param in LOCAL:
        here = Place(str(tmp_path / "store"), request.param)
    else:
        here = Place(milvus_url(), "milvus")

    def call(**changes: Any) -> Store:
        made.append(here.make(**changes))
        return made[-1]

    yield call
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[..., Store]) -> Store:
    """An empty store with the fields of `made_stores`."""
    return make()


@pytest.fixture
def index_command(capsys, monkeypatch, tiny_folder, tiny_model):
    """Runs `nvembed index ARGS` with the tiny model; (exit code, output, standard error)."""
    monkeypatch.setattr("nvembed_jax.cli.options.load_model", lambda model, **options: tiny_model)
    monkeypatch.setenv("NVEMBED_MODEL", str(tiny_folder))
    monkeypatch.setenv("COLUMNS", "120")

    def call(*args: object) -> tuple[int, str, str]:
        code = run(["index", *map(str, args)])
        return code, *capsys.readouterr()

    return call
