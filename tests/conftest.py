"""Eight simulated CPU devices, type checks of shapes, and the tiny model that most tests use."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Halves the time of compilations, which is most of the time of the tests.
        "--xla_backend_optimization_level=0",
    ]
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ["NVEMBED_COMPILATION_CACHE"] = "0"

from jaxtyping import install_import_hook

install_import_hook("nvembed_jax", "beartype.beartype")

import jax
import pytest

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import save_model
from nvembed_jax.config import ModelConfig, tiny
from nvembed_jax.model import init_params


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """The tiny NV-Embed: latent pooling, bidirectional."""
    return tiny()


@pytest.fixture(scope="session")
def tiny_params(tiny_config: ModelConfig) -> dict:
    """Random parameters of `tiny_config`."""
    return jax.jit(partial(init_params, tiny_config))(jax.random.key(0))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A model on disk, of one layer: most of the time goes into compiling."""
    config = tiny(vocab_size=8192)
    config = replace(config, backbone=replace(config.backbone, num_layers=1))
    folder = tmp_path_factory.mktemp("model") / "tiny"
    with resources.as_file(resources.files("nvembed_jax.text") / "data") as tokenizer:
        save_model(folder, config, init_params(config, jax.random.key(0)), src_folder=tokenizer)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> Embedder:
    """The model of `tiny_folder`."""
    return Embedder.from_pretrained(tiny_folder)
