"""Classes for LangChain: embeddings whose queries and passages are encoded as the model wants
them, and a retriever over an index folder or a store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from nvembed_jax.interop.retrieval import NamedModel, PassageSearch, check_names, missing

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
except ImportError:
    raise missing("LangChain", "langchain-core") from None


class _CheckedNames(BaseModel):
    """Refuses options that there are not, with the nearest name."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        if isinstance(values, dict):  # else an object that is made already
            check_names(values, cls.model_fields, f"option of {cls.__name__}")
        return values


class NVEmbedEmbeddings(_CheckedNames, Embeddings):
    """Embeddings for LangChain's vector stores and chains.

    `embed_query` carries the query prefix or the task description, `embed_documents` the passage
    prefix (NV-Embed: none). The model is loaded when the object is made; a pickle holds its name.

    Attributes:
        model: a folder, a name, or a remote model (docs/remote.md); None: the bundled one.
        task: task description of the queries; None: the model's own.
        loading: options of `Embedder.from_pretrained`, or of the remote model.
        encoding: batch_tokens, max_length, normalize, show_progress_bar, truncate_dim.
        fingerprint: of the model. Given at first, it must be this one.
        embedder: a loaded model instead of a name.

    Raises:
        FileNotFoundError, ValueError: as `Embedder.from_pretrained`; another fingerprint.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    task: str | None = None
    loading: dict[str, Any] = Field(default_factory=dict)
    encoding: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = ""
    embedder: Any = Field(default=None, exclude=True, repr=False)
    _named: NamedModel = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Loads the model."""
        self._named = NamedModel(
            self.model,
            loading=self.loading,
            task=self.task,
            encoding=self.encoding,
            fingerprint=self.fingerprint,
            model=self.embedder,
        )
        self.embedder = None
        self.fingerprint = self._named.fingerprint

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Embeddings of passages, in their order."""
        return self._named.embed_passages(texts).tolist() if texts else []

    def embed_query(self, text: str) -> list[float]:
        """The embedding of a query."""
        return self._named.embed_queries([text])[0].tolist()

    async def aembed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """As `embed_documents`; the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`; the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.embed_query, text)


class NVEmbedRetriever(_CheckedNames, BaseRetriever):
    """The best texts of an index folder (`nvembed search --index`), or passages of a store.

    A document's `page_content` is the passage that was found and its `id` that of the passage; its
    metadata have `source` (the text's id), `rank`, `score`, and the payload of a store. `invoke`
    also takes `k`, `task` and `filters`.

    Attributes:
        index: the folder, or a store: a folder or the URL of a collection. kind: of the store,
            where the place does not say.
        embeddings: with the model that it was made with.
        k: texts found. hybrid: join the embeddings' scores with BM25's (index folders only).
        min_score: a cosine below which nothing is found.
        filters: conditions on a store's payload, like "lang=en" or "year>=2020".

    Raises:
        FileNotFoundError, ValueError: nothing there, or made with another model.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    index: str
    embeddings: NVEmbedEmbeddings
    kind: str | None = None
    k: int = Field(default=4, ge=1)
    hybrid: bool = False
    min_score: float | None = None
    filters: list[str] = Field(default_factory=list)
    _search: PassageSearch = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Opens the index."""
        self._search = PassageSearch(
            self.index,
            self.embeddings._named,
            kind=self.kind,
            hybrid=self.hybrid,
            min_score=self.min_score,
        )

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: Any,
        k: int | None = None,
        task: str | None = None,
        filters: list[str] | None = None,
    ) -> list[Document]:
        found = self._search.search(
            query,
            self.k if k is None else k,
            task=task,
            filters=self.filters if filters is None else filters,
        )
        return [
            Document(
                id=one.id,
                page_content=one.text,
                metadata={
                    **one.payload,
                    "source": one.source,
                    "rank": one.rank,
                    "score": one.score,
                },
            )
            for one in found
        ]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: Any, **options: Any
    ) -> list[Document]:
        return await asyncio.to_thread(
            self._get_relevant_documents, query, run_manager=None, **options
        )
