"""`embed` against the PyTorch reference: every mask, pooling and layout, folded and plain."""

from __future__ import annotations

import copy
import dataclasses
import functools

import jax
import numpy as np
import pytest
from parameter_tree import (
    assert_close,
    model_config,
    packed_batch,
    padded_batch,
    parameter_tree,
    reference_embeddings,
)
from torch_nvembed import NVEmbed, Sizes, random_model

from nvembed_jax.model import embed, fold_latents

ATTENTIONS = ["bidirectional", "causal"]
POOLINGS = ["latent", "mean", "eos", "self_attention"]
LENGTHS = [37, 5, 18, 2, 64, 29]
INSTRUCTED = [12, 0, 9, 0, 30, 0]  # instruction tokens, BOS included, that are not pooled

run = jax.jit(embed, static_argnums=0)


@pytest.fixture(scope="module")
def model() -> NVEmbed:
    return random_model(Sizes())


def random_texts(lengths: list[int], vocab: int) -> list[list[int]]:
    """Token ids with BOS and EOS."""
    generator = np.random.default_rng(0)
    return [[1, *generator.integers(3, vocab, n - 2).tolist(), 2] for n in lengths]


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    return random_texts(LENGTHS, Sizes.vocab)


@pytest.mark.parametrize("prefixes", [INSTRUCTED, [0] * 6], ids=["instruction", "plain"])
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("pooling", [*POOLINGS, "latent folded"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_embed_equals_pytorch(model, texts, attention, pooling, layout, prefixes):
    pooling, _, folded = pooling.partition(" ")
    config = model_config(model.sizes, pooling, attention)
    params = parameter_tree(model, pooling)
    if folded:
        params = fold_latents(config, params)
    if layout == "packed":
        batch = packed_batch(texts, prefixes, row=72, rows=3)
    else:
        batch = padded_batch(texts, prefixes)
    exact = reference_embeddings(double(model), texts, prefixes, pooling, attention)
    reference = reference_embeddings(model, texts, prefixes, pooling, attention)
    assert_close(run(config, params, batch), reference, exact)


@functools.cache
def double(model: NVEmbed) -> NVEmbed:
    return copy.deepcopy(model).double()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_reference_depends_on_mask_and_instruction(model, texts, pooling):
    """The cases of the matrix differ by far more than its tolerance."""
    none = [0] * len(texts)
    both = reference_embeddings(model, texts, none, pooling, "bidirectional")
    causal = reference_embeddings(model, texts, none, pooling, "causal")
    instructed = reference_embeddings(model, texts, INSTRUCTED, pooling, "bidirectional")
    assert np.abs(both - causal).max() > 0.05
    assert (np.abs(both - instructed).max() > 0.05) == (pooling != "eos")


FULL_WIDTH = Sizes(
    vocab=256, width=4096, mlp=14336, layers=1, heads=32, kv_heads=8, head=128,
    window=4096, rope_theta=10000.0, norm_eps=1e-5,
    latents=512, latent_width=4096, cross_heads=8, cross_head=4096, mult=4,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("block", ["latent", "self_attention"])
def test_one_layer_at_full_width_equals_pytorch(block):
    """A billion parameters with either pooling block; the model without one gives mean and EOS."""
    absent = {"pool_heads": 0} if block == "latent" else {"latents": 0}
    sizes = dataclasses.replace(FULL_WIDTH, **absent)
    model = random_model(sizes)
    texts, prefixes = random_texts([14, 3, 9], sizes.vocab), [6, 0, 0]
    cases = [(p, a) for p in ([block, "mean", "eos"]) for a in ATTENTIONS]
    expected = [reference_embeddings(model, texts, prefixes, *case) for case in cases]
    params = parameter_tree(model, block)
    del model  # a second copy of the weights is 4 GB
    folded = fold_latents(model_config(sizes, *cases[0]), params) if block == "latent" else None
    batch = padded_batch(texts, prefixes)
    for (pooling, attention), reference in zip(cases, expected, strict=True):
        config = model_config(sizes, pooling, attention)
        chosen = params if pooling == block else {"backbone": params["backbone"]}
        assert_close(run(config, chosen, batch), reference)
        if folded and pooling == block:
            assert_close(run(config, folded, batch), reference)
