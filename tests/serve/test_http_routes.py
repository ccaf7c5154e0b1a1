"""Health, models, metadata, metrics, tokenize, similarity, and a documentation that is true."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served_app import Served, error_of

from nvembed_jax.serve import schema
from nvembed_jax.serve.errors import ServeError
from nvembed_jax.serve.models import ModelNames, ServedModel
from nvembed_jax.version import __version__


def test_every_model_is_listed_with_its_aliases(served):
    body = schema.ModelsAnswer.model_validate(served.get("/v1/models").json())
    assert [item.id for item in body.data] == [
        "nv", "nv-query", "nv-passage", "acme/sym", "acme/sym-query", "acme/sym-passage"
    ]  # fmt: skip


def test_names_must_differ_and_a_last_part_must_be_of_one_model(embedder):
    one, two, exact = (ServedModel(id, embedder) for id in ("x/a", "y/a", "z/a-query"))
    with pytest.raises(ValueError, match="two models are named 'x/a'"):
        ModelNames([one, one])
    names = ModelNames([one, two, exact])
    assert names.find("y/a-query") == (two, "query")
    assert names.find("a-query") == (exact, None)
    with pytest.raises(ServeError, match="no such model"):
        names.find("a")
    assert ModelNames([one]).find("a-passage") == (one, "passage")


def test_health_version_and_metadata(served, embedder):
    assert served.get("/v1/health/live").json() == {
        "object": "health.response", "message": "Service is live.", "status": "live"
    }  # fmt: skip
    assert served.get("/v1/health/ready").json()["status"] == "ready"
    assert served.get("/v1/version").json() == {"release": __version__, "api": "1.0.0"}
    body = served.get("/v1/metadata").json()
    assert [info["shortName"] for info in body["modelInfo"]] == ["nv", "acme/sym"]
    assert body["modelInfo"][0]["fingerprint"] == embedder.fingerprint
    assert [info["input_type_required"] for info in body["modelInfo"]] == [True, False]


def test_ready_waits_for_the_shapes_and_none_is_compiled_after(make_short):
    with Served({"m": make_short()}, warmup=True, batch_tokens=64) as served:
        assert served.get("/v1/health/live").status_code == 200
        while served.get("/v1/health/ready").status_code == 503:
            pass
        compiled = served.service.names.models[0].embedder.num_compilations
        assert compiled == len(served.service.names.models[0].shapes(512)) > 3
        for count in (1, 2, 3, 5, 9):
            texts = ["a " * (1 + i % 9) for i in range(count)]
            assert served.embed("m", texts, input_type="passage").status_code == 200
        assert served.service.names.models[0].embedder.num_compilations == compiled
        served.service.drain()
        error_of(served.get("/v1/health/ready"), 503)
        assert served.get("/v1/health/live").status_code == 200
        assert served.embed("m", "a", input_type="passage").status_code == 200


def test_metrics_count_requests_batches_and_padding(embedder):
    with Served({"nv": embedder}) as served:
        texts = ["a", "b " * 30, "c"]
        tokens = served.embed("nv", texts, input_type="passage").json()["usage"]["total_tokens"]
        served.embed("none", texts)
        text = served.get("/v1/metrics").text
    samples = {
        (s.name, *sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }

    def value(name, **labels):
        return samples[(name, *sorted(labels.items()))]

    path = {"path": "/v1/embeddings", "method": "POST"}
    assert value("nvembed_requests_total", **path, code="200") == 1
    assert value("nvembed_requests_total", **path, code="404") == 1
    assert value("nvembed_request_duration_seconds_count", path="/v1/embeddings") == 2
    assert value("nvembed_tokens_total", model="nv") == tokens
    assert value("nvembed_padding_tokens_total", model="nv") > 0
    assert value("nvembed_batch_texts_sum") == 3
    assert value("nvembed_batch_tokens_sum") == tokens
    assert value("nvembed_input_tokens_sum") == tokens
    assert value("nvembed_input_tokens_bucket", le="+Inf") == 3
    assert value("nvembed_input_tokens_bucket", le="16.0") == 2
    assert value("nvembed_queue_tokens") == value("nvembed_queue_requests") == 0
    assert value("nvembed_ready") == 1
    for name in ("queue", "inference", "tokenization"):
        assert value(f"nvembed_request_{name}_seconds_count") == 1


def test_tokenize_gives_what_the_model_sees(served, embedder):
    def ids(**fields):
        response = served.post("/tokenize", {"model": "nv", "input": ["a b", "c " * 99], **fields})
        body = schema.TokenizeAnswer.model_validate(response.json())
        assert [item.count for item in body.data] == [len(item.tokens) for item in body.data]
        assert body.usage.total_tokens == sum(item.count for item in body.data)
        assert body.max_length == 64
        return [item.tokens for item in body.data]

    def expected(prefix="", **kw):
        texts = [prefix + "a b", prefix + "c " * 99]
        return [e.input_ids.tolist() for e in embedder.tokenizer.encode(texts, **kw)]

    task = embedder.config.text.default_task
    assert ids() == expected(truncation="none")
    assert ids(input_type="query") == expected(f"Instruct: {task}\nQuery: ", truncation="none")
    assert ids(truncate="END", input_type="passage") == expected(max_length=64)


def test_similarity_gives_cosines(served, embedder):
    def scores(**fields):
        body = {"model": "nv", "queries": ["a", "b"], "passages": ["a", "c d", "e"], **fields}
        answer = served.post("/similarity", body)
        return schema.SimilarityAnswer.model_validate(answer.json()).scores

    queries, passages = (
        embedder.encode_query(["a", "b"]),
        embedder.encode_document(["a", "c d", "e"]),
    )
    np.testing.assert_allclose(scores(), queries @ passages.T, atol=2e-6)
    both = embedder.encode_document(["a", "b"]) @ passages.T
    np.testing.assert_allclose(scores(input_type="passage"), both, atol=2e-6)
    assert scores(input_type="passage")[0][0] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(scores(queries="a"), (queries @ passages.T)[:1], atol=2e-6)
    many = {"model": "nv", "queries": ["a"] * 1001, "passages": ["b"] * 1000}
    assert "1,000,000" in error_of(served.post("/similarity", many), 400)["message"]


def test_documentation_names_every_status_and_the_limits(embedder):
    with Served({"nv": embedder}, max_inputs=7, api_keys=("k",)) as served:
        made = served.get("/openapi.json", headers={"x-api-key": "k"}).json()
    assert set(made["paths"]) == {
        "/v1/embeddings", "/tokenize", "/similarity", "/v1/models", "/v1/health/live",
        "/v1/health/ready", "/v1/metrics", "/v1/metadata", "/v1/version",
    }  # fmt: skip
    post = made["paths"]["/v1/embeddings"]["post"]
    codes = {"200", "400", "401", "404", "408", "413", "422", "429", "500", "503"}
    assert set(post["responses"]) == codes
    for code in codes - {"200"}:
        shape = post["responses"][code]["content"]["application/json"]["schema"]
        assert shape == {"$ref": "#/components/schemas/ErrorAnswer"}
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["model", "input"]
    assert body["properties"]["input"]["anyOf"][1]["maxItems"] == 7
    assert body["properties"]["model"]["enum"] == ["nv", "nv-query", "nv-passage"]
    assert made["security"] == [{"key": []}]
    assert made["paths"]["/v1/health/live"]["get"]["security"] == []


def test_answers_are_as_documented(served):
    answer = served.embed("acme/sym", ["a", "b"])
    schema.EmbeddingsAnswer.model_validate(answer.json())
    answer = served.embed("acme/sym", "a", encoding_format="base64", embedding_type="int8")
    schema.EmbeddingsAnswer.model_validate(answer.json())
    schema.MetadataAnswer.model_validate(served.get("/v1/metadata").json())
    schema.ErrorAnswer.model_validate(served.embed("none", "a").json())
