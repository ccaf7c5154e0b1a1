"""LoRA: adapters equal merged weights, also behind export to the published layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import training_steps as steps
from flax.traverse_util import flatten_dict
from safetensors.torch import load_file
from torch_nvembed import NVEmbed, Sizes

from nvembed_jax.batch import TokenBatch
from nvembed_jax.checkpoint import export_checkpoint, save_model
from nvembed_jax.model import embed, init_params
from nvembed_jax.model.lora import LoraConfig, init_adapters, merge_adapters, with_adapters
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.train.trainable import merged_params, model_params

FIELDS = ("input_ids", "attention_mask", "pool_mask")
CONFIG = steps.small_config()
LORA = LoraConfig(rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def params():
    return jax.jit(partial(init_params, CONFIG))(jax.random.key(0))


@pytest.fixture(scope="module")
def adapters(params):
    drawn = init_adapters(LORA, params, jax.random.key(1))
    key = jax.random.key(2)
    return jax.tree.map(lambda leaf: leaf + 0.05 * jax.random.normal(key, leaf.shape), drawn)


def texts() -> TokenBatch:
    return jax.tree.map(jnp.asarray, steps.tokens(np.random.default_rng(0), 6, 10))


def test_adapters_start_as_nothing(params):
    fresh = init_adapters(LORA, params, jax.random.key(1))
    adapted = embed(CONFIG, with_adapters(params, fresh, LORA), texts())
    np.testing.assert_array_equal(adapted, embed(CONFIG, params, texts()))


def test_merged_equals_adapter(params, adapters):
    adapted = embed(CONFIG, with_adapters(params, adapters, LORA), texts())
    merged = embed(CONFIG, merge_adapters(params, adapters, LORA), texts())
    np.testing.assert_allclose(adapted, merged, atol=1e-6)
    assert np.abs(adapted - embed(CONFIG, params, texts())).max() > 1e-3


def test_every_matrix_of_the_decoder_and_no_other_is_adapted(params):
    drawn = flatten_dict(init_adapters(LORA, params, jax.random.key(0)), sep=".")
    names = {name.rsplit(".", 1)[0] for name in drawn}
    expected = {f"backbone.layers.self_attn.{p}_proj" for p in "qkvo"}
    assert names == expected | {f"backbone.layers.mlp.{p}_proj" for p in ("gate", "up", "down")}


def test_dropout_drops_whole_features_and_keeps_the_mean(params, adapters):
    config = LoraConfig(rank=4, dropout=0.5)
    name = "backbone.layers.self_attn.q_proj.lora_a"
    plain = np.asarray(flatten_dict(adapters, sep=".")[name])
    ratios = []
    for seed in range(40):
        laid = with_adapters(params, adapters, config, jax.random.key(seed))
        ratio = np.asarray(flatten_dict(laid, sep=".")[name]) / plain
        assert set(np.unique(np.round(ratio, 5))) <= {0.0, 2.0}
        assert (ratio == ratio[:, :1]).all()  # all ranks of a feature together
        ratios.append(ratio[:, 0])
    assert abs(np.mean(ratios) - 1) < 0.1
    again, laid = (with_adapters(params, adapters, config, jax.random.key(0)) for _ in range(2))
    np.testing.assert_array_equal(*(flatten_dict(x, sep=".")[name] for x in (again, laid)))


def test_targets_that_match_nothing_are_refused(params):
    with pytest.raises(ValueError, match=r"'q_proj' matches no matrix.*backbone"):
        init_adapters(LoraConfig(targets=("q_proj",)), params, jax.random.key(0))


@pytest.mark.parametrize("settings", [{"rank": 0}, {"dropout": 1.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="LoRA"):
        LoraConfig(**settings)


def test_trained_merged_and_exported_equals_the_independent_model(tmp_path):
    """Trained with adapters, saved, exported to the published layout, run by PyTorch."""
    recipe = steps.recipe({**steps.PAPER, "lora": {"rank": 4}})
    stepper = steps.Stepper(recipe)
    before = jax.device_get(stepper.state.trainable)
    stepper.run(steps.batch(), steps.batch(seed=1))
    trained = stepper.state.trainable
    moves = jax.tree.map(lambda a, b: float(np.abs(a - np.asarray(b)).max()), before, trained)
    assert min(jax.tree.leaves(moves)) > 0
    merged = merged_params(recipe.trainable, trained, stepper.frozen)
    files = Tokenizer.packaged(CONFIG.text).files
    contents = {path.name: path.read_bytes() for path in files}
    save_model(tmp_path / "ours", CONFIG, merged, tokenizer_files=contents)
    export_checkpoint(tmp_path / "ours", tmp_path / "published")

    adapted = model_params(recipe.trainable, trained, stepper.frozen, jnp.float32)
    batch = texts()
    inputs = [torch.tensor(np.asarray(getattr(batch, name))) for name in FIELDS]
    with torch.no_grad():
        model = published_model(tmp_path / "published")
        theirs = model(*inputs, pooling="latent", attention="bidirectional")
    np.testing.assert_allclose(embed(CONFIG, adapted, batch), theirs.numpy(), atol=1e-5)


def published_model(folder: Path) -> NVEmbed:
    """The independent model with the weights of a published folder."""
    backbone, latent = CONFIG.backbone, CONFIG.latent
    model = NVEmbed(
        Sizes(
            vocab=backbone.vocab_size, width=backbone.embed_dim, mlp=backbone.mlp_dim,
            layers=backbone.num_layers, heads=backbone.num_heads, kv_heads=backbone.num_kv_heads,
            head=backbone.head_dim, rope_theta=backbone.rope_theta, norm_eps=backbone.norm_eps,
            latents=latent.num_latents, latent_width=latent.latent_dim,
            cross_heads=latent.num_cross_heads, cross_head=latent.cross_head_dim,
            mult=latent.mlp_multiplier, pool_heads=0,
        )
    )  # fmt: skip
    weights = {}
    for file in folder.glob("*.safetensors"):
        weights |= load_file(file)
    model.load_state_dict(weights)
    return model
