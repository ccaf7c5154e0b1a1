"""LangChain's own stores and chains on our classes: the right side of every text, and our index."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys

import numpy as np
import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from small_index import QUESTION, TASK, TEXTS, write_index, write_model, write_store

from nvembed_jax import Embedder
from nvembed_jax.interop.langchain import NVEmbedEmbeddings, NVEmbedRetriever

PASSAGES = list(TEXTS.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return Embedder.from_pretrained(folder)


@pytest.fixture(scope="module")
def embeddings(folder):
    return NVEmbedEmbeddings(model=str(folder), task=TASK)


@pytest.fixture(scope="module")
def index(tmp_path_factory, model):
    return write_index(tmp_path_factory.mktemp("index") / "index", model)


@pytest.fixture
def retriever(index, embeddings):
    return NVEmbedRetriever(index=str(index.folder), embeddings=embeddings, k=3)


def test_each_side_is_encoded_as_the_model_wants_it(embeddings, model):
    query = embeddings.embed_query(QUESTION)
    np.testing.assert_allclose(query, model.encode_query(QUESTION, task=TASK), atol=1e-6)
    passages = embeddings.embed_documents([*PASSAGES, QUESTION])
    np.testing.assert_allclose(passages, model.encode_document([*PASSAGES, QUESTION]), atol=1e-6)
    assert type(query[0]) is type(passages[0][0]) is float
    apart = [model.encode_query(QUESTION), passages[-1]]  # another task, and the other side
    assert all(np.abs(np.array(query) - other).max() > 1e-3 for other in apart)
    assert embeddings.embed_documents([]) == []


def test_async_methods_give_the_same(embeddings):
    async def all_at_once():
        return await asyncio.gather(
            embeddings.aembed_documents(PASSAGES), *map(embeddings.aembed_query, PASSAGES)
        )

    passages, *queries = asyncio.run(all_at_once())
    np.testing.assert_allclose(passages, embeddings.embed_documents(PASSAGES), atol=1e-6)
    np.testing.assert_allclose(queries, [embeddings.embed_query(t) for t in PASSAGES], atol=1e-6)


def test_options_of_the_encoding_are_used(folder, model):
    short = NVEmbedEmbeddings(model=str(folder), encoding={"truncate_dim": 8})
    expected = model.encode_document(PASSAGES, truncate_dim=8)
    np.testing.assert_allclose(short.embed_documents(PASSAGES), expected, atol=1e-6)
    assert len(short.embed_query(QUESTION)) == 8


def test_unknown_names_raise_with_the_nearest(folder, index, embeddings):
    with pytest.raises(ValueError, match="'modle'; did you mean 'model'"):
        NVEmbedEmbeddings(modle=str(folder))
    with pytest.raises(ValueError, match="'truncate_dims'; did you mean 'truncate_dim'"):
        NVEmbedEmbeddings(model=str(folder), encoding={"truncate_dims": 8})
    with pytest.raises(ValueError, match="'hybird'; did you mean 'hybrid'"):
        NVEmbedRetriever(index=str(index.folder), embeddings=embeddings, hybird=True)
    with pytest.raises(ValueError, match="got one string"):
        embeddings.embed_documents("a text")
    with pytest.raises(FileNotFoundError):
        NVEmbedEmbeddings(model=str(folder / "none"))


def test_pickles_hold_the_name_and_refuse_another_model(tmp_path, model):
    folder = write_model(tmp_path / "own")
    made = NVEmbedEmbeddings(model=str(folder), task=TASK)
    data = pickle.dumps(made)
    assert len(data) < 5000
    assert pickle.loads(data).embed_query(QUESTION) == made.embed_query(QUESTION)
    assert copy.deepcopy(made)._named is made._named
    again = NVEmbedEmbeddings(**made.model_dump())
    assert again.model_dump() == made.model_dump()
    assert made.fingerprint == model.fingerprint
    (folder / "model.safetensors").unlink()
    changed = write_model(tmp_path / "other", seed=1) / "model.safetensors"
    changed.rename(folder / "model.safetensors")
    with pytest.raises(ValueError, match="is now"):
        pickle.loads(data).embed_query(QUESTION)
    with pytest.raises(ValueError, match="is now"):
        NVEmbedEmbeddings(**made.model_dump())


def test_a_loaded_model_is_taken_but_not_pickled(folder, model):
    made = NVEmbedEmbeddings(embedder=model)
    assert made.embed_query(QUESTION) == model.encode_query(QUESTION).tolist()
    assert "embedder" not in made.model_dump()
    with pytest.raises(TypeError, match="by its name"):
        pickle.dumps(made)
    with pytest.raises(ValueError, match="not both"):
        NVEmbedEmbeddings(model=str(folder), embedder=model)


def test_a_vector_store_ranks_by_query_and_passage(embeddings, model):
    store = InMemoryVectorStore.from_texts(PASSAGES, embeddings)
    found = store.similarity_search_with_score(QUESTION, k=3)
    scores = model.similarity(
        model.encode_query(QUESTION, task=TASK), model.encode_document(PASSAGES)
    )
    order = np.argsort(-scores[0])[:3]
    assert [document.page_content for document, _ in found] == [PASSAGES[i] for i in order]
    np.testing.assert_allclose([score for _, score in found], scores[0][order], atol=1e-5)


def test_the_retriever_finds_what_the_index_finds(retriever, index, model):
    hits = index.search(model.encode_query([QUESTION], task=TASK), 5)[0]
    found = retriever.invoke(QUESTION)
    assert [document.id for document in found] == [hit.id for hit in hits[:3]]
    assert [document.page_content for document in found] == [hit.text for hit in hits[:3]]
    first = found[0].metadata
    assert first == {"source": hits[0].id, "rank": 1, "score": pytest.approx(hits[0].score)}
    assert [d.id for d in retriever.invoke(QUESTION, k=99)] == [hit.id for hit in hits]
    assert asyncio.run(retriever.ainvoke(QUESTION, k=1)) == found[:1]
    assert retriever.batch([QUESTION, QUESTION]) == [found, found]
    other = retriever.invoke(QUESTION, task="Something else entirely")[0].metadata
    assert other["score"] != first["score"]


def test_the_retriever_cuts_at_a_cosine_and_joins_bm25(retriever, index, embeddings, model):
    third = retriever.invoke(QUESTION)[2].metadata["score"]
    common = {"index": str(index.folder), "embeddings": embeddings, "k": 5}
    cut = NVEmbedRetriever(**common, min_score=third)
    assert cut.invoke(QUESTION) == retriever.invoke(QUESTION)
    hybrid = NVEmbedRetriever(**common, hybrid=True)
    query = model.encode_query([QUESTION], task=TASK)
    expected = index.search_hybrid(query, [QUESTION], 5)[0]
    assert [d.id for d in hybrid.invoke(QUESTION)] == [hit.id for hit in expected]
    assert expected[0].id == "dogs"
    with pytest.raises(ValueError, match="min_score is a cosine"):
        NVEmbedRetriever(**common, hybrid=True, min_score=0.1)
    with pytest.raises(ValueError, match="empty one"):
        retriever.invoke(" ")
    with pytest.raises(ValueError, match="at least 1"):
        retriever.invoke(QUESTION, k=0)
    with pytest.raises(ValueError, match="no payload"):
        retriever.invoke(QUESTION, filters=["length>25"])


def test_the_retriever_searches_a_store_with_filters(embeddings, model, tmp_path):
    where = write_store(tmp_path / "store", model)
    retriever = NVEmbedRetriever(index=str(where), embeddings=embeddings, k=4)
    scores = model.similarity(
        model.encode_query(QUESTION, task=TASK), model.encode_document(PASSAGES)
    )[0]
    names = [list(TEXTS)[i] for i in np.argsort(-scores)]
    found = retriever.invoke(QUESTION)
    assert [document.metadata["source"] for document in found] == names[:4]
    assert [document.id for document in found] == [f"{name}#0" for name in names[:4]]
    assert [document.page_content for document in found] == [TEXTS[name] for name in names[:4]]
    long = [name for name in names if len(TEXTS[name]) > 25]
    some = retriever.invoke(QUESTION, filters=["length>25"])
    assert [document.metadata["source"] for document in some] == long
    assert [document.metadata["length"] for document in some] == [len(TEXTS[n]) for n in long]
    again = pickle.loads(pickle.dumps(retriever))
    assert asyncio.run(again.ainvoke(QUESTION, filters=["length>25"])) == some
    with pytest.raises(ValueError, match="no such field"):
        retriever.invoke(QUESTION, filters=["lenght>25"])
    with pytest.raises(ValueError, match="needs an index folder"):
        NVEmbedRetriever(index=str(where), embeddings=embeddings, hybrid=True)


def test_the_retriever_runs_in_a_chain_and_from_a_pickle(retriever):
    chain = retriever | RunnableLambda(lambda found: [document.id for document in found])
    expected = [document.id for document in retriever.invoke(QUESTION)]
    assert chain.invoke(QUESTION) == expected
    data = pickle.dumps(retriever)
    assert len(data) < 10000
    assert [document.id for document in pickle.loads(data).invoke(QUESTION)] == expected


def test_an_index_of_another_model_is_refused(index, tmp_path):
    other = NVEmbedEmbeddings(model=str(write_model(tmp_path / "other", seed=1)))
    with pytest.raises(ValueError, match="was made with model tiny"):
        NVEmbedRetriever(index=str(index.folder), embeddings=other)
    with pytest.raises(ValueError, match="is not a store"):
        NVEmbedRetriever(index=str(tmp_path), embeddings=other)


def test_without_langchain_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "nvembed_jax.interop.langchain")
    monkeypatch.setitem(sys.modules, "langchain_core.embeddings", None)
    with pytest.raises(ImportError, match=r"nvembed_jax\[rag\]"):
        import nvembed_jax.interop.langchain  # noqa: F401
