"""LangChain's own standard tests on our classes.

They come with the package langchain-tests, which brings six pytest plugins along; so they run in an
environment of their own, and this file is not collected by default:

    pip install ".[rag,test]" langchain-tests
    pytest --asyncio-mode=auto -o asyncio_default_fixture_loop_scope=function \\
        tests/interop/langchain_standard.py
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from small_index import QUESTION, TASK, write_index, write_model

from nvembed_jax import Embedder
from nvembed_jax.interop.langchain import NVEmbedEmbeddings, NVEmbedRetriever

_PLACES: dict[str, str] = {}  # the standard tests take parameters from properties, not fixtures


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standard")
    model = write_model(folder / "tiny")
    index = write_index(folder / "index", Embedder.from_pretrained(model)).folder
    _PLACES.update(model=str(model), index=str(index))


class _OurEmbeddings:
    @property
    def embeddings_class(self) -> type[NVEmbedEmbeddings]:
        return NVEmbedEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": _PLACES["model"], "task": TASK}


class TestEmbeddings(_OurEmbeddings, EmbeddingsIntegrationTests):
    pass


class TestEmbeddingsWithoutCalls(_OurEmbeddings, EmbeddingsUnitTests):
    pass


class TestRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[NVEmbedRetriever]:
        return NVEmbedRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        model = NVEmbedEmbeddings(model=_PLACES["model"])
        return {"index": _PLACES["index"], "embeddings": model}

    @property
    def retriever_query_example(self) -> str:
        return QUESTION
