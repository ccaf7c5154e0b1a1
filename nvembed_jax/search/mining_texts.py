"""The texts of a mining run on disk, each once, and which of them are known to answer which query.

In memory stand a 16-byte key a text and integers only.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from nvembed_jax.data.examples import Example, parse_example, write_examples
from nvembed_jax.data.identity import text_key
from nvembed_jax.data.records import read_records
from nvembed_jax.data.row_file import read_rows

REPLACED = ("negatives", "negative_scores", "positive_score")  # keys that mining writes


class TextStore:
    """Texts in a file, added once and read by their numbers; `digest` stands for all of them."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb+")
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def digest(self) -> str:
        """SHA-256 of the texts, in their order."""
        return self._digest.hexdigest()

    def add(self, text: str) -> int:
        """Appends a text and returns its number."""
        data = text.encode()
        self._file.write(data)
        self._digest.update(len(data).to_bytes(8, "little") + data)
        self._ends.append(self._ends[-1] + len(data))
        return len(self) - 1

    def texts(self, numbers: Sequence[int] | range | Int[np.ndarray, " N"]) -> list[str]:
        """The texts of these numbers."""
        self._file.flush()
        handle = self._file.fileno()
        ends = self._ends
        return [
            os.pread(handle, ends[i + 1] - ends[i], ends[i]).decode() for i in map(int, numbers)
        ]


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """Integers by integer key, in two arrays."""

    values: Int[np.ndarray, " N"]
    starts: Int[np.ndarray, " K"]

    @classmethod
    def of(cls, keys: Int[np.ndarray, " N"], values: Int[np.ndarray, " N"], count: int) -> Grouped:
        """Groups `values` by `keys`, which are 0 to count - 1; the order within a key is kept."""
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange(count + 1))
        return cls(values=values[order], starts=starts)

    def __getitem__(self, key: int) -> Int[np.ndarray, " n"]:
        return self.values[self.starts[key] : self.starts[key + 1]]


class PairRow(NamedTuple):
    """One line of the pairs: all that it holds, and what it says."""

    raw: dict[str, Any]
    example: Example


@dataclass(frozen=True, kw_only=True)
class PairIndex:
    """All texts of a run, and who is whose positive.

    Attributes:
        passages: corpus or positives first: those are the pool (`num_pool`); then positives that
            the corpus lacks. queries: JSON [task, text], each once.
        query_rows: [lines] the query of each line. positives: by line.
        query_ids, group_ids: [lines] keys into `known`; a group of -1: none.
        known: passages that answer the queries of a key, or are their own texts.
        replaced: lines that had negatives of their own.
    """

    passages: TextStore
    num_pool: int
    queries: TextStore
    query_rows: Int[np.ndarray, " L"]
    positives: Grouped
    query_ids: Int[np.ndarray, " L"]
    group_ids: Int[np.ndarray, " L"]
    known: Grouped
    replaced: int

    def known_rows(self, line: int) -> Int[np.ndarray, " n"]:
        """Passages that must never be negatives of this line's query."""
        rows = self.known[int(self.query_ids[line])]
        group = int(self.group_ids[line])
        return rows if group < 0 else np.union1d(rows, self.known[group])


def read_pairs(path: Path, *, group_key: str, with_negatives: bool = False) -> Iterator[PairRow]:
    """The rows of a pairs file; the negatives that mining replaces are not looked at, unless asked.

    Raises:
        ValueError: `FILE:LINE: what is wrong`.
    """
    for where, raw in read_rows(path):
        checked = raw
        if isinstance(raw, dict) and not with_negatives:
            checked = {key: value for key, value in raw.items() if key not in REPLACED}
        example = parse_example(checked, where, group_key=group_key)
        yield PairRow(raw, example)


def index_pairs(
    path: Path,
    folder: Path,
    *,
    corpus: Path | None,
    pool_negatives: bool,
    group_key: str,
    task: str | None,
) -> PairIndex:
    """Reads the pairs (and the corpus) once and writes their texts into `folder`.

    Raises:
        ValueError: a bad row, with its place, or no rows at all.
    """
    scan = _Scan(folder)
    num_pool = None
    if corpus is not None:
        for record in read_records(corpus):
            if record.full_text.strip():
                scan.passage(record.full_text)
        num_pool = len(scan.passages)
        if not num_pool:
            raise ValueError(f"{corpus}: every text is empty; there is nothing to mine from")
    for row in read_pairs(path, group_key=group_key, with_negatives=pool_negatives):
        scan.line(row, task, pool_negatives)
    if not scan.query_rows:
        raise ValueError(f"{path}: no examples in it; expected at least one")
    return scan.index(num_pool)


class _Scan:
    """What one reading of the pairs collects."""

    def __init__(self, folder: Path) -> None:
        self.passages, self.queries = TextStore(folder / "passages"), TextStore(folder / "queries")
        self._passage_rows: dict[bytes, int] = {}
        self._query_rows: dict[bytes, int] = {}
        self._keys: dict[bytes, int] = {}  # of query texts (b"q" + key) and groups (b"g" + key)
        self.query_rows, self.query_ids, self.group_ids = array("q"), array("q"), array("q")
        self.positive_lines, self.positive_rows = array("q"), array("q")
        self.replaced = 0

    def passage(self, text: str) -> int:
        key = text_key(text)
        if key not in self._passage_rows:
            self._passage_rows[key] = self.passages.add(text)
        return self._passage_rows[key]

    def line(self, row: PairRow, task: str | None, pool_negatives: bool) -> None:
        example = row.example
        self.query_rows.append(self._query(example.query, example.task or task))
        self.query_ids.append(self._key(b"q" + text_key(example.query)))
        group = None if example.group is None else b"g" + example.group.encode()
        self.group_ids.append(-1 if group is None else self._key(group))
        for text in dict.fromkeys(example.positives):
            self.positive_lines.append(len(self.query_rows) - 1)
            self.positive_rows.append(self.passage(text))
        for text in example.negatives if pool_negatives else ():
            self.passage(text)
        self.replaced += bool(row.raw.get("negatives"))

    def index(self, num_pool: int | None) -> PairIndex:
        query_ids, group_ids, lines, rows = (
            np.array(values, np.int64)
            for values in (self.query_ids, self.group_ids, self.positive_lines, self.positive_rows)
        )
        return PairIndex(
            passages=self.passages,
            num_pool=len(self.passages) if num_pool is None else num_pool,
            queries=self.queries,
            query_rows=np.array(self.query_rows, np.int64),
            positives=Grouped.of(lines, rows, len(query_ids)),
            query_ids=query_ids,
            group_ids=group_ids,
            known=self._known(query_ids, group_ids, lines, rows),
            replaced=self.replaced,
        )

    def _known(
        self,
        query_ids: Int[np.ndarray, " L"],
        group_ids: Int[np.ndarray, " L"],
        lines: Int[np.ndarray, " N"],
        rows: Int[np.ndarray, " N"],
    ) -> Grouped:
        own = np.full(len(self._keys), -1, np.int64)  # the passage that is the query itself
        for key, number in self._keys.items():
            if key[:1] == b"q":
                own[number] = self._passage_rows.get(key[1:], -1)
        own_of_line = own[query_ids]
        keys = np.concatenate([query_ids[lines], group_ids[lines], query_ids, group_ids])
        values = np.concatenate([rows, rows, own_of_line, own_of_line])
        real = (keys >= 0) & (values >= 0)
        pairs = np.unique(np.stack([keys[real], values[real]]), axis=1)
        return Grouped.of(pairs[0], pairs[1], len(self._keys))

    def _query(self, text: str, task: str | None) -> int:
        entry = json.dumps([task, text], ensure_ascii=False)
        key = hashlib.blake2b(entry.encode(), digest_size=16).digest()
        if key not in self._query_rows:
            self._query_rows[key] = self.queries.add(entry)
        return self._query_rows[key]

    def _key(self, key: bytes) -> int:
        return self._keys.setdefault(key, len(self._keys))


def pairs_file(source: Any, folder: Path) -> Path:
    """The path of the pairs; examples from an iterable are written into `folder` first."""
    if isinstance(source, str | Path):
        return Path(source)
    write_examples(folder / "examples.jsonl", source)
    return folder / "examples.jsonl"
