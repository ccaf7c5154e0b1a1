"""Rows of a file without near-duplicates: texts that are the same but for case and white space go
first, then texts whose embeddings are near. Every row that stays is written as it was.
"""

from __future__ import annotations

import gzip
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from nvembed_jax.data.identity import text_key
from nvembed_jax.data.records import DEFAULT_FIELD, format_of, read_records
from nvembed_jax.data.row_file import check_name, is_gzip, row_writer
from nvembed_jax.data.writers import PendingFile
from nvembed_jax.search.duplicates import TOLERANCE, duplicate_groups, leaders, row_cosines
from nvembed_jax.search.mining_embeddings import Teacher
from nvembed_jax.search.mining_texts import TextStore
from nvembed_jax.search.text_embeddings import TextEmbeddings, embedding_folder, loaded

KEEP = ("first", "longest")
FORMATS = ("jsonl", "txt")  # a row a line: the rest of it stays as it is
_DIGITS = 6  # of the scores that are written


@dataclass(kw_only=True)
class DedupReport:
    """What went, and why.

    Attributes:
        rows, kept: in and out. blank: rows without any text, which are all kept.
        exact: rows dropped that are the row kept but for case and white space. near: the others.
        groups: of two rows and more. largest: rows of the largest.
        linked: rows dropped whose own cosine with the row kept is below the threshold: they hang
            together with it through others.
        threshold: the cosine.
    """

    rows: int
    kept: int
    blank: int
    exact: int
    near: int
    groups: int
    largest: int
    linked: int
    threshold: float


class Decisions(NamedTuple):
    """For each row: the row that is kept for it, its group (-1: alone), and their cosine."""

    leader: Int[np.ndarray, " N"]
    group: Int[np.ndarray, " N"]
    score: Float[np.ndarray, " N"]


def dedup(
    source: str | Path,
    out: str | Path,
    model: Teacher | Callable[[], Teacher],
    *,
    threshold: float | int,
    groups: str | Path | None = None,
    keep: str = "first",
    field: str = DEFAULT_FIELD,
    cache: str | Path | None = None,
    encode_block: int = 2048,
    encoding: dict[str, Any] | None = None,
    block: int | None = None,
    show_progress_bar: bool | None = None,
) -> DedupReport:
    """Writes the rows of `source` but near-duplicates, in their order, each line as it was.

    Groups are those of `duplicate_groups`, over the texts' embeddings as passages.

    Args:
        source: .jsonl or .txt, also .gz. out: of the same kind; appears when it is complete.
        model: an `Embedder`, or a function that loads one: called when the input was checked.
        threshold: a cosine, over 0 and up to 1.
        groups: file of {id, line, group, representative, score}, a line for each row of a group of
            two and more; `representative` is the id of the row kept, `score` the cosine with it.
        keep: "first" of a group, or its "longest" text.
        field: key of the text; a title is joined to "text", as everywhere.
        cache: folder that keeps the embeddings for further runs; None: `OUT.cache`, removed at the
            end. A run that was stopped goes on from there.
        encode_block: texts encoded between two savings. encoding: options of the encoding.
        block: see `duplicate_groups`.

    Raises:
        FileNotFoundError: no such file. ValueError: `FILE:LINE: what is wrong`, or wrong options.
    """
    source, out = Path(source), Path(out)
    _check(source, out, groups, threshold, keep)
    store = TextEmbeddings(
        folder=embedding_folder(out, cache),
        block=encode_block,
        encoding=encoding or {},
        show_progress_bar=show_progress_bar,
    )
    stamp = _stamp(source)
    with tempfile.TemporaryDirectory(prefix="nvembed-dedup-") as folder:
        scan = _Scan(Path(folder), source, field)
        near, embeddings = np.arange(len(scan.texts)), np.zeros((len(scan.texts), 1), np.float32)
        if len(scan.texts) > 1:
            embeddings = store.texts(loaded(model), scan.texts)
            bar = show_progress_bar
            near = duplicate_groups(embeddings, threshold, block=block, show_progress_bar=bar)
        decisions = _decide(scan, near, embeddings, keep)
        with _line_writer(out) as write, _group_writer(groups) as write_group:
            _write(source, write, write_group, decisions, scan.ids)
            if _stamp(source) != stamp:
                raise ValueError(f"{source}: changed while it was read; run it again")
    if cache is None:
        store.remove()
    return _report(decisions, scan.slots, threshold)


class _Scan:
    """What two readings keep of a file: 40 bytes a row in memory, and its ids and texts on disk.

    Attributes:
        ids: of the rows. texts: that are not blank, each once.
        slots: the number of each row's text; -1: blank. lengths: of the rows' texts.
    """

    def __init__(self, folder: Path, source: Path, field: str) -> None:
        self.ids, self.texts = TextStore(folder / "ids"), TextStore(folder / "texts")
        lengths, keys, blank = array("q"), bytearray(), array("b")
        for record in read_records(source, field=field, unique=False):
            text = record.full_text
            self.ids.add(record.id)
            lengths.append(len(text))
            keys += text_key(text)
            blank.append(not text.strip())
        self.lengths = np.array(lengths, np.int64)
        self.slots, is_first = _slots(keys, np.array(blank, bool))
        # Only now is it known which texts are wanted; the keys of all of them stay small.
        records = read_records(source, field=field, unique=False)
        for record, wanted in zip(records, is_first, strict=False):
            if wanted:
                self.texts.add(record.full_text)


def _slots(
    keys: bytearray, blank: Bool[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """The number of each row's text (-1: blank), and which rows are the first with theirs."""
    halves = np.frombuffer(keys, np.int64).reshape(-1, 2)
    first = leaders([halves[:, 0], halves[:, 1]])
    is_first = (first == np.arange(len(first))) & ~blank
    return np.where(blank, -1, (np.cumsum(is_first) - 1)[first]), is_first


def _decide(
    scan: _Scan,
    near: Int[np.ndarray, " T"],
    embeddings: Float[np.ndarray, "T D"],
    keep: str,
) -> Decisions:
    slots, rows = scan.slots, np.arange(len(scan.slots))
    labels = len(near) + rows  # blank rows are like no other
    labels[slots >= 0] = near[slots[slots >= 0]]
    leader = leaders([labels], -scan.lengths if keep == "longest" else None)
    grouped = np.bincount(leader, minlength=len(rows))[leader] > 1
    group = np.full(len(rows), -1)
    _, first, inverse = np.unique(leader[grouped], return_index=True, return_inverse=True)
    group[grouped] = np.argsort(np.argsort(first))[inverse]
    score = np.ones(len(rows))
    other = np.flatnonzero(grouped & (slots != slots[leader]))
    score[other] = row_cosines(embeddings, slots[other], slots[leader[other]])
    return Decisions(leader, group, score)


def _report(
    decisions: Decisions, slots: Int[np.ndarray, " N"], threshold: float | int
) -> DedupReport:
    leader, group, score = decisions
    dropped = leader != np.arange(len(leader))
    exact = dropped & (slots == slots[leader])
    sizes = np.bincount(group[group >= 0])
    return DedupReport(
        rows=len(leader),
        kept=int(np.sum(~dropped)),
        blank=int(np.sum(slots < 0)),
        exact=int(np.sum(exact)),
        near=int(np.sum(dropped & ~exact)),
        groups=len(sizes),
        largest=int(sizes.max(initial=0)),
        linked=int(np.sum(dropped & (score < threshold - TOLERANCE))),
        threshold=float(threshold),
    )


def _write(
    source: Path,
    write: Callable[[bytes], Any],
    write_group: Callable[[dict[str, Any]], Any] | None,
    decisions: Decisions,
    ids: TextStore,
) -> None:
    leader, group, score = decisions
    for row, (number, line) in enumerate(_row_lines(source, len(leader))):
        if leader[row] == row:
            write(line)
        if write_group is None or group[row] < 0:
            continue
        id_, representative = ids.texts(np.array([row, leader[row]]))
        write_group(
            {
                "id": id_,
                "line": number,
                "group": int(group[row]),
                "representative": representative,
                "score": round(float(score[row]), _DIGITS),
            }
        )


def _row_lines(source: Path, count: int) -> Iterator[tuple[int, bytes]]:
    """(line, its bytes) of every row, as `read_records` counts them."""
    is_json, row = format_of(source) == "jsonl", 0
    with gzip.open(source) if is_gzip(source) else source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if row == count:
                return  # what follows are blank lines
            if is_json and not line.strip():
                continue
            row += 1
            yield number, line if line.endswith(b"\n") else line + b"\n"


@contextmanager
def _line_writer(path: Path) -> Iterator[Callable[[bytes], Any]]:
    """A function that writes lines, gzipped by the file's name.

    The file is there, whole, when the block ends without an error, and else not at all.
    """
    pending = PendingFile(path)
    gzipped = gzip.GzipFile("", "wb", 6, pending.file, mtime=0) if is_gzip(path) else None
    try:
        with gzipped or nullcontext(pending.file) as file:
            yield file.write
        pending.commit()
    finally:
        pending.discard()


def _group_writer(groups: str | Path | None) -> Any:
    return nullcontext(None) if groups is None else row_writer(Path(groups))


def _stamp(path: Path) -> tuple[int, int] | None:
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


def _check(
    source: Path, out: Path, groups: str | Path | None, threshold: float | int, keep: str
) -> None:
    """All that can be said before the input is read."""
    if str(source) == "-" or source.is_dir():
        what = "a folder" if source.is_dir() else "standard input"
        raise ValueError(f"{source}: is {what}; expected a .jsonl or .txt file, which may be .gz")
    for path in (source, out):
        if format_of(path) not in FORMATS:
            raise ValueError(f"{path}: expected .jsonl or .txt, each also .gz: a row a line")
    if format_of(source) != format_of(out):
        raise ValueError(f"{out}: rows of {source} stay as they are; name a .{format_of(source)}")
    if keep not in KEEP:
        raise ValueError(f"keep must be one of {', '.join(KEEP)}; got {keep!r}")
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is a cosine, over 0 and up to 1; got {threshold}")
    written = [out] if groups is None else [out, check_name(groups)]
    for number, path in enumerate(written):
        for other in (source, *written[:number]):
            if path.absolute() == other.absolute() or (
                path.exists() and other.exists() and path.samefile(other)
            ):
                raise ValueError(f"{path}: is {other} too; name another output")
        PendingFile(path).discard()  # a place that cannot be written shows now
