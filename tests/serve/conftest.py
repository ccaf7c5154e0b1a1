"""Tiny models of both kinds, and the application that serves them."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace

import pytest
from served_app import Served, make_embedder

from nvembed_jax import Embedder
from nvembed_jax.serve import logs


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """With a query template: queries and passages differ."""
    return make_embedder(0)


@pytest.fixture(scope="session")
def symmetric() -> Embedder:
    """Without any prefix; trained for shorter embeddings."""
    made = make_embedder(1, query_template=None, default_task=None)
    made.config = replace(made.config, matryoshka_dims=(16, 64))
    return made


@pytest.fixture(scope="module")
def served(embedder, symmetric):
    """Both models: `nv` (asymmetric) and `acme/sym`."""
    with Served({"nv": embedder, "acme/sym": symmetric}) as running:
        yield running


@pytest.fixture
def make_short():
    """A model that nothing was compiled for yet, for texts of up to 24 tokens."""
    return lambda: make_embedder(2, max_length=24)


@pytest.fixture
def log():
    """Lines of the log, as they are written."""
    loggers = [logging.getLogger(name) for name in logs.LOGGERS]
    before = [(it.handlers, it.level, it.propagate) for it in loggers]
    stream = io.StringIO()
    logs.configure("debug", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate
