"""Eight simulated CPU devices, type checks of shapes, and the tiny model that most tests use."""

from __future__ import annotations

import os
from functools import partial

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
