"""Schedules, weight decay, and what is trained."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from nvembed_jax.config import tiny
from nvembed_jax.model import abstract_params
from nvembed_jax.model.lora import LoraConfig
from nvembed_jax.train.optimizer import OptimizerConfig, decayed, make_optimizer, make_schedule
from nvembed_jax.train.trainable import (
    TrainableConfig,
    merge_trees,
    model_params,
    split_params,
)


def test_linear_rises_then_falls_to_zero():
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=4), 12)
    rates = [float(schedule(step)) for step in range(13)]
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(rates[4:], np.linspace(1, 0, 9), atol=1e-6)


@pytest.mark.parametrize(("name", "last"), [("cosine", 0.1), ("linear", 0.1), ("constant", 1.0)])
def test_schedules_end_where_they_should(name, last):
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=0, schedule=name, final_fraction=0.1)
    schedule = make_schedule(config, 10)
    assert float(schedule(0)) == pytest.approx(1.0)
    assert float(schedule(10)) == pytest.approx(last)


def test_a_warm_up_longer_than_the_stage_is_cut():
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=500), 3)
    assert max(float(schedule(step)) for step in range(3)) == pytest.approx(1.0)


def test_only_matrices_decay():
    flags = flatten_dict(decayed({"full": abstract_params(tiny())}), sep=".")
    assert flags["full.backbone.layers.mlp.up_proj.weight"]
    assert flags["full.pooling.feed_forward.up.weight"]
    assert not flags["full.pooling.feed_forward.up.bias"]
    assert not flags["full.backbone.norm.weight"]
    assert not flags["full.backbone.layers.input_layernorm.weight"]
    assert not flags["full.pooling.latents"]


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "muon", "sgd"])
def test_every_optimizer_goes_downhill(name):
    config = OptimizerConfig(name=name, learning_rate=0.05, warmup_steps=0, schedule="constant")
    optimizer = make_optimizer(config, 100)
    params = {"q_proj": {"weight": jnp.ones((4, 4))}}
    state = optimizer.init(params)
    for _ in range(5):
        grads = jax.tree.map(lambda x: 2 * x, params)
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    assert float(jnp.abs(params["q_proj"]["weight"]).max()) < 1


def test_muon_orthogonalises_each_matrix_of_a_stack_and_no_table():
    config = OptimizerConfig(name="muon", learning_rate=1.0, warmup_steps=0, schedule="constant")
    rng = np.random.default_rng(0)
    params = {
        "layers": {"q_proj": {"weight": rng.normal(size=(2, 6, 4)).astype(np.float32)}},
        "embed_tokens": {"weight": rng.normal(size=(6, 4)).astype(np.float32)},
        "norm": {"weight": np.ones(4, np.float32)},
    }
    optimizer = make_optimizer(dataclasses.replace(config, clip_norm=0.0), 100)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    for step in np.asarray(updates["layers"]["q_proj"]["weight"]):
        singular = np.linalg.svd(step / (0.2 * np.sqrt(6)), compute_uv=False)
        assert np.all((singular > 0.6) & (singular < 1.3))
    # Adam's first step: as long in every value.
    table, norm = (np.abs(updates[name]["weight"]) for name in ("embed_tokens", "norm"))
    np.testing.assert_allclose(table, norm[0], rtol=1e-4)
    np.testing.assert_allclose(norm, norm[0], rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_only_matrices_shrink_without_a_gradient(name):
    config = OptimizerConfig(
        name=name, learning_rate=0.1, warmup_steps=0, schedule="constant", weight_decay=0.5
    )
    params = {
        "layers": {"q_proj": {"weight": jnp.ones((2, 6, 4))}},
        "embed_tokens": {"weight": jnp.ones((6, 4))},
        "norm": {"weight": jnp.ones(4)},
        "down": {"bias": jnp.ones(4)},
    }
    optimizer = make_optimizer(config, 100)
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    moved = {path: float(jnp.max(leaf)) for path, leaf in flatten_dict(updates, sep=".").items()}
    assert moved == pytest.approx(
        {"layers.q_proj.weight": -0.05, "embed_tokens.weight": -0.05, "norm.weight": 0.0,
         "down.bias": 0.0}
    )  # fmt: skip


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"optimizer\.name must be one of adamw"):
        OptimizerConfig(name="adam")


def test_split_holds_every_leaf_once():
    params = abstract_params(tiny())
    config = TrainableConfig(full=(r"pooling\..*", r".*norm\.weight"), frozen=("pooling.latents",))
    full, frozen = (flatten_dict(part, sep=".") for part in split_params(config, params))
    assert not full.keys() & frozen.keys()
    assert full.keys() | frozen.keys() == flatten_dict(params, sep=".").keys()
    assert "backbone.norm.weight" in full
    assert "pooling.latents" in frozen


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"full": ("nothing",)}, "'nothing' matches no parameter"),
        ({"full": (".*",), "frozen": (".*",)}, "nothing is trained"),
        ({"full": ()}, "nothing is trained"),
    ],
)
def test_a_split_that_trains_nothing_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        split_params(TrainableConfig(**settings), abstract_params(tiny()))


def test_matrices_are_cast_and_norms_stay_float32():
    params = {
        "q_proj": {"weight": jnp.ones((2, 4)), "bias": jnp.ones(2)},
        "norm": {"weight": jnp.ones(4)},
    }
    lora = LoraConfig(rank=1, targets=("q_proj",))
    config = TrainableConfig(full=("norm.weight",), lora=lora)
    full, frozen = split_params(config, params)
    adapters = {"q_proj": {"lora_a": jnp.ones((1, 4)), "lora_b": jnp.ones((2, 1))}}
    made = model_params(config, {"full": full, "lora": adapters}, frozen, jnp.bfloat16)
    kinds = {name: leaf.dtype.name for name, leaf in flatten_dict(made, sep=".").items()}
    assert kinds == {
        "q_proj.weight": "bfloat16", "q_proj.bias": "float32", "norm.weight": "float32",
        "q_proj.lora_a": "bfloat16", "q_proj.lora_b": "bfloat16",
    }  # fmt: skip
    assert merge_trees({"a": {"b": 1}}, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
