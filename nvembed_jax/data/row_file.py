"""JSON rows of .jsonl and .jsonl.gz files: in a stream, or by number with offsets in memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nvembed_jax.data.writers import PendingFile
from nvembed_jax.runtime import progress_bar

Keep = Callable[[Any, str], bool]  # (row, where) -> whether it is used; raises for a bad row


@runtime_checkable
class Rows(Protocol):
    """Rows by number; what example sources are built on."""

    name: str
    fingerprint: str  # sha256 of the rows' content

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def where(self, index: int) -> str:
        """The place of a row, for messages."""
        ...


class RowFile:
    """The rows of one or several files, end to end, as `Rows`.

    All lines are read once when it is opened; then only offsets stand in memory (12 bytes a row).
    Rows are read with pread, so threads may share it, and it can be pickled. A .gz file is
    decompressed once into `cache_dir`, by its content.

    Args:
        paths: a .jsonl or .jsonl.gz file, or several.
        keep: called with every row and its place, "FILE:LINE"; rows it turns down do not count.
        cache_dir: where decompressed files are kept; None: a temporary folder, removed at the end.
        limit: only the first rows kept, as many as that; what follows is not read.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: `FILE:LINE: what is wrong` for broken JSON or UTF-8, and whatever `keep` raises.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        keep: Keep,
        *,
        cache_dir: str | Path | None = None,
        limit: int | None = None,
    ) -> None:
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        if not files:
            raise ValueError("no files given; expected at least one .jsonl or .jsonl.gz file")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, or None for all rows; got {limit}")
        self._shown = [check_file(path) for path in files]
        self.name = self._shown[0].name.lower().removesuffix(".gz").removesuffix(".jsonl")
        self._folder = _CacheFolder(None if cache_dir is None else Path(cache_dir))
        self._plain = [self._folder.plain(path) for path in self._shown]
        self.fingerprint = self._scan(keep, limit)
        self._open()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Any:
        file = self._file(index)
        line = os.pread(self._handles[file], int(self._lengths[index]), int(self._offsets[index]))
        return load_line(line, self.where(index))

    def where(self, index: int) -> str:
        """The file and the offset: a row that was good at first is bad when its file changed."""
        return (
            f"{self._shown[self._file(index)]}, byte {int(self._offsets[index])} (changed since it "
            f"was opened?)"
        )

    def _file(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no row {index}; there are {len(self)}")
        return int(np.searchsorted(self._ends, index, side="right"))

    def _scan(self, keep: Keep, limit: int | None) -> str:
        digest, offsets, lengths, ends = hashlib.sha256(), array("q"), array("i"), []
        for shown, plain in zip(self._shown, self._plain, strict=True):
            for offset, line in _kept_lines(shown, plain, keep):
                digest.update(line)
                offsets.append(offset)
                lengths.append(len(line))
                if len(offsets) == limit:
                    break
            ends.append(len(offsets))
            if len(offsets) == limit:
                break
        self._offsets = np.array(offsets, np.int64)
        self._lengths = np.array(lengths, np.int32)
        self._ends = np.array(ends, np.int64)
        return digest.hexdigest()

    def _open(self) -> None:
        self._handles = [os.open(path, os.O_RDONLY) for path in self._plain]
        weakref.finalize(self, _close, tuple(self._handles))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_handles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def read_rows(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Streams ("FILE:LINE", row) of a .jsonl or .jsonl.gz file; blank lines are skipped."""
    path = check_file(path)
    with _complete_gzip(path), gzip.open(path) if is_gzip(path) else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}:{number}"
                yield where, load_line(line, where)


def load_line(line: bytes, where: str) -> Any:
    """The value of one JSON line; ValueError with `where` for broken UTF-8 or JSON."""
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: not UTF-8: 0x{line[error.start]:02x} at byte {error.start + 1} of the line; "
            f"expected UTF-8 (convert with `iconv -t utf-8`)"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: not JSON ({error.msg} at character {error.pos + 1}); expected one JSON "
            f"object a line"
        ) from None
    except RecursionError:
        raise ValueError(f"{where}: JSON nested too deep; expected one object a line") from None


def check_name(path: str | Path) -> Path:
    """The path, if it is named as a file of JSON lines."""
    path = Path(path)
    if not path.name.lower().removesuffix(".gz").endswith(".jsonl"):
        raise ValueError(f"{path}: expected a .jsonl or .jsonl.gz file (one JSON object a line)")
    return path


def check_file(path: str | Path) -> Path:
    """The path, if it is a file of JSON lines that is there."""
    if not check_name(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return Path(path)


@contextmanager
def row_writer(path: Path) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A function that writes a row as a line of JSON, gzipped by the file's name.

    The file is there, whole, when the block ends without an error, and else not at all.
    """
    pending = PendingFile(path)
    gzipped = gzip.GzipFile("", "wb", 6, pending.file, mtime=0) if is_gzip(path) else None
    try:
        with gzipped or nullcontext(pending.file) as file:
            yield lambda row: file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        pending.commit()
    finally:
        pending.discard()


def is_gzip(path: Path) -> bool:
    """Whether the name says that the file is gzipped."""
    return path.name.lower().endswith(".gz")


def _kept_lines(shown: Path, plain: Path, keep: Keep) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with plain.open("rb") as file, progress_bar(plain.stat().st_size, None, "B") as bar:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{shown}:{number}"
                if keep(load_line(line, where), where):
                    yield offset, line
            offset += len(line)
            if number % 1024 == 0:
                bar.update(offset - bar.n)


class _CacheFolder:
    """Decompressed copies, named by the SHA-256 of the compressed file."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def plain(self, path: Path) -> Path:
        if not is_gzip(path):
            return path
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="nvembed-rows-"))
            weakref.finalize(self, shutil.rmtree, self._folder, True)
        self._folder.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as file:
            target = self._folder / f"{hashlib.file_digest(file, 'sha256').hexdigest()}.jsonl"
        if target.exists():
            return target
        pending = PendingFile(target)
        try:
            with _complete_gzip(path), gzip.open(path) as file:
                shutil.copyfileobj(file, pending.file, 1 << 20)
            pending.commit()
        finally:
            pending.discard()
        return target


@contextmanager
def _complete_gzip(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a complete gzip file ({error}); copy it anew") from None


def _close(handles: Sequence[int]) -> None:
    for handle in handles:
        os.close(handle)
