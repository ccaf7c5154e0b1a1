"""What a request can do wrong: the status, and an error that both kinds of clients print."""

from __future__ import annotations

import numpy as np
import pytest
from served_app import Served, error_of

LONG = "word " * 500


def raw(served, content: bytes):
    return served.post("/v1/embeddings", content=content)


@pytest.mark.parametrize(
    ("fields", "status", "part", "param"),
    [
        ({}, 400, "input_type is required", "input_type"),
        ({"input_type": "document"}, 422, "input_type", "input_type"),
        ({"model": "none"}, 404, "this server has: nv, acme/sym", "model"),
        ({"model": None}, 422, "model", "model"),
        ({"input": []}, 422, "at least one", "input"),
        ({"input": ["a"] * 2049}, 422, "2049 texts; expected at most 2048", "input"),
        ({"input": None}, 422, "a string or a list of strings", "input"),
        ({"input": 3}, 422, "a string or a list of strings", "input"),
        ({"input": ["a", None]}, 422, "input[1] must be a string", "input[1]"),
        ({"input": [[1, 2], [3]]}, 400, "check_embedding_ctx_length=False", "input"),
        ({"input": [1, 2, 3]}, 400, "check_embedding_ctx_length=False", "input"),
        ({"encoding_format": "hex"}, 422, "encoding_format", "encoding_format"),
        ({"truncate": "end"}, 422, "truncate", "truncate"),
        ({"embedding_type": "int4"}, 422, "embedding_type", "embedding_type"),
        ({"dimensions": 0}, 422, "dimensions", "dimensions"),
        ({"dimensions": "16"}, 422, "dimensions", "dimensions"),
        ({"dimensions": 10**30}, 422, "dimensions", "dimensions"),
        ({"dimensions": 65, "input_type": "query"}, 400, "1..64", "dimensions"),
        ({"dimensions": 32, "input_type": "query"}, 400, "--allow-dimensions", "dimensions"),
        ({"input_type": "passage", "task": "find"}, 400, "task describes queries", "task"),
        ({"model": "nv-passage", "task": "find"}, 400, "task describes queries", "task"),
        ({"input_type": "query", "task": "t" * 4001}, 422, "task", "task"),
        ({"input_type": "query", "task": "find " * 400}, 400, "Input length", "input[0]"),
        (
            {"input_type": "query", "task": "find " * 400, "truncate": "START"},
            400,
            "no room for a text",
            None,
        ),
    ],
)
def test_wrong_fields_are_told(served, fields, status, part, param):
    error = error_of(served.post("/v1/embeddings", {"model": "nv", "input": "a", **fields}), status)
    assert part in error["message"]
    assert error["param"] == param


def test_token_limit_has_the_words_that_others_look_for(served, embedder):
    count = len(embedder.tokenizer.encode([LONG], truncation="none")[0].input_ids)
    for truncate in ({}, {"truncate": "NONE"}):
        response = served.embed("nv", ["a", LONG], input_type="passage", **truncate)
        error = error_of(response, 400)
        assert error["message"] == f"Input length {count} exceeds maximum allowed token size 64"
        assert error["param"] == "input[1]"


@pytest.mark.parametrize(
    "content",
    [
        b'{"model": "nv", "input": "\\ud800", "input_type": "query"}',
        b'{"model": "nv", "input": "a\xff", "input_type": "query"}',
        b"",
        b"{",
        b"[" * 100_000,
        b"model=nv&input=a",
        b'{"model": "nv", "input": "a", "dimensions": NaN}',
    ],
)
def test_what_is_no_json_is_400(served, content):
    assert error_of(raw(served, content), 400)["code"] == "invalid_json"


@pytest.mark.parametrize("content", [b"[]", b'"a"', b"null", b"3"])
def test_json_that_is_no_object_is_422(served, content):
    assert "JSON object" in error_of(raw(served, content), 422)["message"]


def test_errors_repeat_no_value(served):
    secret = "swordfish"
    for fields in ({"model": secret}, {"truncate": secret}, {"dimensions": secret},
                   {"input": [secret, 1]}, {"input": {secret: 1}}, {secret: 1},
                   {"input": secret * 200}):  # fmt: skip
        response = served.post("/v1/embeddings", {"model": "nv", "input": "a", **fields})
        assert response.status_code >= 400
        assert secret not in response.text


def test_unknown_paths_and_methods_have_the_same_shape(served):
    error_of(served.get("/v2/nothing"), 404)
    assert served.get("/v1/embeddings").headers["allow"] == "POST"
    error_of(served.get("/v1/embeddings"), 405)
    error_of(served.post("/v1/embeddings/", {"model": "nv", "input": "a"}), 404)


def test_defaults_of_the_server_fill_what_is_missing(embedder):
    settings = {"default_input_type": "query", "task": "find", "allow_dimensions": True}
    with Served({"nv": embedder}, **settings) as served:
        got = served.embed("nv", "a", dimensions=32).json()["data"][0]["embedding"]
        passage = served.embed("nv", "a", input_type="passage").json()["data"][0]["embedding"]
    expected = embedder.encode_query("a", task="find", truncate_dim=32)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(passage, embedder.encode_document("a"), atol=1e-6)


def test_before_the_models_are_compiled_there_is_a_503(embedder):
    served = Served({"nv": embedder})
    response = served.embed("nv", "a", input_type="query")
    error_of(response, 503)
    assert int(response.headers["retry-after"]) > 0
    error_of(served.get("/v1/health/ready"), 503)
    served.runner.close()


def test_a_model_that_fails_is_500_and_the_next_request_is_answered(embedder, monkeypatch):
    with Served({"nv": embedder}) as served:
        model = served.service.names.models[0]
        run = model.run
        monkeypatch.setattr(model, "run", lambda arrays: run(arrays) * np.nan)
        error = error_of(served.embed("nv", "a", input_type="query"), 500)
        assert "not finite" in error["message"]

        def broken(arrays):
            raise RuntimeError("the text was: secret")

        monkeypatch.setattr(model, "run", broken)
        response = served.embed("nv", ["a", "b " * 30], input_type="query")
        assert "secret" not in error_of(response, 500)["message"]
        monkeypatch.setattr(model, "run", run)
        assert served.embed("nv", "a", input_type="query").status_code == 200
        assert served.service._batcher.waiting_tokens == 0


def test_an_error_of_the_server_itself_is_a_500_without_details(embedder, monkeypatch):
    with Served({"nv": embedder}) as served:
        monkeypatch.setattr("nvembed_jax.serve.service.tokenize", lambda *a: 1 / 0)
        error = error_of(served.embed("nv", "a", input_type="query"), 500)
        assert error["message"] == "the server failed on this request"
