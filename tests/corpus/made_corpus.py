"""A corpus of made-up texts, and models that worker processes can load: quick ones, slow ones, and
ones that die."""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from nvembed_jax.corpus.parts import CorpusJob
from nvembed_jax.corpus.source import Source

WIDTH = 8


def texts(count: int) -> list[str]:
    return [f"text number {i} " + "and so on " * (i % 7) for i in range(count)]


def write_corpus(path: Path, count: int, first: int = 0) -> Path:
    rows = [
        json.dumps({"_id": f"d{first + i}", "text": text}) for i, text in enumerate(texts(count))
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def vector(text: str) -> np.ndarray:
    """Numbers that depend on the text alone."""
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH).astype(np.float32)


class QuickModel:
    """The calls of an `Embedder` that the corpus needs; embeds by a checksum."""

    max_length = 64

    def __init__(self, fingerprint: str = "quick") -> None:
        self.fingerprint = fingerprint
        self.config = SimpleNamespace(name="quick")

    def encode_document(self, inputs: list[str], **options: Any) -> np.ndarray:
        self.before(inputs)
        return np.stack([vector(text) for text in inputs])

    def encode_query(self, inputs: list[str], **options: Any) -> np.ndarray:
        return -self.encode_document(inputs, **options)

    def before(self, inputs: list[str]) -> None:
        """What else happens at every call."""


class FailingModel(QuickModel):
    """Raises at call number `good`, as a full disk or a lost device would."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.left = good

    def before(self, inputs: list[str]) -> None:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the device is lost")


class DyingModel(QuickModel):
    """Kills its own process at calls that find a file of `folder`, which they remove first."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def before(self, inputs: list[str]) -> None:
        for path in sorted(self.folder.glob("die*"))[:1]:
            path.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)


class DeadModel(QuickModel):
    """Kills its process at every call."""

    def before(self, inputs: list[str]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class SlowModel(QuickModel):
    """Notes its process in `folder`, and takes its time."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        (folder / f"worker-{os.getpid()}").touch()

    def before(self, inputs: list[str]) -> None:
        time.sleep(0.5)


class WrongModel(QuickModel):
    """Raises as a library does for bad input."""

    def before(self, inputs: list[str]) -> None:
        raise ValueError(f"cannot encode {len(inputs)} texts")


def make_job(source: Path, folder: Path, load: Any = QuickModel, **options: Any) -> CorpusJob:
    return CorpusJob(source=Source(path=str(source)), folder=folder, load=load, **options)


def loaded(kind: type, *args: Any) -> Any:
    return partial(kind, *args)


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(folder: Path) -> dict[str, np.ndarray]:
    """id -> embedding of all parquet parts; an id that stands twice fails."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("part-*.parquet")):
        table = pq.read_table(path)
        for id_, row in zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True):
            assert id_ not in found, id_
            found[id_] = np.array(row, np.float32)
    return found
