"""Reading of raw downloads: compressed text, tables, JSON; and texts that are joined by an id."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

Row = dict[Any, Any]
Files = Mapping[str, Sequence[Path]]  # role -> files
Column = int | str


@contextmanager
def open_text(path: Path, encoding: str = "utf-8") -> Iterator[IO[str]]:
    """A text file, plain or compressed; told by its first bytes, as downloads lose their names."""
    with path.open("rb") as file:
        head = file.read(6)
    opener = open
    if head.startswith(b"\x1f\x8b"):
        opener = gzip.open
    elif head == b"\xfd7zXZ\x00":
        opener = lzma.open
    with opener(path, "rt", encoding=encoding, newline="\n") as text:
        try:
            yield text
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not {encoding} ({error.reason})") from None


def lines_of(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a file without their ends."""
    with open_text(path, encoding) as file:
        for line in file:
            yield line.rstrip("\r\n")


def json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    """("FILE:LINE", object) of a file of JSON lines."""
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            yield f"{path}:{number}", json_object(line, f"{path}:{number}")


def json_object(text: str, where: str) -> Row:
    """The object of a JSON text; ValueError with `where` otherwise."""
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON {type(row).__name__}; expected an object")
    return row


def json_file(path: Path) -> Any:
    """The value of a JSON file."""
    with open_text(path) as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None


def table(
    path: Path, *, delimiter: str = ",", header: bool = True, quoted: bool = True
) -> Iterator[tuple[str, Row]]:
    """("FILE:LINE", column -> cell) of a table; without a header the columns are numbers."""
    csv.field_size_limit(2**31 - 1)
    with open_text(path, "utf-8-sig") as file:
        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting)
        names: list[Any] | None = next(reader, None) if header else None
        for cells in reader:
            if cells:
                keys = range(len(cells)) if names is None else names
                yield f"{path}:{reader.line_num}", dict(zip(keys, cells, strict=False))


def paired_lines_of(first: Path, second: Path) -> Iterator[tuple[str, str]]:
    """The lines of two files that belong together; ValueError when one has more of them."""
    lines = zip_longest(lines_of(first), lines_of(second))
    for number, (left, right) in enumerate(lines, start=1):
        if left is None or right is None:
            short = first if left is None else second
            raise ValueError(f"{short}: ends before line {number}; expected a line for every line "
                             f"of {second if left is None else first}")  # fmt: skip
        yield left, right


def cell(row: Any, column: Column, where: str) -> Any:
    """A field or a column; ValueError with `where` when the row has none of that name."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: a JSON {type(row).__name__}; expected an object")
    if column not in row:
        there = ", ".join(map(repr, row))
        raise ValueError(f"{where}: no column {column!r}; there are: {there}")
    return row[column]


def one(files: Files, role: str) -> Path:
    """The only file of a role."""
    if len(files[role]) != 1:
        names = ", ".join(map(str, files[role]))
        raise ValueError(f"expected one file of {role}; got {names}")
    return files[role][0]


class TextStore:
    """Texts by id in a temporary file: a corpus is joined without standing in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self._places: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> TextStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, id_: str) -> bool:
        return id_ in self._places

    def add(self, id_: str, text: str) -> None:
        """Keeps a text; the last one of an id counts."""
        content = text.encode("utf-8", "replace")
        self._places[id_] = (self._file.seek(0, 2), len(content))
        self._file.write(content)

    def get(self, id_: str) -> str:
        """The text of an id."""
        offset, length = self._places[id_]
        self._file.seek(offset)
        return self._file.read(length).decode()


def joined(
    judged: Mapping[str, Mapping[str, float]],
    queries: Iterable[tuple[str, str]],
    passages: Iterable[tuple[str, str]],
) -> Iterator[Row]:
    """Pairs of queries and the passages judged for them: above 0 positive, else negative.

    Args:
        judged: query id -> passage id -> score.
        queries, passages: (id, text); passages that nobody judged are not kept.
    """
    wanted = {passage for scores in judged.values() for passage in scores}
    with TextStore() as store:
        for passage, text in passages:
            if passage in wanted:
                store.add(passage, text)
        for query, text in queries:
            known = {p: score for p, score in judged.get(query, {}).items() if p in store}
            positives = [store.get(p) for p, score in known.items() if score > 0]
            if positives:
                negatives = [store.get(p) for p, score in known.items() if score <= 0]
                yield {"query": text, "positives": positives, "negatives": negatives}
