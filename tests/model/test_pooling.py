"""Pooling masks by eye, the fold against the plain block, and packed rows against padded ones."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import POOLINGS, ModelConfig, minilm_l6, tiny
from nvembed_jax.model import Compute, embed, fold_latents, init_params, unstack_layers
from nvembed_jax.model.masks import first_token_mask, last_token_mask
from nvembed_jax.model.pooling import masked_mean
from nvembed_jax.text.packing import pack, pad
from nvembed_jax.text.tokenizer import Encoded

PADDED = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
SEGMENTS = np.array([[0, 0, 2, -1], [1, 1, 1, 3]], np.int32)


def random_params(config: ModelConfig) -> dict:
    """Parameters moved from where they start, norms and biases too, so that none of them can
    hide."""

    def make(key: jax.Array) -> dict:
        leaves, tree = jax.tree.flatten(init_params(config, key))
        keys = jax.random.split(key, len(leaves))
        moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(tree, moved)

    return jax.jit(make)(jax.random.key(1))


def run(config: ModelConfig, params: dict, batch: TokenBatch, **options) -> jax.Array:
    return jax.jit(partial(embed, config, **options))(params, batch)


def texts(count: int, longest: int, seed: int = 0) -> list[Encoded]:
    draw = np.random.default_rng(seed)
    sizes = draw.integers(2, longest + 1, count)
    return [
        Encoded(draw.integers(3, 512, n).astype(np.int32), int(draw.integers(0, n)), int(n))
        for n in sizes
    ]


def test_last_and_first_token_of_padded_rows():
    batch = TokenBatch(np.zeros((3, 4), np.int32), jnp.asarray(PADDED), jnp.asarray(PADDED))
    expected_last = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    expected_first = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(last_token_mask(batch), expected_last)
    np.testing.assert_array_equal(first_token_mask(batch), expected_first)


def packed_batch(num_texts: int) -> TokenBatch:
    mask = jnp.asarray(SEGMENTS >= 0)
    ids = jnp.zeros((2, 4), jnp.int32)
    return TokenBatch(ids, mask, mask, jnp.asarray(SEGMENTS), num_texts=num_texts)


def test_last_and_first_token_of_packed_rows():
    expected_last = np.array([[0, 1, 1, 0], [0, 0, 1, 1]], bool)
    expected_first = np.array([[1, 0, 1, 0], [1, 0, 0, 1]], bool)
    np.testing.assert_array_equal(last_token_mask(packed_batch(4)), expected_last)
    np.testing.assert_array_equal(first_token_mask(packed_batch(4)), expected_first)


def test_masked_mean_is_the_mean_of_true_positions():
    x = jnp.arange(8.0).reshape(2, 4, 1)
    mask = jnp.asarray([[1, 0, 1, 0], [0, 0, 0, 0]], bool)
    batch = TokenBatch(np.zeros((2, 4), np.int32), mask, mask)
    np.testing.assert_array_equal(masked_mean(x, mask, batch), [[1.0], [0.0]])


def test_masked_mean_of_packed_rows_is_by_text():
    batch = packed_batch(5)
    x = jnp.arange(8.0).reshape(2, 4, 1)
    out = masked_mean(x, batch.attention_mask, batch)
    np.testing.assert_array_equal(out, [[0.5], [5.0], [2.0], [7.0], [0.0]])


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_fold_equals_plain_block(attention: str):
    config = tiny(attention=attention)
    params = random_params(config)
    batch = TokenBatch(*pad(texts(6, 20), 20, 6, 0))
    plain = run(config, params, batch)
    np.testing.assert_allclose(run(config, fold_latents(config, params), batch), plain, atol=1e-6)


def test_fold_twice_is_refused(tiny_config: ModelConfig, tiny_params: dict):
    folded = fold_latents(tiny_config, tiny_params)
    with pytest.raises(ValueError, match="nothing to fold"):
        fold_latents(tiny_config, folded)


def test_fold_takes_fewer_operations_at_published_sizes():
    """The block at full width, from XLA's own count: 3 to 4.5 times fewer."""
    backbone = dataclasses.replace(
        tiny().backbone, embed_dim=4096, num_layers=1, mlp_dim=8, num_heads=1, num_kv_heads=1
    )
    latent = dataclasses.replace(
        tiny().latent, num_latents=512, latent_dim=4096, num_cross_heads=8, cross_head_dim=4096
    )
    full = dataclasses.replace(tiny(), backbone=backbone, latent=latent)
    mean = dataclasses.replace(full, pooling="mean")

    def flops(config: ModelConfig, fold: bool) -> float:
        params = jax.eval_shape(partial(init_params, config), jax.random.key(0))
        if fold:
            params = jax.eval_shape(partial(fold_latents, config), params)
        mask = jax.ShapeDtypeStruct((4, 512), jnp.bool_)
        batch = TokenBatch(jax.ShapeDtypeStruct((4, 512), jnp.int32), mask, mask)
        return jax.jit(partial(embed, config)).lower(params, batch).cost_analysis()["flops"]

    trunk = flops(mean, False)
    ratio = (flops(full, False) - trunk) / (flops(full, True) - trunk)
    assert 3 < ratio < 4.5, ratio


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_packed_rows_equal_padded_rows(pooling: str, attention: str):
    config = tiny(pooling, attention)
    params = random_params(config)
    encoded = texts(9, 30)
    padded = run(config, params, TokenBatch(*pad(encoded, 32, 9, 0)))
    packed = run(config, params, TokenBatch(*pack(encoded, 64, 0, num_texts=12)))
    assert packed.shape == (12, 64)
    np.testing.assert_allclose(packed[:9], padded, atol=1e-6)


def test_packed_rows_equal_padded_rows_in_bert():
    backbone = dataclasses.replace(minilm_l6().backbone, vocab_size=512, num_layers=2)
    config = dataclasses.replace(minilm_l6(), backbone=backbone)
    params = random_params(config)
    encoded = texts(9, 30)
    padded = run(config, params, TokenBatch(*pad(encoded, 32, 9, 0)))
    packed = run(config, params, TokenBatch(*pack(encoded, 64, 0)))
    np.testing.assert_allclose(packed, padded, atol=1e-6)


def test_unstacked_and_rematerialised_layers_equal_scanned_ones(tiny_config, tiny_params):
    batch = TokenBatch(*pad(texts(4, 16), 16, 4, 0))

    def loss(params: dict, compute: Compute) -> jax.Array:
        return jnp.sum(embed(tiny_config, params, batch, compute=compute)[:, :3])

    graded = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, gradient = graded(tiny_params, Compute())
    again, same = graded(tiny_params, Compute(remat="full"))
    assert value == pytest.approx(float(again), abs=1e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    unstacked = jax.jit(loss, static_argnums=1)(unstack_layers(tiny_params), Compute())
    assert float(unstacked) == pytest.approx(float(value), abs=1e-6)


def test_bfloat16_is_near_float32(tiny_config: ModelConfig, tiny_params: dict):
    batch = TokenBatch(*pad(texts(8, 40), 40, 8, 0))
    exact = run(tiny_config, tiny_params, batch)
    rough = run(tiny_config, tiny_params, batch, compute=Compute(dtype=jnp.bfloat16))
    assert rough.dtype == jnp.float32
    assert float(jnp.min(jnp.sum(exact * rough, -1))) > 0.999
