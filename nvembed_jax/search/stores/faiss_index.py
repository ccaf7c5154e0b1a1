"""Vectors or their codes in memory, in a FAISS index that looks at all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from nvembed_jax.codes import dequantize_embeddings, quantize_embeddings, unit_ranges


class FlatIndex:
    """Rows, known by rising numbers, with their vectors as "float", "int8" or "binary" codes.

    Attributes:
        rows: numbers of the rows, in the order in which FAISS has them.
    """

    def __init__(self, dim: int, embedding_type: str) -> None:
        import faiss

        self._faiss: Any = faiss
        self._type, self._dim = embedding_type, dim
        self.rows: Int[np.ndarray, " N"] = np.zeros(0, np.int64)
        if embedding_type == "binary":
            self._index: Any = faiss.IndexBinaryFlat(-(-dim // 8) * 8)
        elif embedding_type == "int8":
            self._index = faiss.IndexScalarQuantizer(
                dim, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT
            )
            # It takes its range from what it sees; within that, its 255 steps are those of `codes`.
            self._index.train(unit_ranges(dim))
        else:
            self._index = faiss.IndexFlatIP(dim)

    def add(self, rows: Int[np.ndarray, " N"], held: bytes) -> None:
        """Adds rows, whose numbers are above all before, with what `codes` gave for them."""
        dtype = {"float": np.float32, "int8": np.int8, "binary": np.uint8}[self._type]
        values = np.frombuffer(held, dtype).reshape(len(rows), -1)
        if self._type == "int8":
            values = dequantize_embeddings(values, "int8", unit_ranges(self._dim))
        self._index.add(values)
        self.rows = np.concatenate([self.rows, rows])

    def search(
        self,
        queries: Float[np.ndarray, "Q D"],
        depth: int,
        allowed: Int[np.ndarray, " M"],
    ) -> tuple[Num[np.ndarray, "Q K"], Int[np.ndarray, "Q K"]]:
        """Scores and numbers of the `depth` <= M best rows of those that are allowed, per query.

        Scores of codes are only good for ranking.
        """
        params = None
        if len(allowed) < len(self.rows):
            mask = np.zeros(len(self.rows), bool)
            mask[np.searchsorted(self.rows, allowed)] = True
            bits = np.packbits(mask, bitorder="little")
            selector = self._faiss.IDSelectorBitmap(len(bits), self._faiss.swig_ptr(bits))
            params = self._faiss.SearchParameters(sel=selector)
        if self._type == "binary":
            asked = quantize_embeddings(queries, "ubinary")
            distances, positions = self._index.search(asked, depth, params=params)
            return -distances, self.rows[positions]
        scores, positions = self._index.search(queries, depth, params=params)
        return scores, self.rows[positions]


def codes(vectors: Float[np.ndarray, "N D"], embedding_type: str) -> Num[np.ndarray, "N C"] | None:
    """What a row is held as in memory; None where that is the vector itself."""
    if embedding_type == "float":
        return None
    precision = "ubinary" if embedding_type == "binary" else "int8"
    return quantize_embeddings(vectors, precision, unit_ranges(vectors.shape[1]))
