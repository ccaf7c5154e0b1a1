"""From published names to our parameter tree, and token batches, both written out by hand.

The converter is not used here, so that a fault in it cannot hide one in the model.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor
from torch_nvembed import NVEmbed, Sizes

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import (
    DecoderConfig,
    LatentConfig,
    ModelConfig,
    SelfAttentionPoolingConfig,
)

LAYER_NAMES = (
    "input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj",
    "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
LATENT_NAMES = {
    "latents": "latents",
    "cross_attend_blocks.0.norm.weight": "cross_attn.norm.weight",
    "cross_attend_blocks.0.norm.bias": "cross_attn.norm.bias",
    "cross_attend_blocks.0.norm_context.weight": "cross_attn.norm_context.weight",
    "cross_attend_blocks.0.norm_context.bias": "cross_attn.norm_context.bias",
    "cross_attend_blocks.0.fn.to_q.weight": "cross_attn.to_q.weight",
    "cross_attend_blocks.0.fn.to_kv.weight": "cross_attn.to_kv.weight",
    "cross_attend_blocks.0.fn.to_out.weight": "cross_attn.to_out.weight",
    "cross_attend_blocks.1.norm.weight": "feed_forward.norm.weight",
    "cross_attend_blocks.1.norm.bias": "feed_forward.norm.bias",
    "cross_attend_blocks.1.fn.net.0.weight": "feed_forward.up.weight",
    "cross_attend_blocks.1.fn.net.0.bias": "feed_forward.up.bias",
    "cross_attend_blocks.1.fn.net.2.weight": "feed_forward.down.weight",
    "cross_attend_blocks.1.fn.net.2.bias": "feed_forward.down.bias",
}
SELF_ATTENTION_NAMES = {
    "norm.weight": "self_attn.norm.weight",
    "norm.bias": "self_attn.norm.bias",
    "q_proj.weight": "self_attn.q_proj.weight",
    "k_proj.weight": "self_attn.k_proj.weight",
    "v_proj.weight": "self_attn.v_proj.weight",
    "o_proj.weight": "self_attn.o_proj.weight",
    "feed_forward.norm.weight": "feed_forward.norm.weight",
    "feed_forward.norm.bias": "feed_forward.norm.bias",
    "feed_forward.net.0.weight": "feed_forward.up.weight",
    "feed_forward.net.0.bias": "feed_forward.up.bias",
    "feed_forward.net.2.weight": "feed_forward.down.weight",
    "feed_forward.net.2.bias": "feed_forward.down.bias",
}
POOLING_NAMES = {
    "latent": ("latent_attention_model", LATENT_NAMES),
    "self_attention": ("self_attention_pooling", SELF_ATTENTION_NAMES),
    "mean": ("", {}),
    "eos": ("", {}),
}


def model_config(sizes: Sizes, pooling: str, attention: str) -> ModelConfig:
    """The package's configuration of a reference model."""
    return ModelConfig(
        family="nvembed",
        backbone=DecoderConfig(
            vocab_size=sizes.vocab, embed_dim=sizes.width, mlp_dim=sizes.mlp,
            num_layers=sizes.layers, num_heads=sizes.heads, num_kv_heads=sizes.kv_heads,
            head_dim=sizes.head, rope_theta=sizes.rope_theta, norm_eps=sizes.norm_eps,
            sliding_window=sizes.window,
        ),
        attention=attention,
        pooling=pooling,
        latent=LatentConfig(
            num_latents=sizes.latents, latent_dim=sizes.latent_width,
            num_cross_heads=sizes.cross_heads, cross_head_dim=sizes.cross_head,
            mlp_multiplier=sizes.mult,
        ),
        self_attention_pooling=SelfAttentionPoolingConfig(
            num_heads=sizes.pool_heads, mlp_multiplier=sizes.mult
        ),
    )  # fmt: skip


def parameter_tree(model: NVEmbed, pooling: str) -> dict:
    """The reference's weights as the nested dict that `embed` takes."""
    weights = model.state_dict()
    flat = {
        "backbone.embed_tokens.weight": weights["embedding_model.embed_tokens.weight"],
        "backbone.norm.weight": weights["embedding_model.norm.weight"],
    }
    for name in LAYER_NAMES:
        layers = [
            weights[f"embedding_model.layers.{i}.{name}.weight"] for i in range(model.sizes.layers)
        ]
        # One layer needs no copy, which matters at full width.
        stacked = layers[0][None] if len(layers) == 1 else torch.stack(layers)
        flat[f"backbone.layers.{name}.weight"] = stacked
    prefix, names = POOLING_NAMES[pooling]
    for source, target in names.items():
        flat[f"pooling.{target}"] = weights[f"{prefix}.{source}"]
    return nested({name: jnp.asarray(value.numpy()) for name, value in flat.items()})


def nested(flat: dict) -> dict:
    """{"a.b": x} -> {"a": {"b": x}}."""
    tree: dict = {}
    for name, value in flat.items():
        *folders, last = name.split(".")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return tree


def padded_arrays(texts: list[list[int]], prefixes: list[int], pad: int = 2) -> list[np.ndarray]:
    """Right-padded ids, attention mask, and pool mask without each text's first tokens: [B, T]."""
    width = max(map(len, texts))
    lengths = np.array([len(text) for text in texts])
    ids = np.array([text + [pad] * (width - len(text)) for text in texts], np.int32)
    mask = np.arange(width) < lengths[:, None]
    return [ids, mask, mask & (np.arange(width) >= np.array(prefixes)[:, None])]


def padded_batch(texts: list[list[int]], prefixes: list[int]) -> TokenBatch:
    """One text a row."""
    return TokenBatch(*map(jnp.asarray, padded_arrays(texts, prefixes)))


def packed_batch(texts: list[list[int]], prefixes: list[int], row: int, rows: int) -> TokenBatch:
    """Several texts a row of `row` tokens, each put into the first row with room."""
    ids = np.full((rows, row), 2, np.int32)
    segments, positions = np.full((rows, row), -1, np.int32), np.zeros((rows, row), np.int32)
    pool = np.zeros((rows, row), bool)
    filled = [0] * rows
    for number, (text, prefix) in enumerate(zip(texts, prefixes, strict=True)):
        place = next(r for r in range(rows) if filled[r] + len(text) <= row)
        span = slice(filled[place], filled[place] + len(text))
        ids[place, span], segments[place, span] = text, number
        positions[place, span] = np.arange(len(text))
        pool[place, span] = np.arange(len(text)) >= prefix
        filled[place] += len(text)
    arrays = map(jnp.asarray, (ids, segments >= 0, pool, segments, positions))
    return TokenBatch(*arrays, num_texts=len(texts))


def reference_embeddings(
    model: NVEmbed, texts: list[list[int]], prefixes: list[int], pooling: str, attention: str
) -> np.ndarray:
    """The reference's embeddings [B, D], in the dtype of its weights."""
    arrays: list[Tensor] = [torch.from_numpy(x) for x in padded_arrays(texts, prefixes)]
    ids, mask, pool = arrays
    return model(ids.long(), mask, pool, pooling=pooling, attention=attention).numpy()


def assert_close(ours: np.ndarray, reference: np.ndarray, exact: np.ndarray | None = None) -> None:
    """At most 1e-5 apart, cosine >= 1 - 1e-6; `exact` (float64) tells whose rounding it is."""
    ours, reference = np.asarray(ours, np.float64), reference.astype(np.float64)
    apart = np.abs(ours - reference).max()
    cosine = (ours * reference).sum(-1).min()
    note = f"max |difference| {apart:.3g}, smallest cosine 1 - {1 - cosine:.3g}"
    if exact is not None:
        note += f"; from float64: ours {np.abs(ours - exact).max():.3g}"
        note += f", PyTorch {np.abs(reference - exact).max():.3g}"
    assert ours.shape == reference.shape
    assert apart <= 1e-5, note
    assert cosine >= 1 - 1e-6, note
