"""Embeddings of a mining run on disk, where a killed run goes on, and scores from them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from nvembed_jax.runtime import progress_bar
from nvembed_jax.search.mining_texts import PairIndex, TextStore
from nvembed_jax.search.topk import PASSAGE_BLOCK, top_k

JOINED_ROWS = 65536  # passages whose embeddings by all teachers stand side by side at a time
_SAMPLE = (1000, 10000)  # queries and passages that a teacher's mean and spread are taken from


@runtime_checkable
class Teacher(Protocol):
    """What mining needs of a model; an `Embedder` has it."""

    @property
    def fingerprint(self) -> str: ...

    def encode_query(self, inputs: Any, task: str | None = None, **kwargs: Any) -> Any: ...

    def encode_document(self, inputs: Any, **kwargs: Any) -> Any: ...


@dataclass(kw_only=True)
class EmbeddingCache:
    """A folder of embeddings: one .npy a teacher and kind of text, filled block by block.

    Attributes:
        folder: is made where it is not there. block: texts encoded between two savings.
        encoding: further options for the teacher's encoding. written: files made or read here.
    """

    folder: Path
    block: int = 2048
    encoding: dict[str, Any] = field(default_factory=dict)
    show_progress_bar: bool | None = None
    written: list[Path] = field(default_factory=list)

    def passages(self, teacher: Teacher, index: PairIndex) -> Float[np.ndarray, "P D"]:
        """Memory map of the passages' embeddings."""

        def encode(texts: list[str]) -> np.ndarray:
            return teacher.encode_document(texts, show_progress_bar=False, **self.encoding)

        return self._embedded(teacher, "passages", index.passages, encode)

    def queries(self, teacher: Teacher, index: PairIndex) -> Float[np.ndarray, "Q D"]:
        """Memory map of the queries' embeddings, each with the instruction of its task."""

        def encode(entries: list[str]) -> np.ndarray:
            rows = [json.loads(entry) for entry in entries]
            out: Any = [None] * len(rows)
            for task in dict.fromkeys(task for task, _ in rows):
                chosen = [i for i, row in enumerate(rows) if row[0] == task]
                texts = [rows[i][1] for i in chosen]
                found = teacher.encode_query(
                    texts, task=task, show_progress_bar=False, **self.encoding
                )
                for i, embedding in zip(chosen, found, strict=True):
                    out[i] = embedding
            return np.stack(out)

        return self._embedded(teacher, "queries", index.queries, encode)

    def _embedded(
        self,
        teacher: Teacher,
        kind: str,
        store: TextStore,
        encode: Callable[[list[str]], np.ndarray],
    ) -> Float[np.ndarray, "N D"]:
        facts = [teacher.fingerprint, kind, store.digest, sorted(self.encoding.items())]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{kind}-{key}.npy"
        self.written += [path, path.with_suffix(".json"), path.with_suffix(".lock")]
        with _locked(path.with_suffix(".lock")):
            self._fill(path, store, encode, kind)
        return np.load(path, mmap_mode="r")

    def _fill(
        self, path: Path, store: TextStore, encode: Callable[[list[str]], np.ndarray], kind: str
    ) -> None:
        done, count = _rows_done(path), len(store)
        with progress_bar(count, self.show_progress_bar, kind) as bar:
            bar.update(done)
            while done < count:
                stop = min(done + self.block, count)
                embeddings = np.asarray(encode(store.texts(range(done, stop))), np.float32)
                rows = _opened(path, done, (count, embeddings.shape[1]))
                rows[done:stop] = embeddings
                rows.flush()
                _set_rows_done(path, stop)  # only what is on the disk counts as done
                bar.update(stop - done)
                done = stop


def _opened(path: Path, done: int, shape: tuple[int, int]) -> Any:
    if not done:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        _reserve(path)
    return np.load(path, mmap_mode="r+")


def _reserve(path: Path) -> None:
    """Takes the room on the disk now: a full disk would kill the process in a later write."""
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink()
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            errno.ENOSPC,
            f"no room for the embeddings ({size:,} bytes); name another cache",
            str(path),
        ) from None


def _rows_done(path: Path) -> int:
    try:
        return json.loads(path.with_suffix(".json").read_text())["rows"] if path.exists() else 0
    except (OSError, ValueError, KeyError):
        return 0  # killed before anything was saved


def _set_rows_done(path: Path, rows: int) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("w") as file:
        json.dump({"rows": rows}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path.with_suffix(".json"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(
            f"{path.parent}: another run is writing these embeddings; wait for it, or name "
            f"another cache"
        ) from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)


class Scorer:
    """Scores of queries and passages by one teacher or several.

    With several, each teacher's scores are standardised over a sample of all pairs and averaged;
    the average is put on the scale of the first teacher, so that thresholds keep their meaning.
    A weighted sum of dot products is the dot product of the embeddings side by side, so the search
    stays exact.
    """

    def __init__(
        self,
        queries: Sequence[Float[np.ndarray, "Q _"]],
        passages: Sequence[Float[np.ndarray, "P _"]],
        num_pool: int,
        passage_block: int = PASSAGE_BLOCK,
    ) -> None:
        self._queries, self._passages, self.num_pool = queries, passages, num_pool
        self._passage_block = passage_block
        self._weights, self._shift = _joint_scale(queries, passages, num_pool)

    def search(
        self, query_rows: Int[np.ndarray, " B"], depth: int
    ) -> tuple[Float[np.ndarray, "B K"], Int[np.ndarray, "B K"]]:
        """The `depth` best passages of the pool for each query: (scores, rows), best first."""
        # All queries at once: the passages are read, and sent to the device, once for them all.
        blocks = {"query_block": len(query_rows), "passage_block": self._passage_block}
        if len(self._passages) == 1:
            pool = self._passages[0][: self.num_pool]
            return top_k(self._queries[0][query_rows], pool, depth, **blocks)
        joined = [q[query_rows] * w for q, w in zip(self._queries, self._weights, strict=True)]
        side_by_side = np.concatenate(joined, axis=1)
        scores = np.zeros((len(query_rows), 0), np.float32)
        rows = np.zeros((len(query_rows), 0), np.int64)
        for start in range(0, self.num_pool, JOINED_ROWS):
            stop = min(start + JOINED_ROWS, self.num_pool)
            part = np.concatenate([p[start:stop] for p in self._passages], axis=1)
            found = top_k(side_by_side, part, min(depth, stop - start), **blocks)
            scores = np.concatenate([scores, found[0]], axis=1)
            rows = np.concatenate([rows, found[1] + start], axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
            scores, rows = (np.take_along_axis(x, best, axis=1) for x in (scores, rows))
        return scores + self._shift, rows

    def each(self, query_row: int, passage_rows: Int[np.ndarray, " N"]) -> Float[np.ndarray, "T N"]:
        """Scores of some passages for one query by each teacher, on the teacher's own scale."""
        pairs = zip(self._queries, self._passages, strict=True)
        return np.stack([p[passage_rows] @ q[query_row] for q, p in pairs])

    def joined(self, by_teacher: Float[np.ndarray, "T N"]) -> Float[np.ndarray, " N"]:
        """One score from the teachers' own, as `search` gives it."""
        if len(by_teacher) == 1:
            return by_teacher[0]
        return np.asarray(self._weights, np.float32) @ by_teacher + self._shift


def _joint_scale(
    queries: Sequence[np.ndarray], passages: Sequence[np.ndarray], num_pool: int
) -> tuple[list[float], np.float32]:
    """Weights of the teachers' scores, and what is added to their weighted sum."""
    if len(queries) == 1:
        return [1.0], np.float32(0)
    stats = []
    for q, p in zip(queries, passages, strict=True):
        sample = q[:: -(-len(q) // _SAMPLE[0])] @ p[:num_pool][:: -(-num_pool // _SAMPLE[1])].T
        stats.append((float(sample.mean(dtype=np.float64)), float(sample.std(dtype=np.float64))))
    mean, spread = stats[0]
    if min(s for _, s in stats) <= 0:
        raise ValueError(
            "a teacher gives all pairs of the sample one score, so its scores cannot be "
            "standardised; use one teacher"
        )
    weights = [spread / s / len(stats) for _, s in stats]
    return weights, np.float32(mean - sum(w * m for w, (m, _) in zip(weights, stats, strict=True)))
