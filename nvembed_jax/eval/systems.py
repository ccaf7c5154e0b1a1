"""What is scored, behind the calls that scoring needs: an embedding model, or BM25 (a baseline)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from nvembed_jax.data.records import read_records
from nvembed_jax.eval.metrics import unit_rows
from nvembed_jax.eval.task_files import Retrieval
from nvembed_jax.search.topk import PASSAGE_BLOCK, check_finite, top_k

Candidates = Sequence[Sequence[str]]


@runtime_checkable
class EmbeddingModel(Protocol):
    """What evaluation needs of a model; `Embedder` has it."""

    @property
    def fingerprint(self) -> str: ...

    def encode(self, inputs: Any, *, task: str | None = None, **kwargs: Any) -> np.ndarray: ...

    def encode_query(self, inputs: Any, task: str | None = None, **kwargs: Any) -> np.ndarray: ...

    def encode_document(self, inputs: Any, **kwargs: Any) -> np.ndarray: ...


class Dense:
    """An embedding model; `encoding` are further options of its encoding methods.

    Attributes:
        model, encoding: as given. fingerprint: the model's.
        takes_instructions: whether the model has a template for them.
    """

    def __init__(self, model: EmbeddingModel, encoding: Mapping[str, Any] | None = None) -> None:
        self.model, self.encoding = model, dict(encoding or {})
        self.fingerprint = model.fingerprint
        text = getattr(getattr(model, "config", None), "text", None)
        self.takes_instructions = getattr(text, "query_template", "as asked") is not None

    @cached_property
    def weights(self) -> str:
        """A hash of the parameters where the model shows them, else "".

        The fingerprint of an `Embedder` that was made of arrays, not loaded, knows nothing of them.
        """
        return _checksums(getattr(self.model, "params", None))

    def scores_type(self, type: str) -> bool:
        """Whether tasks of this type can be scored: all of them."""
        return True

    def embed(self, texts: Sequence[str], instruction: str) -> Float[np.ndarray, "N D"]:
        """Embeddings of a symmetric task: every text carries the instruction; unscaled."""
        return self._encode(self.model.encode, texts, task=self._task(instruction))

    def embed_queries(self, texts: Sequence[str], instruction: str) -> Float[np.ndarray, "Q D"]:
        """Embeddings of queries, with the instruction where the model takes one; unscaled."""
        task = self._task(instruction)
        return self._encode(self.model.encode_query, texts, "query", task=task)

    def embed_passages(self, texts: Sequence[str]) -> Float[np.ndarray, "P D"]:
        """Embeddings of passages, which carry no instruction; unscaled."""
        return self._encode(self.model.encode_document, texts, "passage")

    def rank(
        self, data: Retrieval, queries: Sequence[str], instruction: str, k: int,
        tie_order: Int[np.ndarray, " P"],
    ) -> list[Int[np.ndarray, " k"]]:  # fmt: skip
        """Rows of the k passages of the highest cosine with each query, best first.

        The corpus is encoded and searched block by block, and is never held as a whole. Of equal
        scores the passage of the lower `tie_order` comes first.
        """
        embedded = unit_rows(self.embed_queries(queries, instruction))
        best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        start = 0
        for texts in blocks(passages_of(data), PASSAGE_BLOCK):
            passages = unit_rows(self.embed_passages(texts))
            # The search puts the lower of equal rows first, so rows go in by their tie order.
            order = np.argsort(tie_order[start : start + len(texts)])
            scores, rows = top_k(embedded, passages[order], min(k, len(texts)))
            best = _merged(best, (scores, start + order[rows]), k, tie_order)
            start += len(texts)
        return list(best[1])

    def score_candidates(
        self, queries: Sequence[str], candidates: Candidates, instruction: str
    ) -> list[Float[np.ndarray, " C"]]:
        """The cosine of each query with each of its own candidates."""
        embedded = unit_rows(self.embed_queries(queries, instruction))
        flat = [text for texts in candidates for text in texts]
        passages = unit_rows(self.embed_passages(flat))
        if passages.shape[1] != embedded.shape[1]:
            raise ValueError(
                f"the model's embeddings of queries and passages differ in width: "
                f"{embedded.shape[1]} and {passages.shape[1]}"
            )
        ends = np.cumsum([len(texts) for texts in candidates])[:-1]
        parts = np.split(passages, ends)
        return [part @ query for part, query in zip(parts, embedded, strict=True)]

    def _task(self, instruction: str) -> str | None:
        return instruction if instruction and self.takes_instructions else None

    def _encode(
        self, encode: Callable[..., Any], texts: Sequence[str], what: str = "text", **kwargs: Any
    ) -> Float[np.ndarray, "N D"]:
        """Every distinct text is encoded once."""
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        given = encode(list(row_of), **kwargs, **self.encoding)
        try:
            distinct = np.asarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected embeddings of the model; got no matrix ({error})") from None
        if distinct.ndim != 2 or len(distinct) != len(row_of) or not distinct.shape[1]:
            raise ValueError(
                f"expected embeddings [{len(row_of)}, D] of the model; got {distinct.shape}"
            )
        with np.errstate(invalid="ignore"):  # infinities of both signs: an error, not a warning
            check_finite(distinct, what, 0)
        return distinct[[row_of[text] for text in texts]]


class LexicalBaseline:
    """BM25 over the passages (of reranking: over all candidates of the task)."""

    fingerprint = "bm25: lucene, k1 1.5, b 0.75, plurals off"
    weights = ""
    takes_instructions = False

    def scores_type(self, type: str) -> bool:
        """Whether tasks of this type can be scored: those with queries and passages."""
        return type in ("retrieval", "reranking")

    def embed(self, texts: Sequence[str], instruction: str) -> Float[np.ndarray, "N D"]:
        """There are no embeddings; raises."""
        raise ValueError("BM25 gives no embeddings; it scores retrieval and reranking only")

    def rank(
        self, data: Retrieval, queries: Sequence[str], instruction: str, k: int,
        tie_order: Int[np.ndarray, " P"],
    ) -> list[Int[np.ndarray, " k"]]:  # fmt: skip
        """Rows of the k best passages of each query; none that has not one of its words."""
        from nvembed_jax.search.hybrid import Bm25

        index = Bm25.build(passages_of(data))
        ranked = []
        for query in queries:
            scores = index.scores(query)
            rows = np.flatnonzero(scores > 0)
            ranked.append(rows[np.lexsort((tie_order[rows], -scores[rows]))[:k]])
        return ranked

    def score_candidates(
        self, queries: Sequence[str], candidates: Candidates, instruction: str
    ) -> list[Float[np.ndarray, " C"]]:
        """BM25 of each query with each of its own candidates."""
        from nvembed_jax.search.hybrid import Bm25

        row_of = {
            text: row
            for row, text in enumerate(dict.fromkeys(t for texts in candidates for t in texts))
        }
        index = Bm25.build(row_of)
        return [
            np.asarray(index.scores(query)[[row_of[text] for text in texts]], np.float32)
            for query, texts in zip(queries, candidates, strict=True)
        ]


def _checksums(params: Any) -> str:
    """A hash of two sums over every parameter array; "" of none. One pass over the weights."""
    if not params:
        return ""
    import jax
    import jax.numpy as jnp

    def sums(tree: Any) -> Any:
        leaves = [jnp.asarray(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
        return jnp.stack([jnp.stack([jnp.sum(x), jnp.sum(x * x)]) for x in leaves])

    return hashlib.sha256(np.asarray(jax.jit(sums)(params)).tobytes()).hexdigest()[:16]


System = Dense | LexicalBaseline
BASELINES = ("bm25", "hybrid")


def passages_of(data: Retrieval) -> Iterator[str]:
    """The passages of a corpus as they are encoded: title and text."""
    return (record.full_text.strip() for record in read_records(data.corpus))


def blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """`size` texts at a time."""
    texts = iter(texts)
    while block := list(islice(texts, size)):
        yield block


def _merged(
    best: tuple[np.ndarray, np.ndarray],
    fresh: tuple[np.ndarray, np.ndarray],
    k: int,
    tie_order: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    scores, rows = (np.concatenate(pair, axis=1) for pair in zip(best, fresh, strict=True))
    order = np.lexsort((tie_order[rows], -scores), axis=-1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
