"""Embeddings out: .npy (with a .ids file beside it), .parquet or .jsonl, block by block.

A file gets its name only when it is complete: until then it stands under a temporary name beside
it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

OUTPUT_SUFFIXES = (".npy", ".parquet", ".jsonl")
ROW_GROUP_BYTES = 64 << 20


class PendingFile:
    """A file under a temporary name: `commit` gives it its own, `discard` removes it."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise IsADirectoryError(f"{path}: cannot be written, it is a folder; name a file")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path}: cannot be written, there is no folder {path.parent}")
        self.path = path
        try:
            handle, self._temporary = tempfile.mkstemp(
                prefix=f".{path.name}.", suffix=".part", dir=path.parent
            )
        except OSError as error:
            raise OSError(f"{path}: cannot be written ({error.strerror})") from None
        self.file: IO[bytes] = os.fdopen(handle, "wb")

    def commit(self) -> None:
        """Makes the content durable and gives the file its name."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(self._temporary, 0o666 & ~umask)  # mkstemp makes files private
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Removes what was written; does nothing after `commit`."""
        self.file.close()
        Path(self._temporary).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole, in place of what stood there, or leaves that as it was."""
    pending = PendingFile(path)
    try:
        pending.file.write(text.encode())
        pending.commit()
    finally:
        pending.discard()


class EmbeddingWriter:
    """Takes blocks of (ids, embeddings [N, D]); `close` finishes the file, `abort` leaves none.

    As a context manager it closes on success and aborts on an exception.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._pending = [PendingFile(path)]
        self._width: int | None = None
        self._dtype: np.dtype | None = None

    def write(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Appends a block; every block has the same width and dtype."""
        if embeddings.ndim != 2 or len(ids) != len(embeddings):
            raise ValueError(
                f"expected {len(ids)} embeddings for as many ids; got shape {embeddings.shape}"
            )
        if self._dtype is None:
            self._width, self._dtype = embeddings.shape[1], embeddings.dtype
            self._begin()
        if embeddings.shape[1] != self._width or embeddings.dtype != self._dtype:
            raise ValueError(
                f"expected blocks of width {self._width} in {self._dtype}; got "
                f"{embeddings.shape[1]} in {embeddings.dtype}"
            )
        self._append(ids, np.ascontiguousarray(embeddings))
        self.rows += len(ids)

    def close(self) -> None:
        """Finishes the file and gives it its name."""
        try:
            if self._dtype is None:
                raise ValueError(f"{self.path}: no embeddings to write")
            self._end()
            for pending in reversed(
                self._pending
            ):  # the main file last: where it is, the rest is too
                pending.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Removes what was written so far."""
        for pending in self._pending:
            pending.discard()

    def __enter__(self) -> EmbeddingWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _begin(self) -> None: ...

    def _append(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        raise NotImplementedError

    def _end(self) -> None: ...


class NpyWriter(EmbeddingWriter):
    """One array [N, D] in .npy, and the ids, one a line, in the .ids file of the same name."""

    def __init__(self, path: Path, with_ids: bool = True) -> None:
        super().__init__(path)
        self._with_ids = with_ids
        if not with_ids:
            return
        try:
            self._pending.append(PendingFile(path.with_suffix(".ids")))
        except OSError:
            self.abort()
            raise

    def _begin(self) -> None:
        self._write_header(0)
        self._data_start = self._pending[0].file.tell()

    def _append(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        for id_ in ids if self._with_ids else ():
            if "\n" in id_ or "\r" in id_:
                raise ValueError(
                    f"the id {id_!r} holds a line break; write .parquet or .jsonl instead of .npy"
                )
        if self._with_ids:
            self._pending[1].file.write("".join(f"{id_}\n" for id_ in ids).encode())
        self._pending[0].file.write(embeddings.data)

    def _end(self) -> None:
        # NumPy pads the header so that the number of rows can be patched in once it is known.
        self._pending[0].file.seek(0)
        self._write_header(self.rows)
        if self._pending[0].file.tell() != self._data_start:
            raise RuntimeError(
                "the .npy header changed its length; this NumPy cannot be written to in a stream"
            )

    def _write_header(self, rows: int) -> None:
        assert self._dtype is not None
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (rows, self._width)}
        np.lib.format.write_array_header_1_0(self._pending[0].file, header)


class JsonlWriter(EmbeddingWriter):
    """One line {"id", "embedding"} a text."""

    def _append(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        lines = (
            json.dumps({"id": id_, "embedding": row}, ensure_ascii=False) + "\n"
            for id_, row in zip(ids, embeddings.tolist(), strict=True)
        )
        self._pending[0].file.write("".join(lines).encode())


class ParquetWriter(EmbeddingWriter):
    """Columns id (string) and embedding (fixed-size list), zstd, row groups of about 64 MB."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet  # noqa: F401  (asked for before anything is encoded)
        except ImportError:
            raise ImportError(
                f'{path}: parquet needs pyarrow: pip install "nvembed_jax[parquet]"'
            ) from None
        super().__init__(path)
        self._file: Any = None
        self._ids: list[str] = []
        self._blocks: list[np.ndarray] = []

    def _begin(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert self._dtype is not None
        values = pa.list_(pa.from_numpy_dtype(self._dtype), self._width)
        self._schema = pa.schema([("id", pa.string()), ("embedding", values)])
        self._file = pq.ParquetWriter(self._pending[0].file, self._schema, compression="zstd")
        assert self._width is not None
        self._group = max(1, ROW_GROUP_BYTES // (self._width * self._dtype.itemsize))

    def _append(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        self._ids += ids
        self._blocks.append(embeddings)
        if len(self._ids) >= self._group:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        flat = np.concatenate(self._blocks).reshape(-1)
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(flat), self._width)
        table = pa.table([pa.array(self._ids, pa.string()), embeddings], schema=self._schema)
        self._file.write_table(table)
        self._ids, self._blocks = [], []

    def _end(self) -> None:
        if self._ids:
            self._flush()
        self._file.close()

    def abort(self) -> None:
        if self._file is not None and self._file.is_open and not self._pending[0].file.closed:
            self._file.close()  # its destructor would write into a closed file
        super().abort()


def open_writer(path: str | Path) -> EmbeddingWriter:
    """The writer for the suffix of `path`; raises at once where the file could not be written.

    Raises:
        ValueError: the suffix is none of `OUTPUT_SUFFIXES`.
        OSError: the folder is missing or not writable, or the path is a folder.
    """
    path = Path(path)
    writers: dict[str, type[EmbeddingWriter]] = {
        ".npy": NpyWriter,
        ".parquet": ParquetWriter,
        ".jsonl": JsonlWriter,
    }
    if path.suffix.lower() not in writers:
        raise ValueError(f"{path}: cannot write {path.suffix or 'a name without a suffix'}; "
                         f"expected {', '.join(OUTPUT_SUFFIXES)}")  # fmt: skip
    return writers[path.suffix.lower()](path)


def read_ids(path: str | Path) -> list[str]:
    """The ids of a .ids file, in order."""
    return Path(path).read_text(encoding="utf-8").split("\n")[:-1]
