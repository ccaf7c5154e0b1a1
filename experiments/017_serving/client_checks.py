"""What every client is asked to do, by the name of its package. Imports a client only when it is
asked for; needs nothing else than NumPy.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np

TOLERANCE = 1e-6
LONG = "word " * 2000
Checks = dict[str, Callable[[], Any]]


class NotRunError(Exception):
    """Nothing of ours: the client could not be brought to ask."""


def near(found: Any, expected: np.ndarray) -> str:
    """Raises unless the embeddings are equal to 1e-6."""
    rows = np.asarray(found, np.float32)
    if rows.shape != expected.shape:
        raise AssertionError(f"shape {rows.shape}; expected {expected.shape}")
    largest = float(np.abs(rows - expected).max())
    if not largest <= TOLERANCE:
        raise AssertionError(f"largest difference {largest:.2e}")
    return f"{len(rows) if rows.ndim > 1 else 1} texts, largest difference {largest:.1e}"


def fails(call: Callable[[], Any], *parts: str) -> str:
    """What an error said; raises unless it came, with all of these words in its type or text."""
    try:
        call()
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        missing = [part for part in parts if part not in told]
        if missing:
            raise AssertionError(f"expected {missing} in: {told}") from error
        return told[:300]
    raise AssertionError("no error came")


def openai_checks(a: dict[str, Any]) -> Checks:
    import openai

    texts, want = a["texts"], a["expected"]
    base = a["url"] + "/v1"
    client = openai.OpenAI(base_url=base, api_key=a["key"], max_retries=0)
    stranger = openai.OpenAI(base_url=base, api_key="wrong", max_retries=0)

    def embed(model: str, input: Any = texts, **fields: Any) -> list[list[float]]:
        answer = client.embeddings.create(model=model, input=input, **fields)
        return [item.embedding for item in answer.data]

    async def later() -> Any:
        async with openai.AsyncOpenAI(base_url=base, api_key=a["key"]) as many:
            made = (many.embeddings.create(model=a["plain"], input=text) for text in texts[:40])
            return [answer.data[0].embedding for answer in await asyncio.gather(*made)]

    def bits() -> str:
        packed = np.array(embed(a["plain"]), np.float32)  # base64: the client's default
        plain = np.array(embed(a["plain"], encoding_format="float"), np.float32)
        if packed.tobytes() != plain.tobytes():
            raise AssertionError("float and base64 differ")
        return f"{packed.size} numbers bit-equal"

    def names() -> str:
        found = [model.id for model in client.models.list()]
        if f"{a['plain']}-query" not in found:
            raise AssertionError(f"aliases are missing in {found}")
        return ", ".join(found)

    query = {"extra_body": {"input_type": "query"}}
    passage = {"extra_body": {"input_type": "passage"}}
    return {
        "queries": lambda: near(embed(a["prefixed"], **query), want["query"]),
        "passages": lambda: near(embed(a["prefixed"], **passage), want["passage"]),
        "query by the model's name": lambda: near(embed(a["prefixed"] + "-query"), want["query"]),
        "one text": lambda: near(embed(a["plain"], texts[0])[0], want["plain"][0]),
        "forty at once, asynchronously": lambda: near(asyncio.run(later()), want["plain"][:40]),
        "float and base64": bits,
        "list of models": names,
        "no input_type": lambda: fails(lambda: embed(a["prefixed"]), "BadRequest", "input_type"),
        "too long": lambda: fails(
            lambda: embed(a["plain"], LONG), "BadRequest", "exceeds maximum allowed token size"
        ),
        "token ids": lambda: fails(
            lambda: embed(a["plain"], [[1, 2]]), "BadRequest", "check_embedding_ctx_length"
        ),
        "dimensions": lambda: fails(
            lambda: embed(a["plain"], dimensions=64), "BadRequest", "--allow-dimensions"
        ),
        "no text": lambda: fails(lambda: embed(a["plain"], []), "Unprocessable", "at least one"),
        "no such model": lambda: fails(lambda: embed("none"), "NotFound", "no such model"),
        "wrong key": lambda: fails(
            lambda: stranger.embeddings.create(model=a["plain"], input="a"), "Authentication"
        ),
    }


def langchain_openai_checks(a: dict[str, Any]) -> Checks:
    from langchain_openai import OpenAIEmbeddings

    texts, want = a["texts"], a["expected"]

    def made(model: str, **fields: Any) -> Any:
        chosen = {"check_embedding_ctx_length": False, "api_key": a["key"], **fields}
        return OpenAIEmbeddings(model=model, base_url=a["url"] + "/v1", max_retries=0, **chosen)

    def by_default() -> str:
        told = fails(lambda: made(a["plain"], check_embedding_ctx_length=True).embed_query("a"))
        if "check_embedding_ctx_length" not in told:
            raise NotRunError(f"its tokenizer could not be loaded: {told}")
        return told

    many = [texts[i % len(texts)] for i in range(1000)]
    rows = want["passage"][[i % len(texts) for i in range(1000)]]
    return {
        "queries": lambda: near(
            made(a["prefixed"] + "-query").embed_query(texts[0]), want["query"][0]
        ),
        "passages, 1000 in one request": lambda: near(
            made(a["prefixed"] + "-passage").embed_documents(many), rows
        ),
        "asynchronously": lambda: near(
            asyncio.run(made(a["plain"]).aembed_documents(texts)), want["plain"]
        ),
        "too long": lambda: fails(lambda: made(a["plain"]).embed_query(LONG), "token size"),
        "wrong key": lambda: fails(
            lambda: made(a["plain"], api_key="wrong").embed_query("a"), "Authentication"
        ),
        "token ids, its default": by_default,
    }


def langchain_nvidia_checks(a: dict[str, Any]) -> Checks:
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    texts, want = a["texts"], a["expected"]

    def made(model: str, key: str = a["key"], **fields: Any) -> Any:
        return NVIDIAEmbeddings(base_url=a["url"] + "/v1", model=model, api_key=key, **fields)

    return {
        "queries": lambda: near(made(a["prefixed"]).embed_query(texts[0]), want["query"][0]),
        "passages": lambda: near(made(a["prefixed"]).embed_documents(texts), want["passage"]),
        "truncated": lambda: f"{len(made(a['plain'], truncate='END').embed_query(LONG))} numbers",
        "too long": lambda: fails(
            lambda: made(a["plain"], truncate="NONE").embed_query(LONG), "token size"
        ),
        "no such model": lambda: fails(lambda: made("none").embed_query("a"), "no such model"),
        "wrong key": lambda: fails(lambda: made(a["plain"], "wrong").embed_query("a"), "401"),
    }


def llama_index_checks(a: dict[str, Any]) -> Checks:
    from llama_index.embeddings.nvidia import NVIDIAEmbedding

    texts, want = a["texts"], a["expected"]

    def made(model: str, key: str = a["key"], **fields: Any) -> Any:
        return NVIDIAEmbedding(base_url=a["url"] + "/v1", model=model, api_key=key, **fields)

    async def later() -> Any:
        return await made(a["prefixed"]).aget_query_embedding(texts[0])

    return {
        "queries, by the model's name": lambda: near(
            made(a["prefixed"] + "-query").get_query_embedding(texts[0]), want["query"][0]
        ),
        "queries, by its input_type (it sends passage)": lambda: near(
            made(a["prefixed"]).get_query_embedding(texts[0]), want["passage"][0]
        ),
        "queries, asynchronously": lambda: near(asyncio.run(later()), want["query"][0]),
        "passages": lambda: near(
            made(a["prefixed"]).get_text_embedding_batch(texts), want["passage"]
        ),
        "too long": lambda: fails(
            lambda: made(a["plain"], truncate="NONE").get_text_embedding(LONG), "token size"
        ),
        "wrong key": lambda: fails(
            lambda: made(a["plain"], "wrong").get_text_embedding("a"), "401"
        ),
    }


def litellm_checks(a: dict[str, Any]) -> Checks:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # fetches prices otherwise
    import litellm

    litellm.suppress_debug_info = True
    texts, want = a["texts"], a["expected"]

    def embed(model: str, input: Any = texts, key: str = a["key"], **fields: Any) -> Any:
        answer = litellm.embedding(
            model=f"openai/{model}", input=input, api_base=a["url"] + "/v1", api_key=key, **fields
        )
        return [item["embedding"] for item in answer.data]

    return {
        "queries": lambda: near(embed(a["prefixed"] + "-query"), want["query"]),
        "passages": lambda: near(embed(a["prefixed"] + "-passage"), want["passage"]),
        "input_type in the body": lambda: near(
            embed(a["prefixed"], extra_body={"input_type": "query"}), want["query"]
        ),
        "too long": lambda: fails(lambda: embed(a["plain"], LONG), "token size"),
        "no such model": lambda: fails(lambda: embed("none"), "NotFound"),
        "wrong key": lambda: fails(lambda: embed(a["plain"], key="wrong"), "Authentication"),
    }


def triton_checks(a: dict[str, Any]) -> Checks:
    import tritonclient.grpc as triton

    texts, want = a["texts"], a["expected"]
    client = triton.InferenceServerClient(a["grpc"])
    headers = {"authorization": f"Bearer {a['key']}"}
    prefixed = "".join(c if c.isalnum() else "_" for c in a["prefixed"].lower())

    def infer(model: str, given: list[str] = texts, sent: Any = headers, **parameters: Any) -> Any:
        tensor = triton.InferInput("text", [len(given), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[t.encode()] for t in given], dtype=np.object_))
        return client.infer(model, [tensor], headers=sent, parameters=parameters or None)

    def embed(model: str, given: list[str] = texts, **parameters: Any) -> np.ndarray:
        return infer(model, given, **parameters).as_numpy("embeddings")

    def health() -> str:
        seen = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": client.is_model_ready(a["plain"], headers=headers),
        }
        if not all(seen.values()):
            raise AssertionError(str(seen))
        return str(seen)

    def over_http() -> str:
        """The same texts in the same form as over HTTP, bit for bit."""
        body = {"model": a["plain"], "input": texts, "encoding_format": "base64"}
        request = urllib.request.Request(
            a["url"] + "/v1/embeddings", json.dumps(body).encode(), dict(headers)
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = json.load(answer)["data"]
        rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data]
        return near(np.array(rows), embed(a["plain"]))

    def metadata() -> str:
        found = client.get_model_metadata(prefixed, headers=headers, as_json=True)
        server = client.get_server_metadata(headers=headers, as_json=True)
        return f"{server['name']} {server['version']}: {json.dumps(found)}"

    return {
        "health": health,
        "metadata": metadata,
        "queries": lambda: near(embed(prefixed, input_type="query"), want["query"]),
        "passages": lambda: near(embed(prefixed, input_type="passage"), want["passage"]),
        "query by the model's name": lambda: near(embed(prefixed + "_query"), want["query"]),
        "as over HTTP": over_http,
        "token counts": lambda: str(infer(a["plain"]).as_numpy("token_count")[:4].tolist()),
        "int8 codes": lambda: str(embed(a["plain"], embedding_type="int8").dtype),
        "too long": lambda: fails(
            lambda: embed(a["plain"], [LONG]), "INVALID_ARGUMENT", "token size"
        ),
        "dimensions": lambda: fails(
            lambda: embed(a["plain"], dimensions=64), "INVALID_ARGUMENT", "--allow-dimensions"
        ),
        "no such model": lambda: fails(lambda: embed("none"), "NOT_FOUND"),
        "no key": lambda: fails(lambda: infer(a["plain"], sent=None), "UNAUTHENTICATED"),
    }


CLIENTS: dict[str, Callable[[dict[str, Any]], Checks]] = {
    "openai": openai_checks,
    "langchain-openai": langchain_openai_checks,
    "langchain-nvidia-ai-endpoints": langchain_nvidia_checks,
    "llama-index-embeddings-nvidia": llama_index_checks,
    "litellm": litellm_checks,
    "tritonclient": triton_checks,
}
