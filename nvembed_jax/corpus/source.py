"""What a corpus is read from: one file, a folder of data files, or a folder of texts.

One pass tells how many texts there are and gives a digest of every block of them, by which parts
are known again.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nvembed_jax.data.records import DEFAULT_FIELD, Record, read_records

DATA_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")
_COUNTED = 1024  # texts between two calls of `on_read`


class SourceFacts(NamedTuple):
    """What one reading tells: number of texts, SHA-256 of every block, files passed over."""

    texts: int
    digests: list[bytes]
    skipped: list[str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A corpus that can be read again, from its start.

    Attributes:
        path: a file (see `read_records`); a folder with .jsonl(.gz) or .parquet files in it, which
            are read one after the other in the order of their paths; or a folder of text files.
        field, format: as for `read_records`.
    """

    path: str
    field: str = DEFAULT_FIELD
    format: str | None = None

    def __post_init__(self) -> None:
        if self.path == "-":
            raise ValueError(
                "a corpus is read more than once, which standard input cannot be: write it to a "
                "file first"
            )

    @property
    def name(self) -> str:
        """The last component of the path."""
        return Path(self.path).resolve().name

    def files(self) -> list[Path]:
        """The data files of a folder that has any, else the path itself."""
        root = Path(self.path)
        return (_visible_files(root, data=True) if root.is_dir() else []) or [root]

    def records(self, on_skip: Callable[[str, str], None] | None = None) -> Iterator[Record]:
        """All records in order; errors as `read_records` raises them, but that ids may repeat.

        Args:
            on_skip: called with (path, reason) for every file of a folder that is not read.
        """
        files, root = self.files(), Path(self.path)
        if on_skip is not None and files != [root]:
            for path in _visible_files(root, data=False):
                on_skip(path.relative_to(root).as_posix(), "not .jsonl or .parquet, as others are")
        for path in files:
            yield from read_records(
                path, field=self.field, format=self.format, on_skip=on_skip, unique=False
            )


class BlockDigests:
    """SHA-256 over every `size` records in turn; the last block may hold fewer."""

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0
        self._finished: list[bytes] = []
        self._open = hashlib.sha256()

    def add(self, record: Record) -> None:
        """Takes the next record."""
        self._open.update(json.dumps(record).encode())
        self.count += 1
        if self.count % self.size == 0:
            self._finished.append(self._open.digest())
            self._open = hashlib.sha256()

    def digests(self) -> list[bytes]:
        """The digests so far, that of an unfinished block too."""
        return self._finished + ([self._open.digest()] if self.count % self.size else [])


def joined(digests: Sequence[bytes]) -> str:
    """One digest, in hexadecimal, of many."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def scan(source: Source, block: int, on_read: Callable[[int], None] | None = None) -> SourceFacts:
    """Reads all of it once: a bad line stops here, not hours into the encoding.

    Args:
        block: texts that share a digest. on_read: called with the number of texts read so far.

    Raises:
        FileNotFoundError, ValueError: as `read_records`; also for an id that stands twice.
    """
    skipped: list[str] = []
    digests, hashes = BlockDigests(block), array("q")
    for record in source.records(lambda path, reason: skipped.append(f"{path} ({reason})")):
        digests.add(record)
        hashes.append(_id_hash(record.id))  # eight bytes an id, not the ids themselves
        if on_read is not None and digests.count % _COUNTED == 0:
            on_read(digests.count)
    _check_unique(source, np.frombuffer(hashes, np.int64))
    return SourceFacts(digests.count, digests.digests(), skipped)


def _visible_files(root: Path, data: bool) -> list[Path]:
    """Files below `root` without hidden ones: data files, or all others."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.name.lower().endswith(DATA_SUFFIXES) == data
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def _id_hash(id_: str) -> int:
    return int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8).digest(), signed=True)


def _check_unique(source: Source, hashes: np.ndarray) -> None:
    """Raises for an id that stands twice; ids are looked at themselves only where hashes meet."""
    ranked = np.sort(hashes)
    suspects = set(ranked[1:][ranked[1:] == ranked[:-1]].tolist())
    if not suspects:
        return
    seen: dict[str, Path] = {}
    for path in source.files():
        for record in read_records(path, field=source.field, format=source.format):
            if _id_hash(record.id) not in suspects:
                continue
            if record.id in seen:
                raise ValueError(
                    f"{path}: the id {record.id!r} stands in {seen[record.id]} too; expected one "
                    f'record an id: give every row an "_id" of its own'
                )
            seen[record.id] = path
