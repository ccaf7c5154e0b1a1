"""Embeddings on disk, by a hash of what was sent: what was paid for once is not paid for again.

One SQLite file a model. Writes are transactions in a write-ahead log: a killed process leaves the
file whole, and several processes may use it at once.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

FORMAT = "nvembed_jax embeddings 1"
_LOOKED_UP = 500  # keys in one query: SQLite's own limit on parameters was once 999
_MAPPED = 1 << 36  # bytes of the file that are read without a copy
_WAIT_S = 60.0  # for another process that writes


def cache_folder() -> Path | None:
    """Where embeddings are kept: $NVEMBED_EMBEDDING_CACHE ("0": nowhere), by default
    ~/.cache/nvembed_jax/embeddings.
    """
    default = str(Path.home() / ".cache" / "nvembed_jax" / "embeddings")
    where = os.environ.get("NVEMBED_EMBEDDING_CACHE", default)
    return None if where == "0" else Path(where)


class EmbeddingCache:
    """Embeddings of one model by key; `close` it at the end.

    Args:
        path: the file; its folder is made. identity: what the embeddings depend on, for people
            who look into the file and as a check.

    Raises:
        ValueError: the file is no cache, or of another model. OSError: it cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._text = json.dumps(dict(identity), sort_keys=True)
        with self._errors():
            self._db = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Float[np.ndarray, " D"]]:
        """The embeddings of those keys that are there."""
        wanted, found = list(keys), {}
        for start in range(0, len(wanted), _LOOKED_UP):
            part = wanted[start : start + _LOOKED_UP]
            marks = ",".join("?" * len(part))
            with self._errors():
                rows = self._db.execute(
                    f"SELECT key, value FROM embeddings WHERE key IN ({marks})", part
                ).fetchall()
            found |= {key: np.frombuffer(value, "<f4") for key, value in rows}
        return found

    def put(self, keys: Sequence[bytes], embeddings: Float[np.ndarray, "N D"]) -> None:
        """Keeps embeddings; they outlive this process when this returns."""
        rows = [
            (key, row.astype("<f4").tobytes()) for key, row in zip(keys, embeddings, strict=True)
        ]
        with self._errors(), self._db:
            self._db.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?)", rows)

    def note(self, name: str) -> bytes | None:
        """What was kept under a name by `keep_note`."""
        with self._errors():
            row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def keep_note(self, name: str, value: bytes) -> None:
        """Keeps a few bytes under a name; the first to come stay."""
        with self._errors(), self._db:
            self._db.execute("INSERT OR IGNORE INTO notes VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA mmap_size = {_MAPPED}")
        with self._db:
            # With row ids: without, a row longer than a quarter of a page gets pages of its own.
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
            )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB NOT NULL)"
            )
        for name, value in (("format", FORMAT), ("identity", self._text)):
            self.keep_note(name, value.encode())
            if self.note(name) != value.encode():
                raise ValueError(
                    f"{self.path}: holds embeddings of another {name}; remove it or name another "
                    f"folder"
                )

    @contextmanager
    def _errors(self) -> Any:
        """SQLite's errors with the file's name."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(
                f"{self.path}: the cache of embeddings cannot be used ({error})"
            ) from None
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path}: not a cache of embeddings ({error}); remove it"
            ) from None
