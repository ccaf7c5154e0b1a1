"""Slices of stored tensors into fresh host arrays, with the dtype conversion on the way."""

from __future__ import annotations

import math

import numpy as np

from nvembed_jax.checkpoint.keys import Parts

ALIGNMENT = 64  # bytes; JAX on CPUs takes an array so aligned without copying it


def read_slice(
    parts: Parts, index: tuple[slice, ...] | None = None, dtype: np.dtype | None = None
) -> np.ndarray:
    """The block `index` (default: all) of one of our tensors, as `dtype` (default: as stored).

    Only the layers and rows asked for are read. Integers are never converted.
    """
    index = index or (slice(None),) * len(parts.shape)
    bounds = [part.indices(size) for part, size in zip(index, parts.shape, strict=True)]
    shape = tuple(len(range(*bound)) for bound in bounds)
    stored = parts.entries[0].dtype
    out = aligned_empty(shape, stored if dtype is None or not is_float(stored) else dtype)
    if not parts.stacked:
        cast_into(out, parts.entries[0].view()[index], parts.name)
        return out
    for row, layer in enumerate(range(*bounds[0])):
        cast_into(out[row], parts.entries[layer].view()[index[1:]], parts.entries[layer].name)
    return out


def cast_into(out: np.ndarray, values: np.ndarray, name: str) -> None:
    """Copies `values` into `out`, rounding to nearest even where the dtype differs.

    Raises ValueError naming the tensor if a finite value does not fit (float16 ends at 65504).
    """
    with np.errstate(over="ignore"):
        np.copyto(out, values, casting="unsafe")
    if out.dtype == np.float16 and values.dtype != np.float16:
        overflowed = ~np.isfinite(out) & np.isfinite(values)
        if overflowed.any():
            worst = float(np.max(np.abs(values[overflowed].astype(np.float32))))
            raise ValueError(
                f"tensor {name!r} does not fit float16: {worst:g} is above 65504; "
                "use bfloat16 or float32"
            )


def is_float(dtype: np.dtype) -> bool:
    """Whether tensors of this dtype take part in conversion (ml_dtypes' types have kind "V")."""
    return dtype.name in ("float64", "float32", "float16", "bfloat16")


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array whose data begins at a multiple of `ALIGNMENT`."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
