"""Texts in: files, standard input and folders become one stream of `Record`s, a text at a time.

.txt (a text a line), .jsonl, .csv (each also with .gz), .parquet, `-` (standard input) and folders
of text files. A bad line stops with `FILE:LINE: what is wrong`.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nvembed_jax.data.folders import read_folder

FORMATS = ("txt", "jsonl", "csv", "parquet")
DEFAULT_FIELD = "text"
_EXPECTED_OBJECT = 'expected an object like {"_id": "7", "text": "..."}'
_PARQUET_BATCH = 4096


class Record(NamedTuple):
    """One text with its id; `title` is empty where the source has none."""

    id: str
    text: str
    title: str = ""

    @property
    def full_text(self) -> str:
        """What is encoded: "title text", or the text alone."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


class _Row(NamedTuple):
    """What a reader hands on: the line (for messages), and the raw values that stand there."""

    line: int
    id: Any
    text: Any
    title: Any = None


def read_records(
    source: str | Path,
    *,
    field: str = DEFAULT_FIELD,
    format: str | None = None,
    on_skip: Callable[[str, str], None] | None = None,
    unique: bool = True,
) -> Iterator[Record]:
    """Yields the records of `source`, in its order; a folder's in the order of their paths.

    .txt: every line is a text, blank ones in between too; blank lines at the end are dropped.
    .jsonl and .csv: the text stands in `field`; `_id` or `id` and `title` are read where they are.
    A title is joined to the text only when `field` is "text". Blank lines are skipped. Where a
    source has no ids, the id is the row's number from 0. Standard input is JSONL when its first
    line is an object, else a text a line.

    Args:
        source: a file, a folder, or "-" for standard input.
        field: key or column of the text.
        format: "txt", "jsonl", "csv" or "parquet"; None: what the file's name says.
        on_skip: called with (path, reason) for every file of a folder that is not read.
        unique: refuse an id that stands twice, for which all ids are kept in memory; False where
            that was or is looked for elsewhere.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: `FILE:LINE: what is wrong`: bad JSON, no such field, broken UTF-8, an id that
            stands twice, no texts at all.
    """
    if source != "-" and Path(source).is_dir():
        rows, name = _folder_rows(Path(source), field, format, on_skip), str(source)
    else:
        rows, name = _file_rows(source, field, format)
    seen: set[str] | None = set() if unique else None
    count = 0
    for count, row in enumerate(rows, start=1):
        yield _checked(row, count - 1, f"{name}:{row.line}", field, seen)
    if not count:
        raise ValueError(f"{name}: no texts in it; expected at least one")


def format_of(source: str | Path) -> str:
    """The format that a file's name stands for, else a ValueError that lists the known ones."""
    name = Path(source).name.lower().removesuffix(".gz")
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix == "ndjson":
        return "jsonl"
    if suffix not in FORMATS or (suffix == "parquet" and str(source).lower().endswith(".gz")):
        raise ValueError(
            f"{source}: cannot tell the format from the name; expected .txt, .jsonl, .csv (each "
            f"also .gz), .parquet, '-' for standard input, or a folder of text files"
        )
    return suffix


def _file_rows(source: str | Path, field: str, format: str | None) -> tuple[Iterator[_Row], str]:
    if format is not None and format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    if source == "-":
        name = "<stdin>"
        lines = iter(sys.stdin.buffer)
        if format is None:
            format, lines = _sniff(lines)
    else:
        if not Path(source).exists():
            raise FileNotFoundError(f"{source}: no such file or folder")
        name, format = str(source), format or format_of(source)
        lines = iter(()) if format == "parquet" else _lines(Path(source))
    if format == "parquet":
        if source == "-":
            raise ValueError("parquet cannot be read from standard input; name a .parquet file")
        return _parquet_rows(Path(source), field), name
    if format == "txt":
        if field != DEFAULT_FIELD:
            raise ValueError(
                f"{name}: a .txt source has no fields, so --field {field} means nothing here"
            )
        return _text_rows(_decoded(lines, name)), name
    return (_json_rows if format == "jsonl" else _csv_rows)(
        _decoded(lines, name), field, name
    ), name


def _checked(row: _Row, number: int, where: str, field: str, seen: set[str] | None) -> Record:
    if not isinstance(row.text, str):
        kind = "nothing (null)" if row.text is None else type(row.text).__name__
        raise ValueError(f"{where}: {field!r} holds {kind}; expected a string")
    title = row.title if field == DEFAULT_FIELD and row.title is not None else ""
    if not isinstance(title, str):
        raise ValueError(f"{where}: 'title' holds {type(title).__name__}; expected a string")
    id_ = str(number) if row.id is None else row.id
    if isinstance(id_, bool) or not isinstance(id_, str | int):
        raise ValueError(
            f"{where}: the id holds {type(id_).__name__}; expected a string or a whole number"
        )
    record = Record(str(id_), row.text, title)
    for part in record:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where}: character {error.start} is a lone surrogate ({part[error.start]!a}); "
                f"expected valid Unicode"
            ) from None
    if seen is None:
        return record
    if record.id in seen:
        raise ValueError(f"{where}: the id {record.id!r} stands twice; expected one record an id")
    seen.add(record.id)
    return record


def _sniff(lines: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """The format of a stream without a name: JSONL when its first line is an object."""
    head = list(itertools.islice(lines, 1))
    try:
        is_object = bool(head) and isinstance(json.loads(head[0]), dict)
    except ValueError:
        is_object = False
    return ("jsonl" if is_object else "txt"), itertools.chain(head, lines)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield from file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a complete gzip file ({error}); copy it anew") from None


def _decoded(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines as text, ends kept; only line feeds end a line, as in tools that count lines."""
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # a byte-order mark is not part of the text
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}:{number}: not UTF-8: 0x{line[error.start]:02x} at byte {error.start + 1} "
                f"of the line; expected UTF-8 (convert with `iconv -t utf-8`)"
            ) from None


def _text_rows(lines: Iterator[str]) -> Iterator[_Row]:
    blank: list[_Row] = []  # held back: blank lines at the end are no texts
    for number, line in enumerate(lines, start=1):
        row = _Row(number, None, line.rstrip("\r\n"))
        if row.text.strip():
            yield from blank
            blank.clear()
            yield row
        else:
            blank.append(row)


def _json_rows(lines: Iterator[str], field: str, name: str) -> Iterator[_Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where}: not JSON ({error.msg} at character {error.pos + 1}); {_EXPECTED_OBJECT}"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a JSON {type(row).__name__}; {_EXPECTED_OBJECT}")
        if field not in row:
            raise ValueError(f"{where}: {_no_field(field, row)}")
        yield _Row(number, row.get("_id", row.get("id")), row[field], row.get("title"))


def _csv_rows(lines: Iterator[str], field: str, name: str) -> Iterator[_Row]:
    csv.field_size_limit(2**31 - 1)  # the default refuses texts over 128 KiB
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if field not in header:
            raise ValueError(f"{name}:1: {_no_field(field, header)}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{name}:{reader.line_num}: {len(cells)} cells; expected {len(header)}, as in "
                    f"the header"
                )
            row = dict(zip(header, cells, strict=True))
            yield _Row(reader.line_num, row.get("_id", row.get("id")), row[field], row.get("title"))
    except csv.Error as error:
        raise ValueError(
            f"{name}:{reader.line_num}: not CSV ({error}); expected quoted, comma-separated cells"
        ) from None


def _parquet_rows(path: Path, field: str) -> Iterator[_Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ImportError(
            f'{path}: parquet needs pyarrow: pip install "nvembed_jax[parquet]"'
        ) from None
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a parquet file ({str(error).splitlines()[0]})") from None
    with file:
        names = file.schema_arrow.names
        if field not in names:
            raise ValueError(f"{path}: {_no_field(field, names)}")
        id_column = next((name for name in ("_id", "id") if name in names), None)
        columns = [name for name in (id_column, field, "title") if name in names]
        number = 0
        for batch in file.iter_batches(
            batch_size=_PARQUET_BATCH, columns=list(dict.fromkeys(columns))
        ):
            for row in batch.to_pylist():
                number += 1
                yield _Row(
                    number, row.get(id_column) if id_column else None, row[field], row.get("title")
                )


def _folder_rows(
    root: Path, field: str, format: str | None, on_skip: Callable[[str, str], None] | None
) -> Iterator[_Row]:
    if field != DEFAULT_FIELD or format is not None:
        raise ValueError(
            f"{root}: a folder's files are read whole, so --field and --format mean nothing here"
        )
    for relative, text in read_folder(root, on_skip):
        yield _Row(1, relative, text)


def _no_field(field: str, names: Iterable[str]) -> str:
    there = ", ".join(map(repr, itertools.islice(names, 12))) or "none"
    return f"no field {field!r}; there are: {there}. Choose one with --field"
