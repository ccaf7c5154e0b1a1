"""A tiny model on disk for the commands."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import jax
import pytest

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import save_model
from nvembed_jax.config import tiny
from nvembed_jax.model import init_params


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """One layer only: most of the time goes into compiling."""
    config = tiny(vocab_size=8192)
    config = replace(config, backbone=replace(config.backbone, num_layers=1))
    folder = tmp_path_factory.mktemp("model") / "tiny"
    with resources.as_file(resources.files("nvembed_jax.text") / "data") as tokenizer:
        save_model(folder, config, init_params(config, jax.random.key(0)), src_folder=tokenizer)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder) -> Embedder:
    return Embedder.from_pretrained(tiny_folder)
