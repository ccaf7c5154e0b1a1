"""LlamaIndex's own indexes and pipelines on our classes: the right side of every text."""

from __future__ import annotations

import asyncio
import pickle
import sys

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from small_index import QUESTION, TASK, TEXTS, write_index, write_model, write_store

from nvembed_jax import Embedder
from nvembed_jax.codes import unit
from nvembed_jax.interop.llama_index import NVEmbedEmbedding, NVEmbedRetriever

PASSAGES = list(TEXTS.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return Embedder.from_pretrained(folder)


@pytest.fixture(scope="module")
def embed_model(folder):
    return NVEmbedEmbedding(model_name=str(folder), task=TASK, embed_batch_size=2)


@pytest.fixture(scope="module")
def index(tmp_path_factory, model):
    return write_index(tmp_path_factory.mktemp("index") / "index", model)


@pytest.fixture
def retriever(index, embed_model):
    return NVEmbedRetriever(index.folder, embed_model, similarity_top_k=3)


def nodes() -> list[TextNode]:
    return [TextNode(id_=id_, text=text) for id_, text in TEXTS.items()]


def test_each_side_is_encoded_as_the_model_wants_it(embed_model, model):
    query = embed_model.get_query_embedding(QUESTION)
    np.testing.assert_allclose(query, model.encode_query(QUESTION, task=TASK), atol=1e-6)
    text = embed_model.get_text_embedding(QUESTION)
    np.testing.assert_allclose(text, model.encode_document(QUESTION), atol=1e-6)
    assert np.abs(np.array(query) - text).max() > 1e-3
    passages = model.encode_document(PASSAGES)
    batches = embed_model.get_text_embedding_batch(PASSAGES)  # two at a time
    np.testing.assert_allclose(batches, passages, atol=1e-6)
    assert type(query[0]) is type(batches[0][0]) is float
    assert embed_model.get_text_embedding_batch([]) == []
    mean = embed_model.get_agg_embedding_from_queries([QUESTION, QUESTION])
    np.testing.assert_allclose(mean, query, atol=1e-6)


def test_async_methods_give_the_same(embed_model):
    async def all_of_them():
        return await asyncio.gather(
            embed_model.aget_query_embedding(QUESTION),
            embed_model.aget_text_embedding(QUESTION),
            embed_model.aget_text_embedding_batch(PASSAGES),
        )

    query, text, batches = asyncio.run(all_of_them())
    np.testing.assert_allclose(query, embed_model.get_query_embedding(QUESTION), atol=1e-6)
    np.testing.assert_allclose(text, embed_model.get_text_embedding(QUESTION), atol=1e-6)
    expected = embed_model.get_text_embedding_batch(PASSAGES)
    np.testing.assert_allclose(batches, expected, atol=1e-6)


def test_dicts_json_and_pickles_hold_the_name(embed_model, model):
    query = embed_model.get_query_embedding(QUESTION)
    data = pickle.dumps(embed_model)
    assert len(data) < 10000
    for again in (
        pickle.loads(data),
        NVEmbedEmbedding.from_dict(embed_model.to_dict()),
        NVEmbedEmbedding.from_json(embed_model.to_json()),
    ):
        assert again.get_query_embedding(QUESTION) == query
        assert (again.embed_batch_size, again.fingerprint) == (2, model.fingerprint)
    with pytest.raises(ValueError, match="is now"):
        NVEmbedEmbedding.from_dict(embed_model.to_dict(), fingerprint="0" * 16)
    with pytest.raises(TypeError, match="by its name"):
        pickle.dumps(NVEmbedEmbedding(embedder=model))


def test_unknown_names_and_the_text_cache_are_refused(folder):
    with pytest.raises(ValueError, match="'model_nmae'; did you mean 'model_name'"):
        NVEmbedEmbedding(model_nmae=str(folder))
    with pytest.raises(ValueError, match="'batch_token'; did you mean 'batch_tokens'"):
        NVEmbedEmbedding(model_name=str(folder), encoding={"batch_token": 64})
    with pytest.raises(ValueError, match="by the text alone"):
        NVEmbedEmbedding(model_name=str(folder), embeddings_cache=SimpleKVStore())


def test_a_vector_index_ranks_by_query_and_passage(embed_model, model):
    index = VectorStoreIndex(nodes(), embed_model=embed_model)
    found = index.as_retriever(similarity_top_k=3).retrieve(QUESTION)
    query, passages = model.encode_query(QUESTION, task=TASK), model.encode_document(PASSAGES)
    scores = model.similarity(query, passages)[0]
    order = np.argsort(-scores)[:3]
    assert [hit.text for hit in found] == [PASSAGES[i] for i in order]
    np.testing.assert_allclose([hit.score for hit in found], scores[order], atol=1e-5)


def test_a_pipelines_cache_is_of_one_model(embed_model, model, tmp_path):
    pipeline = IngestionPipeline(transformations=[embed_model])
    made = pipeline.run(nodes=nodes())
    expected = model.encode_document(PASSAGES)
    np.testing.assert_allclose([node.embedding for node in made], expected, atol=1e-6)
    assert [node.embedding for node in pipeline.run(nodes=nodes())] == [n.embedding for n in made]
    other = NVEmbedEmbedding(model_name=str(write_model(tmp_path / "other", seed=1)))
    same_name = other.model_copy(update={"model_name": embed_model.model_name})
    keys = [get_transformation_hash(nodes(), made) for made in (embed_model, same_name)]
    assert keys[0] != keys[1]


def test_the_retriever_finds_what_the_index_finds(retriever, index, model):
    hits = index.search(model.encode_query([QUESTION], task=TASK), 3)[0]
    found = retriever.retrieve(QUESTION)
    assert [(hit.node_id, hit.text) for hit in found] == [(hit.id, hit.text) for hit in hits]
    np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in hits])
    assert found[0].node.metadata["source"] == hits[0].id
    shown = found[0].node.get_content(MetadataMode.LLM)
    assert hits[0].id in shown
    assert "rank" not in shown
    again = asyncio.run(retriever.aretrieve(QUESTION))
    assert [hit.node_id for hit in again] == [hit.node_id for hit in found]


def test_a_bundles_own_embedding_is_used(retriever, embed_model, model):
    near = model.encode_document(TEXTS["bread"])
    found = retriever.retrieve(QueryBundle("?", embedding=(3 * near).tolist()))
    assert (found[0].node_id, found[0].score) == ("bread", pytest.approx(1.0))
    strings = [QUESTION, "how hot is an oven?"]
    bundle = QueryBundle(QUESTION, custom_embedding_strs=strings)
    mean = unit(model.encode_query(strings, task=TASK).mean(axis=0, keepdims=True))
    best = float((mean @ model.encode_document(PASSAGES).T).max())
    assert retriever.retrieve(bundle)[0].score == pytest.approx(best, abs=1e-5)
    assert retriever.retrieve(QUESTION)[0].score != pytest.approx(best, abs=1e-4)


def test_the_retriever_serves_a_query_engine(retriever, index, embed_model):
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM())  # it repeats its prompt
    answer = engine.query(QUESTION)
    sources = [hit.node_id for hit in answer.source_nodes]
    assert sources == [hit.node_id for hit in retriever.retrieve(QUESTION)]
    assert all(f"source: {name}\n\n{TEXTS[name]}" in str(answer) for name in sources)
    cut = retriever.retrieve(QUESTION)[0].score
    best = NVEmbedRetriever(str(index.folder), embed_model, similarity_top_k=5, min_score=cut)
    assert [hit.node_id for hit in best.retrieve(QUESTION)] == sources[:1]
    hybrid = NVEmbedRetriever(index.folder, embed_model, similarity_top_k=9, hybrid=True)
    assert hybrid.retrieve(QUESTION)[0].node_id == "dogs"
    assert len(hybrid.retrieve(QUESTION)) == len(TEXTS)


def test_the_retriever_searches_a_store_with_filters(embed_model, model, tmp_path):
    where = write_store(tmp_path / "store", model)
    retriever = NVEmbedRetriever(where, embed_model, similarity_top_k=9, filters=["length>25"])
    scores = model.similarity(
        model.encode_query(QUESTION, task=TASK), model.encode_document(PASSAGES)
    )[0]
    names = [list(TEXTS)[i] for i in np.argsort(-scores)]
    found = retriever.retrieve(QUESTION)
    long = [name for name in names if len(TEXTS[name]) > 25]
    assert [hit.node.metadata["source"] for hit in found] == long
    assert [hit.node_id for hit in found] == [f"{name}#0" for name in long]
    assert f"length: {len(TEXTS[long[0]])}" in found[0].node.get_content(MetadataMode.LLM)


def test_an_index_of_another_model_is_refused(index, tmp_path):
    other = NVEmbedEmbedding(model_name=str(write_model(tmp_path / "other", seed=1)))
    with pytest.raises(ValueError, match="was made with model tiny"):
        NVEmbedRetriever(index.folder, other)


def test_without_llama_index_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "nvembed_jax.interop.llama_index")
    monkeypatch.setitem(sys.modules, "llama_index.core.schema", None)
    with pytest.raises(ImportError, match=r"nvembed_jax\[rag\]"):
        import nvembed_jax.interop.llama_index  # noqa: F401
