"""Classes for LlamaIndex: embeddings whose queries and passages are encoded as the model wants
them, and a retriever over an index folder or a store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvembed_jax.interop.retrieval import Found, NamedModel, PassageSearch, check_names, missing

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from pydantic import ConfigDict, Field, PrivateAttr, model_validator
except ImportError:
    raise missing("LlamaIndex", "llama-index-core") from None

_FOR_PEOPLE = ["rank", "score"]  # of a node's metadata: nothing to embed or to prompt with


class NVEmbedEmbedding(BaseEmbedding):
    """An embedding model for LlamaIndex's indexes, pipelines and query engines.

    Queries carry the query prefix or the task description, nodes and texts the passage prefix
    (NV-Embed: none). The model is loaded when the object is made; pickles, `to_dict` and `to_json`
    hold its name, options and fingerprint.

    Attributes:
        model_name: a folder, a name, or a remote model (docs/remote.md); "": the bundled one.
        task: task description of the queries; None: the model's own.
        loading: options of `Embedder.from_pretrained`, or of the remote model.
        encoding: batch_tokens, max_length, normalize, show_progress_bar, truncate_dim.
        fingerprint: of the model. Given at first, it must be this one.
        embedder: a loaded model instead of a name.
        embed_batch_size: texts handed over at a time; they are cut into batches by their tokens.

    Raises:
        FileNotFoundError, ValueError: as `Embedder.from_pretrained`; another fingerprint; an
            `embeddings_cache`, which would mix up queries and passages.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model_name: str = ""
    task: str | None = None
    loading: dict[str, Any] = Field(default_factory=dict)
    encoding: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = ""
    embedder: Any = Field(default=None, exclude=True, repr=False)
    embed_batch_size: int = Field(default=1024, gt=0, le=2048)
    _named: NamedModel = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):  # an object that is made already
            return values
        check_names(values, cls.model_fields, f"option of {cls.__name__}")
        if values.get("embeddings_cache") is not None:
            raise ValueError(
                "embeddings_cache finds embeddings by the text alone: a query would get a "
                "passage's, or another model's; cache with an IngestionPipeline"
            )
        return values

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "NVEmbedEmbedding"

    def model_post_init(self, context: Any, /) -> None:
        """Loads the model."""
        self._named = NamedModel(
            self.model_name or None,
            loading=self.loading,
            task=self.task,
            encoding=self.encoding,
            fingerprint=self.fingerprint,
            model=self.embedder,
        )
        if self.embedder is not None:
            self.model_name, self.embedder = self.embedder.config.name, None
        self.fingerprint = self._named.fingerprint

    def __getstate__(self) -> dict[Any, Any]:
        self._named.__getstate__()  # raises; the framework's own would leave it out in silence
        return super().__getstate__()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._named.embed_queries([query])[0].tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._named.embed_passages([text])[0].tolist()

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._named.embed_passages(texts).tolist() if texts else []

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class NVEmbedRetriever(BaseRetriever):
    """The best texts of an index folder (`nvembed search --index`), or passages of a store.

    A node's text is the passage that was found and its id that of the passage; its metadata have
    `source` (the text's id), the payload of a store, and `rank` and `score`, which prompts do not
    show. A query bundle's own embedding is used where it has one; of several
    `custom_embedding_strs` the mean is.

    Args:
        index: the folder, or a store: a folder or the URL of a collection. kind: of the store,
            where the place does not say.
        embed_model: with the model that it was made with.
        similarity_top_k: texts found.
        hybrid: join the embeddings' scores with BM25's (index folders only).
        min_score: a cosine below which nothing is found.
        filters: conditions on a store's payload, like "lang=en" or "year>=2020".
        options: of LlamaIndex's `BaseRetriever` (callback_manager, objects, object_map, verbose).

    Raises:
        FileNotFoundError, ValueError: nothing there, or made with another model.
    """

    def __init__(
        self,
        index: str | Path,
        embed_model: NVEmbedEmbedding,
        *,
        kind: str | None = None,
        similarity_top_k: int = 4,
        hybrid: bool = False,
        min_score: float | None = None,
        filters: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.similarity_top_k, self.filters = similarity_top_k, list(filters)
        self._embed_model = embed_model
        self._search = PassageSearch(
            index, embed_model._named, kind=kind, hybrid=hybrid, min_score=min_score
        )
        super().__init__(**options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._search.search(
            query_bundle.query_str,
            self.similarity_top_k,
            filters=self.filters,
            embedding=self._embedding(query_bundle),
        )
        return [NodeWithScore(node=_node(one), score=one.score) for one in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _embedding(self, query_bundle: QueryBundle) -> list[float] | None:
        """What the bundle says besides its text."""
        if query_bundle.embedding is not None or query_bundle.custom_embedding_strs is None:
            return query_bundle.embedding
        return self._embed_model.get_agg_embedding_from_queries(query_bundle.embedding_strs)


def _node(found: Found) -> TextNode:
    return TextNode(
        id_=found.id,
        text=found.text,
        metadata={
            **found.payload,
            "source": found.source,
            "rank": found.rank,
            "score": found.score,
        },
        excluded_embed_metadata_keys=_FOR_PEOPLE,
        excluded_llm_metadata_keys=_FOR_PEOPLE,
    )
