"""Writing safetensors sequentially: the header, then every tensor's bytes as they come, then fsync.

Nothing larger than one chunk is held in memory.
"""

from __future__ import annotations

import errno
import json
import math
import os
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from nvembed_jax.checkpoint.reading import cast_into, is_float
from nvembed_jax.checkpoint.safetensors_io import (
    DTYPE_NAMES,
    INDEX_FILE,
    SINGLE_FILE,
    TensorEntry,
)

SHARD_BYTES = 5_000_000_000
CHUNK_BYTES = 16 << 20
Progress = Callable[[int], None]
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems


class ByteCount:
    """Turns the bytes of each step into calls of `callback(bytes so far, bytes in all)`."""

    def __init__(self, callback: Callable[[int, int], None] | None, total: int):
        self.callback, self.total, self.done = callback, total, 0

    def __call__(self, count: int) -> None:
        self.done += count
        if self.callback:
            self.callback(self.done, self.total)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


def make_header(specs: Iterable[TensorSpec], metadata: Mapping[str, str] | None = None) -> bytes:
    """The header's JSON, padded so that data begins at a multiple of eight bytes."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.nbytes
        entries[spec.name] = {
            "dtype": DTYPE_NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [begin, end],
        }
    raw = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return raw + b" " * (-len(raw) % 8)


def plan_shards(
    specs: Iterable[TensorSpec], limit: int = SHARD_BYTES
) -> dict[str, list[TensorSpec]]:
    """File name -> tensors: files of at most `limit` bytes (a larger tensor has one of its own).

    Wide dtypes come first, so that every tensor is aligned to its own size.
    """
    groups: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in sorted(specs, key=lambda spec: -spec.dtype.itemsize):
        if groups[-1] and size + spec.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(spec)
        size += spec.nbytes
    for group in groups:
        group.sort(key=lambda spec: -spec.dtype.itemsize)
    if len(groups) == 1:
        return {SINGLE_FILE: groups[0]}
    count = len(groups)
    return {f"model-{i:05d}-of-{count:05d}.safetensors": g for i, g in enumerate(groups, start=1)}


def write_index(folder: Path, shards: Mapping[str, list[TensorSpec]]) -> None:
    """Writes the index of several shards; a single file needs none."""
    if list(shards) == [SINGLE_FILE]:
        return
    weight_map = {spec.name: name for name, specs in shards.items() for spec in specs}
    total = sum(spec.nbytes for specs in shards.values() for spec in specs)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


class SafetensorsWriter:
    """Writes one file sequentially; use as a context manager.

    The header goes first; leaving the context checks that all of the announced bytes came, and
    waits until they are on the disk.
    """

    def __init__(
        self, path: Path, header: bytes, data_bytes: int, progress: Progress | None = None
    ):
        self.path, self._expected, self._done = path, data_bytes, 0
        self._progress = progress or (lambda _: None)
        self._file = path.open("xb", buffering=0)
        self._file.write(struct.pack("<Q", len(header)) + header)

    def copy(self, entry: TensorEntry) -> None:
        """Appends a stored tensor's bytes, unchanged, without passing them through Python."""
        with entry.file.open("rb", buffering=0) as source:
            _copy_range(source.fileno(), self._file.fileno(), entry, self._advance)

    def convert(self, entry: TensorEntry, dtype: np.dtype) -> None:
        """Appends a stored tensor as `dtype` (integers as they are), a chunk at a time."""
        if entry.dtype == dtype or not is_float(entry.dtype):
            self.copy(entry)
            return
        self.write(entry.view(), dtype, entry.name)

    def write(self, array: np.ndarray, dtype: np.dtype, name: str) -> None:
        """Appends an array as `dtype`, a chunk at a time."""
        values = array.reshape(-1)
        step = CHUNK_BYTES // dtype.itemsize
        out = np.empty(min(step, values.size), dtype)
        for start in range(0, values.size, step):
            part = values[start : start + step]
            block = out[: part.size]
            cast_into(block, part, name)
            self._write_all(block.view(np.uint8).data)

    def _write_all(self, data: memoryview) -> None:
        while data:
            written = self._file.write(data)
            self._advance(written)
            data = data[written:]

    def _advance(self, count: int) -> None:
        self._done += count
        self._progress(count)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if kind is None and self._done != self._expected:
                raise RuntimeError(
                    f"{self.path}: wrote {self._done} bytes, announced {self._expected}"
                )
            if kind is None:
                os.fsync(self._file.fileno())


def _copy_range(source: int, target: int, entry: TensorEntry, advance: Progress) -> None:
    """In-kernel copying where the system has it, else through one small buffer."""
    position, end = entry.offset, entry.offset + entry.nbytes
    while position < end:
        count = _send(target, source, position, min(CHUNK_BYTES, end - position))
        if count == 0:
            raise ValueError(
                f"{entry.file} ended at byte {position}, in the middle of {entry.name!r}"
            )
        position += count
        advance(count)


def _send(target: int, source: int, position: int, count: int) -> int:
    if sys.platform == "linux":  # elsewhere sendfile writes to sockets only
        try:
            return os.sendfile(target, source, position, count)
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                raise
    data = memoryview(os.pread(source, min(count, 1 << 20), position))
    written = 0
    while written < len(data):
        written += os.write(target, data[written:])
    return written
