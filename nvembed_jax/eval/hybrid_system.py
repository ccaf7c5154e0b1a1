"""An embedding model and BM25 together, as `nvembed search --hybrid` fuses them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nvembed_jax.eval.metrics import unit_rows
from nvembed_jax.eval.systems import (
    Candidates,
    Dense,
    EmbeddingModel,
    LexicalBaseline,
    blocks,
    passages_of,
)
from nvembed_jax.eval.task_files import Retrieval
from nvembed_jax.search.hybrid import FUSION_DEPTH, LEXICAL_WEIGHT, Bm25, fuse
from nvembed_jax.search.topk import PASSAGE_BLOCK


class Hybrid(Dense):
    """Scores retrieval and reranking by the fusion of cosines and BM25 (`search.hybrid.fuse`)."""

    def __init__(self, model: EmbeddingModel, encoding: Mapping[str, Any] | None = None) -> None:
        super().__init__(model, encoding)
        self.lexical = LexicalBaseline()
        fusion = f"weight {LEXICAL_WEIGHT}, depth {FUSION_DEPTH}"
        self.fingerprint = f"{model.fingerprint}; {self.lexical.fingerprint}; {fusion}"

    def scores_type(self, type: str) -> bool:
        """Whether tasks of this type can be scored: those with queries and passages."""
        return self.lexical.scores_type(type)

    def rank(
        self, data: Retrieval, queries: Sequence[str], instruction: str, k: int,
        tie_order: Int[np.ndarray, " P"],
    ) -> list[Int[np.ndarray, " k"]]:  # fmt: skip
        """Rows of the k passages of the highest fused score with each query, best first.

        The passages' embeddings are kept in a temporary file, since every score counts.
        """
        embedded = unit_rows(self.embed_queries(queries, instruction))
        index = Bm25.build(passages_of(data))
        ranked = []
        with tempfile.TemporaryFile() as file:
            for texts in blocks(passages_of(data), PASSAGE_BLOCK):
                unit_rows(self.embed_passages(texts)).tofile(file)
            file.flush()
            shape = (index.num_passages, embedded.shape[1])
            passages = np.memmap(file, np.float32, "r", shape=shape)
            for query, text in zip(embedded, queries, strict=True):
                scores = fuse(np.asarray(passages @ query), index.scores(text))
                ranked.append(np.lexsort((tie_order, -scores))[:k])
        return ranked

    def score_candidates(
        self, queries: Sequence[str], candidates: Candidates, instruction: str
    ) -> list[Float[np.ndarray, " C"]]:
        """The fused score of each query with each of its own candidates."""
        dense = super().score_candidates(queries, candidates, instruction)
        lexical = self.lexical.score_candidates(queries, candidates, instruction)
        return [fuse(*pair) for pair in zip(dense, lexical, strict=True)]
