"""Tiny models behind the application, called in this process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial

import httpx
import jax

from nvembed_jax import Embedder
from nvembed_jax.config import tiny
from nvembed_jax.model import init_params
from nvembed_jax.serve import ServerSettings
from nvembed_jax.serve.app import make_app
from nvembed_jax.serve.models import ServedModel
from nvembed_jax.serve.service import EmbeddingService
from nvembed_jax.text.tokenizer import Tokenizer

MAX_LENGTH = 64
BATCH_TOKENS = 256


def make_embedder(seed: int, max_length: int = MAX_LENGTH, **text) -> Embedder:
    """A one-layer model; text: changes of its text handling."""
    config = tiny(vocab_size=8192)
    config = replace(
        config,
        name=f"tiny-{seed}",
        backbone=replace(config.backbone, num_layers=1),
        text=replace(config.text, max_length=max_length, **text),
    )
    params = jax.jit(partial(init_params, config))(jax.random.key(seed))
    return Embedder(config, params, Tokenizer.packaged(config.text))


class Served:
    """An application with its lifespan running; calls block."""

    def __init__(self, models: dict[str, Embedder], headers=None, **settings):
        settings = {"warmup": False, "batch_tokens": BATCH_TOKENS, **settings}
        self.settings = ServerSettings(**settings)
        budget = self.settings.batch_tokens
        served = [ServedModel(id, model, budget) for id, model in models.items()]
        self.service = EmbeddingService(served, self.settings)
        self.app = make_app(self.service)
        self.runner = asyncio.Runner()
        transport = httpx.ASGITransport(app=self.app)
        self.client = httpx.AsyncClient(
            transport=transport, base_url="http://server", headers=headers
        )

    def __enter__(self) -> Served:
        self.service.start()
        while not (self.service.is_warm or self.settings.warmup):
            time.sleep(0.001)
        return self

    def __exit__(self, *error) -> None:
        self.runner.run(self.client.aclose())
        self.service.stop()
        self.runner.close()

    def run(self, work):
        """The result of a coroutine, on the loop of the application."""
        return self.runner.run(work)

    def get(self, path: str, **kw) -> httpx.Response:
        return self.run(self.client.get(path, **kw))

    def post(self, path: str, body=None, **kw) -> httpx.Response:
        if body is not None:
            kw["json"] = body
        return self.run(self.client.post(path, **kw))

    def embed(self, model: str, input, **fields) -> httpx.Response:
        return self.post("/v1/embeddings", {"model": model, "input": input, **fields})


def error_of(response: httpx.Response, status: int) -> dict:
    """The inner error of a response in the one shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"object", "message", "type", "detail", "error"}
    assert body["object"] == "error"
    assert body["detail"] == {}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == body["message"]
    assert body["error"]["type"] == body["type"]
    assert response.headers["x-request-id"]
    return body["error"]
