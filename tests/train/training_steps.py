"""A tiny model, a batch of random tokens, and one training step on any mesh."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import loss_reference as reference
import numpy as np
from flax.traverse_util import flatten_dict

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import ModelConfig, from_dict, tiny, to_dict
from nvembed_jax.model import init_params
from nvembed_jax.model.lora import init_adapters
from nvembed_jax.sharding import batch_sharding, make_mesh, param_shardings
from nvembed_jax.train.program import Program
from nvembed_jax.train.recipe import Recipe, parse_recipe
from nvembed_jax.train.trainable import split_params

SMALL = {"num_layers": 2, "embed_dim": 32, "mlp_dim": 64, "head_dim": 8, "vocab_size": 64}
PAPER = {"full": [r"pooling\..*"], "lora": {"rank": 4, "dropout": 0.1}}


def small_config() -> ModelConfig:
    """The tiny NV-Embed with two narrow layers."""
    plain = to_dict(tiny())
    plain["backbone"] |= SMALL
    plain["latent"] = {
        "num_latents": 8,
        "latent_dim": 32,
        "num_cross_heads": 4,
        "cross_head_dim": 8,
    }
    return from_dict(plain)


def recipe(trainable: dict[str, Any] | None = None, **stage: Any) -> Recipe:
    """One contrastive stage of 16 queries with 3 negatives each."""
    fields = {
        "data": "unused", "steps": 4, "batch_size": 16, "negatives": 3,
        "loss": {"temperature": 0.1},
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 0, "schedule": "constant"},
        **stage,
    }  # fmt: skip
    return parse_recipe(
        {
            "name": "test",
            "model": {"named": "tiny", "tokenizer": "packaged"},
            "trainable": trainable or {},
            "stage1": fields,
        }
    )


def tokens(rng: np.random.Generator, rows: int, length: int) -> TokenBatch:
    """Random ids of random lengths."""
    sizes = rng.integers(3, length + 1, rows)
    mask = np.arange(length) < sizes[:, None]
    ids = np.where(mask, rng.integers(1, 64, (rows, length)), 0).astype(np.int32)
    return TokenBatch(ids, mask, mask & (np.arange(length) >= 1))


def batch(rows: int = 16, per_row: int = 4, seed: int = 0) -> Any:
    """A `ContrastiveBatch` on the host."""
    rng = np.random.default_rng(seed)
    made = reference.make_batch(rng, rows, per_row)
    return made.replace(queries=tokens(rng, rows, 8), passages=tokens(rng, rows * per_row, 12))


class Stepper:
    """`recipe`'s step on a mesh; weights depend on nothing but their names."""

    def __init__(self, recipe: Recipe, mesh: Any = None):
        self.mesh = mesh or make_mesh(devices=jax.devices()[:1])
        self.config = small_config()
        self.program = Program(recipe, recipe.stages["stage1"], self.config, self.mesh)
        params = jax.jit(partial(init_params, self.config))(jax.random.key(0))
        full, frozen = split_params(recipe.trainable, params)
        trainable = {"full": full}
        lora = recipe.trainable.lora
        if lora is not None:
            trainable["lora"] = nonzero(init_adapters(lora, params, jax.random.key(1)))
        self.frozen = jax.device_put(frozen, param_shardings(self.mesh, frozen))
        placed = jax.device_put(trainable, param_shardings(self.mesh, trainable))
        self.state = self.program.init_state(placed)

    def place(self, host: Any) -> Any:
        """The batch on the mesh."""
        return jax.device_put(host, batch_sharding(self.mesh))

    def run(self, *batches: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Steps over the batches: (trained parameters by name, metrics of the last step)."""
        metrics: Any = {}
        for host in batches:
            self.state, metrics = self.program(self.state, self.frozen, self.place(host))
        flat = flatten_dict(jax.device_get(self.state.trainable), sep=".")
        return flat, {k: float(v) for k, v in jax.device_get(metrics).items()}

    def gradients(self, host: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """(gradients by name, loss and metrics) of one batch, nothing moved."""
        args = (self.state.trainable, self.frozen, self.place(host), jax.random.key(7))
        (loss, metrics), grads = jax.jit(self.program.grads)(*args)
        values = {"loss": loss, **metrics}
        flat = flatten_dict(jax.device_get(grads), sep=".")
        return flat, {k: float(v) for k, v in jax.device_get(values).items()}

    def compiled(self, host: Any) -> Any:
        """The compiled program for a batch."""
        return self.program.compiled(self.state, self.frozen, self.place(host))


def nonzero(adapters: Any) -> Any:
    """Adapters whose product is not zero, so that a step shows all of them."""
    return jax.tree.map(lambda leaf: leaf + 0.01 * jnp.ones_like(leaf), adapters)


def assert_same(got: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    """All leaves agree to `tolerance` of the largest value of each, and none is zero."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(np.abs(np.asarray(value)).max())
        assert scale > 0, f"{name} has no gradient at all"
        worst = float(np.abs(np.asarray(got[name]) - np.asarray(value)).max())
        assert worst <= tolerance * scale, f"{name}: {worst} of {scale}"
