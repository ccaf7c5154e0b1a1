"""Reading safetensors: checked headers, tensors as zero-copy NumPy views of the mapped file.

A `SafetensorsFolder` is one `model.safetensors` or an index with its shards; tensors are not read
before they are asked for.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
MAX_HEADER = 100_000_000  # bytes; the format's own limit
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOAT_NAMES = ("float32", "bfloat16", "float16")


def float_dtype(dtype: Any) -> np.dtype:
    """`dtype` (a name, or NumPy's or JAX's) as a NumPy dtype; ValueError if no weight type."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in FLOAT_NAMES:
        raise ValueError(f"dtype must be one of {', '.join(FLOAT_NAMES)}; got {dtype!r}")
    return found


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: where its bytes lie. `offset` counts from the start of the file."""

    name: str
    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def view(self) -> np.ndarray:
        """The tensor as a read-only view of the mapped file; only touched pages are read."""
        raw = np.asarray(np.memmap(self.file, dtype=np.uint8, mode="r"))
        return raw[self.offset : self.offset + self.nbytes].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Header:
    """A safetensors header; `raw` is its JSON exactly as stored, padding included."""

    file: Path
    raw: bytes
    tensors: dict[str, TensorEntry]  # in the order of their data
    metadata: dict[str, str] = field(default_factory=dict)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice")
    return out


def parse_header(raw: bytes, file: Path, data_size: int | None = None) -> Header:
    """Reads and checks the JSON of a header.

    Args:
        raw: the JSON bytes. file: named in errors.
        data_size: bytes of tensor data in the file, if it is to be checked.

    Raises:
        ValueError: not JSON, an unknown dtype, a wrong size, an overlap, a gap, a truncated file.
    """
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except ValueError as error:
        raise ValueError(f"{file}: the safetensors header is not valid: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"{file}: the safetensors header must be an object; got {type(data).__name__}"
        )
    metadata = data.pop("__metadata__", None) or {}
    start = 8 + len(raw)
    entries = [_entry(name, value, file, start) for name, value in data.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.nbytes))
    end = start
    for entry in entries:
        if entry.offset != end:
            what = (
                "overlaps the tensor before it" if entry.offset < end else "leaves a gap before it"
            )
            raise ValueError(
                f"{file}: tensor {entry.name!r} {what}: it begins at byte {entry.offset}, "
                f"expected {end}"
            )
        end += entry.nbytes
    if data_size is not None and end - start != data_size:
        what = "truncated" if data_size < end - start else "longer than its header says"
        raise ValueError(
            f"{file} is {what}: expected {end} bytes, found {start + data_size}; "
            "download or copy it again"
        )
    return Header(file, raw, {entry.name: entry for entry in entries}, metadata)


def _entry(name: str, value: Any, file: Path, start: int) -> TensorEntry:
    try:
        code, shape = value["dtype"], tuple(int(n) for n in value["shape"])
        begin, end = (int(n) for n in value["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: tensor {name!r} has a malformed header entry: {value!r}"
        ) from error
    if code not in DTYPES:
        known = ", ".join(DTYPES)
        raise ValueError(f"{file}: tensor {name!r} has the unknown dtype {code!r}; known: {known}")
    size = math.prod(shape) * DTYPES[code].itemsize
    if begin < 0 or min(shape, default=0) < 0 or end - begin != size:
        raise ValueError(
            f"{file}: tensor {name!r} has misaligned offsets [{begin}, {end}): "
            f"{code} of shape {list(shape)} takes {size} bytes, not {end - begin}"
        )
    return TensorEntry(name, file, DTYPES[code], shape, start + begin, size)


def read_header(file: Path) -> Header:
    """The checked header of one file. ValueError names the file, what was expected, and found."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{file} is truncated: expected at least 8 bytes, found {size}")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER:
            raise ValueError(
                f"{file} is not a safetensors file: its header would have {length} bytes, "
                f"at most {MAX_HEADER} are allowed"
            )
        raw = stream.read(length)
    if len(raw) < length:
        raise ValueError(
            f"{file} is truncated: expected {8 + length} bytes of header, found {size}"
        )
    return parse_header(raw, file, size - 8 - length)


class SafetensorsFolder(Mapping[str, TensorEntry]):
    """All tensors of a folder, by name: `model.safetensors`, or the shards named by its index.

    Attributes:
        headers: file name -> `Header`, in the order of the file names.

    Raises:
        FileNotFoundError: no weights, or a shard that the index names is missing.
        ValueError: a broken file, a tensor in two shards, an index that disagrees with them.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        single, index = self.folder / SINGLE_FILE, self.folder / INDEX_FILE
        if single.is_file():
            self.headers = {SINGLE_FILE: read_header(single)}
        elif index.is_file():
            self.headers = _indexed_headers(index)
        else:
            raise FileNotFoundError(_no_weights(self.folder))
        self._tensors: dict[str, TensorEntry] = {}
        for header in self.headers.values():
            for name, entry in header.tensors.items():
                if name in self._tensors:
                    raise ValueError(
                        f"tensor {name!r} is a duplicate: it stands in {self._tensors[name].file} "
                        f"and in {entry.file}"
                    )
                self._tensors[name] = entry

    def __getitem__(self, name: str) -> TensorEntry:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _indexed_headers(index: Path) -> dict[str, Header]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=_unique)[
            "weight_map"
        ]
        files = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is not a safetensors index: {error}; expected a 'weight_map'"
        ) from error
    for name in files:
        if Path(name).name != name:
            raise ValueError(f"{index} names {name!r}; a shard must lie in the same folder")
        if not (index.parent / name).is_file():
            raise FileNotFoundError(
                f"{index} names the shard {name!r}, which is missing in {index.parent}; "
                "download it again"
            )
    headers = {name: read_header(index.parent / name) for name in files}
    for tensor, name in weight_map.items():
        if tensor not in headers[name].tensors:
            raise ValueError(
                f"{index} says that tensor {tensor!r} is in {name}; it is missing there"
            )
    for header in headers.values():
        extra = next((t for t in header.tensors if t not in weight_map), None)
        if extra is not None:
            raise ValueError(f"{header.file} holds tensor {extra!r}, which {index} does not name")
    return headers


def _no_weights(folder: Path) -> str:
    if not folder.is_dir():
        return f"no model folder at {folder}"
    other = sorted(
        p.name
        for pattern in ("*.bin", "*.pt", "*.safetensors", "*.gguf")
        for p in folder.glob(pattern)
    )
    found = f"found only {', '.join(other[:5])}" if other else "found no weights at all"
    return (
        f"no weights in {folder}: expected {SINGLE_FILE} or {INDEX_FILE}; {found}. "
        "Save the model as safetensors"
    )
