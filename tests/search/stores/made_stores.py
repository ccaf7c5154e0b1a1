"""Vectors, a description and a model for stores, and a build that dies on its way when run."""

from __future__ import annotations

import os
import signal
import sys
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from nvembed_jax.data import Record
from nvembed_jax.search.stores import StoreSchema, make_store
from nvembed_jax.search.stores.documents import BuildReport, BuildRequest, build_documents

DIM = 16
FIELDS = {"lang": "str", "year": "int", "price": "float", "new": "bool"}


def unit_vectors(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def schema(**changes: Any) -> StoreSchema:
    made = {"model_name": "first", "fingerprint": "f1", "dim": DIM, "fields": FIELDS}
    return StoreSchema(**(made | changes))


class TextModel:
    """Embeds a text by its checksum; remembers what it was given."""

    def __init__(self, fingerprint: str = "f1") -> None:
        self.fingerprint = fingerprint
        self.config = SimpleNamespace(name="text")
        self.encoded: list[str] = []

    def encode_document(self, inputs: Any, **options: Any) -> np.ndarray:
        self.encoded += inputs
        return np.concatenate([unit_vectors(1, zlib.crc32(text.encode())) for text in inputs])


TEXTS = 300


def build(where: str, kind: str, model: TextModel, die_at: int | None = None) -> BuildReport:
    """Builds a store of made-up texts; the process is killed within the `die_at`-th write."""
    records = ((Record(f"d{i}", f"text number {i}"), {"year": i}) for i in range(TEXTS))
    with make_store(where, schema(fields={"year": "int"}), kind) as store:
        if die_at is not None:
            _die_within(store, die_at)
        return build_documents(store, BuildRequest(records=records, model=model, block=50))


def _die_within(store: Any, calls: int) -> None:
    add, done = store._add, []

    def dying(ids: list[str], vectors: np.ndarray, payloads: list[dict[str, Any]]) -> None:
        done.append(len(ids))
        if len(done) == calls:
            half = len(ids) // 2
            add(ids[:half], vectors[:half], payloads[:half])
            os.kill(os.getpid(), signal.SIGKILL)
        add(ids, vectors, payloads)

    store._add = dying


if __name__ == "__main__":
    build(sys.argv[1], sys.argv[2], TextModel(), die_at=int(sys.argv[3]))
