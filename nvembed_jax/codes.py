"""Embeddings in less memory: Matryoshka truncation, int8, uint8 and binary codes, and scores
between codes.

The conventions are those of sentence-transformers' `quantize_embeddings`: per-dimension ranges in
255 steps, and binary codes of eight signs a byte, first dimension in the highest bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Num, Shaped, UInt8

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
_STEPS = 255


def check_precision(precision: str) -> None:
    """Raises ValueError for a name that is none of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")


def truncate(
    embeddings: Float[np.ndarray, "*N D"], dim: int, renormalize: bool = True
) -> Float[np.ndarray, "*N dim"]:
    """The first `dim` dimensions, scaled to length one again.

    Source: Kusupati et al. 2022, Matryoshka representation learning.
    """
    width = embeddings.shape[-1]
    if not 1 <= dim <= width:
        raise ValueError(
            f"the embeddings have {width} dimensions; expected 1 to {width} to keep, got {dim}"
        )
    cut = np.asarray(embeddings[..., :dim], np.float32)
    return unit(cut) if renormalize else cut


def unit(embeddings: Float[np.ndarray, "*N D"]) -> Float[np.ndarray, "*N D"]:
    """Rows scaled to length one; zero rows stay zero."""
    norms = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.where(norms == 0, 1, norms)


def similarity(a: Any, b: Any) -> Float[np.ndarray, "N M"]:
    """Cosine similarities of embeddings [N, D] and [M, D]; a vector counts as one row."""
    left, right = (np.atleast_2d(np.asarray(x, np.float32)) for x in (a, b))
    if left.shape[-1] != right.shape[-1]:
        raise ValueError(f"embeddings differ in width: {left.shape[-1]} and {right.shape[-1]}")
    return unit(left) @ unit(right).T


def embedding_ranges(embeddings: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "2 D"]:
    """Minimum and maximum of every dimension: what int8 and uint8 codes are relative to."""
    return np.stack([embeddings.min(axis=0), embeddings.max(axis=0)]).astype(np.float32)


def unit_ranges(dim: int) -> Float[np.ndarray, "2 D"]:
    """Constant ranges for unit vectors, so that a text's codes do not depend on its batch: six
    standard deviations of a coordinate to either side.
    """
    bound = np.full(dim, min(1.0, 6 * dim**-0.5), np.float32)
    return np.stack([-bound, bound])


def quantize_embeddings(
    embeddings: Num[np.ndarray, "*N D"],
    precision: str,
    ranges: Float[np.ndarray, "2 R"] | None = None,
) -> Shaped[np.ndarray, "*N C"]:
    """Codes of `embeddings`: C = D for float32, int8 and uint8, and D / 8 (rounded up) for the
    binary ones.

    Args:
        precision: one of `PRECISIONS`; `binary` is `ubinary` less 128, as int8.
        ranges: minimum and maximum a dimension, for int8 and uint8; None: those of these
            embeddings, which then must be two or more. Codes compare only under the same ranges.

    Raises:
        ValueError: an unknown precision, embeddings that are codes already, or no ranges for one
            embedding.
    """
    check_precision(precision)
    if embeddings.dtype.kind != "f":
        raise ValueError(
            f"expected float embeddings; got {embeddings.dtype}: are they codes already?"
        )
    if precision == "float32":
        return embeddings.astype(np.float32)
    if precision in ("binary", "ubinary"):
        packed = np.packbits(embeddings > 0, axis=-1)
        return packed if precision == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    if ranges is None:
        if embeddings.ndim != 2 or len(embeddings) == 1:
            raise ValueError(f"{precision} needs ranges, and one embedding has none: pass ranges")
        ranges = (
            embedding_ranges(embeddings)
            if len(embeddings)
            else np.zeros((2, embeddings.shape[1]), np.float32)
        )
    low, step = _scale(ranges, embeddings.shape[-1])
    codes = np.clip(np.floor((embeddings - low) / step), 0, _STEPS)
    return codes.astype(np.uint8) if precision == "uint8" else (codes - 128).astype(np.int8)


def dequantize_embeddings(
    codes: Shaped[np.ndarray, "*N C"],
    precision: str,
    ranges: Float[np.ndarray, "2 D"] | None = None,
) -> Float[np.ndarray, "*N E"]:
    """What codes stand for: the middle of the step for int8 and uint8, the signs +1 and -1 for
    binary codes.

    E = D, but for binary codes D rounded up to whole bytes; the signs in excess are -1.
    """
    if precision == "float32":
        return np.asarray(codes, np.float32)
    if precision in ("binary", "ubinary"):
        return np.unpackbits(unsigned_bits(codes, precision), axis=-1).astype(np.float32) * 2 - 1
    check_precision(precision)
    if ranges is None:
        raise ValueError(
            f"{precision} codes mean nothing without the ranges that they were made with"
        )
    low, step = _scale(ranges, codes.shape[-1])
    return low + (codes.astype(np.float32) + (128.5 if precision == "int8" else 0.5)) * step


def unsigned_bits(codes: Shaped[np.ndarray, "*N C"], precision: str) -> UInt8[np.ndarray, "*N C"]:
    """Binary codes of either kind as packed bits."""
    expected = np.int8 if precision == "binary" else np.uint8
    if codes.dtype != expected:
        raise ValueError(f"expected {precision} codes in {np.dtype(expected)}; got {codes.dtype}")
    return codes if precision == "ubinary" else (codes.astype(np.int16) + 128).astype(np.uint8)


def _scale(ranges: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    if ranges.shape != (2, dim):
        raise ValueError(f"expected ranges of shape (2, {dim}); got {ranges.shape}")
    low, high = np.asarray(ranges, np.float32)
    step = (high - low) / _STEPS
    return low, np.where(step == 0, np.float32(1), step)
