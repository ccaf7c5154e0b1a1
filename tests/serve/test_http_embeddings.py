"""POST /v1/embeddings: what comes back equals `Embedder`, in every form, by every name."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest
from served_app import Served

from nvembed_jax import codes

TEXTS = [
    "a",
    "the second text is somewhat longer than the first",
    "",
    "Zürich 東京 🙂",
    "a b c " * 8,
]
TASK = "Given a claim, retrieve documents that refute it"


def rows(response, dtype="float32") -> np.ndarray:
    """The embeddings of a response, from either format."""
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    values = [item["embedding"] for item in data]
    if isinstance(values[0], str):
        values = [np.frombuffer(base64.b64decode(value), dtype) for value in values]
    return np.array(values, dtype)


def test_passages_and_queries_equal_the_embedder(served, embedder):
    got = rows(served.embed("nv", TEXTS, input_type="passage"))
    np.testing.assert_allclose(got, embedder.encode_document(TEXTS), atol=1e-6)
    got = rows(served.embed("nv", TEXTS, input_type="query"))
    np.testing.assert_allclose(got, embedder.encode_query(TEXTS), atol=1e-6)
    got = rows(served.embed("nv", TEXTS, input_type="query", task=TASK))
    np.testing.assert_allclose(got, embedder.encode_query(TEXTS, task=TASK), atol=1e-6)


def test_one_string_is_one_embedding_with_its_tokens(served, embedder):
    response = served.embed("nv", TEXTS[1], input_type="passage", user="someone", other=[1])
    body = response.json()
    assert body["object"] == "list"
    assert body["model"] == "nv"
    assert [set(item) for item in body["data"]] == [{"object", "index", "embedding"}]
    count = len(embedder.tokenizer.encode([TEXTS[1]])[0].input_ids)
    assert body["usage"] == {"prompt_tokens": count, "total_tokens": count}
    np.testing.assert_allclose(rows(response)[0], embedder.encode_document(TEXTS[1]), atol=1e-6)


def test_float_and_base64_forms_are_bit_equal(served):
    ask = {"model": "acme/sym", "input": TEXTS}
    plain = rows(served.post("/v1/embeddings", ask))
    packed = rows(served.post("/v1/embeddings", ask | {"encoding_format": "base64"}), "<f4")
    assert plain.tobytes() == packed.tobytes()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("int8", "int8"), ("uint8", "uint8"), ("binary", "int8"), ("ubinary", "uint8")],
)
@pytest.mark.parametrize("dimensions", [None, 20])
def test_codes_are_those_of_the_embedder(served, symmetric, name, dtype, dimensions):
    ask = {"model": "sym", "input": TEXTS, "embedding_type": name, "dimensions": dimensions}
    expected = symmetric.encode_document(TEXTS, precision=name, truncate_dim=dimensions)
    for format in ("float", "base64"):
        got = rows(served.post("/v1/embeddings", ask | {"encoding_format": format}), dtype)
        assert got.shape == expected.shape
        assert (got != expected).mean() < 0.01  # a value at the edge of a step may round apart


def test_dimensions_are_truncated_and_renormalised(served, symmetric):
    got = rows(served.embed("acme/sym", TEXTS, dimensions=16))
    expected = codes.truncate(symmetric.encode_document(TEXTS), 16)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_suffix_of_the_name_wins_over_input_type(served, embedder):
    got = rows(served.embed("nv-query", TEXTS, input_type="passage"))
    np.testing.assert_allclose(got, embedder.encode_query(TEXTS), atol=1e-6)
    got = rows(served.embed("nv-passage", TEXTS))
    np.testing.assert_allclose(got, embedder.encode_document(TEXTS), atol=1e-6)


def test_a_task_alone_means_a_query(served, embedder):
    got = rows(served.embed("nv", TEXTS, task=TASK))
    np.testing.assert_allclose(got, embedder.encode_query(TEXTS, task=TASK), atol=1e-6)


def test_nulls_are_fields_left_away(served, symmetric):
    names = ("input_type", "encoding_format", "dimensions", "truncate", "embedding_type", "user")
    got = rows(served.embed("acme/sym", TEXTS, task=None, **dict.fromkeys(names)))
    np.testing.assert_allclose(got, symmetric.encode_document(TEXTS), atol=1e-6)


def test_truncate_end_keeps_the_beginning_and_start_the_end(served, embedder):
    text = " ".join(f"word{i}" for i in range(200))
    got = rows(served.embed("nv", text, input_type="passage", truncate="END"))
    np.testing.assert_allclose(got[0], embedder.encode_document(text), atol=1e-6)
    head, body = "Instruct: x\nQuery: ", embedder.tokenizer.encode([text], truncation="none")
    got = served.post(
        "/tokenize",
        {"model": "nv", "input": text, "task": "x", "truncate": "START"},
    ).json()["data"][0]
    ids = embedder.tokenizer.encode([head + text], truncation="none")[0].input_ids.tolist()
    kept = len(embedder.tokenizer.encode([head])[0].input_ids) - 1  # without EOS
    assert got["count"] == embedder.max_length
    assert got["tokens"][:kept] == ids[:kept]
    assert got["tokens"][kept:] == body[0].input_ids.tolist()[-(embedder.max_length - kept) :]
    response = served.embed("nv", text, input_type="query", task="x", truncate="START")
    assert response.json()["usage"]["total_tokens"] == embedder.max_length


def test_a_text_longer_than_the_budget_is_served_alone(embedder):
    with Served({"m": embedder}, batch_tokens=16) as server:
        got = rows(server.embed("m", ["word " * 40, "a"], input_type="passage"))
    np.testing.assert_allclose(got, embedder.encode_document(["word " * 40, "a"]), atol=1e-6)


def test_answers_of_many_requests_at_once_are_not_swapped(served, embedder, symmetric):
    texts = [f"text number {i} " + "and more " * (i % 7) for i in range(120)]
    expected = {"nv-query": embedder.encode_query(texts), "sym": symmetric.encode_document(texts)}
    spans = [(i, i + 1 + i % 5) for i in range(0, 100, 3)]

    async def ask(name, begin, end):
        body = {"model": name, "input": texts[begin:end], "encoding_format": "base64"}
        return name, begin, end, await served.client.post("/v1/embeddings", json=body)

    async def all_at_once():
        return await asyncio.gather(*(ask(n, *span) for span in spans for n in expected))

    for name, begin, end, response in served.run(all_at_once()):
        got = rows(response)
        np.testing.assert_allclose(got, expected[name][begin:end], atol=1e-6)
