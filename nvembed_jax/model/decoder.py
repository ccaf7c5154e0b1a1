"""The decoder of Mistral, and by configuration of Qwen2 and Gemma 2: token ids in, normed hidden
states out.

Causal or bidirectional with the same weights (paper, section 3): the mask rule is an argument.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Num

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import Attention, DecoderConfig
from nvembed_jax.model.attention import attend
from nvembed_jax.model.compute import Compute
from nvembed_jax.model.layers import (
    Embedding,
    GatedMLP,
    Linear,
    RMSNorm,
    rematerialized,
    rotary_table,
    rotate,
    scanned,
    split_by_rows,
)
from nvembed_jax.model.masks import MaskSpec, mask_spec


class SelfAttention(nn.Module):
    """Rotary grouped-query self-attention."""

    config: DecoderConfig
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Num[Array, "B T D"], rope: Any, spec: MaskSpec, window: Any
    ) -> Num[Array, "B T D"]:
        config, compute = self.config, self.compute

        def heads(name: str, count: int) -> Array:
            width = count * config.head_dim
            out = Linear(width, use_bias=config.qkv_bias, compute=compute, name=name)(x)
            return out.reshape(*x.shape[:2], count, config.head_dim)  # [B, T, count, H]

        q = rotate(heads("q_proj", config.num_heads), rope)
        k = rotate(heads("k_proj", config.num_kv_heads), rope)
        v = heads("v_proj", config.num_kv_heads)
        scale = config.query_scale or config.head_dim**-0.5
        out = attend(
            q, k, v, spec, compute, scale=scale, softcap=config.attention_softcap, window=window
        )
        out = out.reshape(*x.shape[:2], -1)
        return Linear(config.embed_dim, compute=compute, name="o_proj")(out)


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP with residuals; Gemma 2 norms their outputs too."""

    config: DecoderConfig
    compute: Compute

    @nn.compact
    def __call__(
        self, x: Num[Array, "B T D"], rope: Any, spec: MaskSpec, window: Any
    ) -> tuple[Num[Array, "B T D"], None]:
        config, compute = self.config, self.compute

        def norm(name: str) -> RMSNorm:
            return RMSNorm(config.norm_eps, config.norm_offset, name=name)

        attention = SelfAttention(config, compute, name="self_attn")
        out = attention(norm("input_layernorm")(x), rope, spec, window)
        if config.post_norms:
            x = x + norm("post_attention_layernorm")(out)
            out = GatedMLP(config, compute, name="mlp")(norm("pre_feedforward_layernorm")(x))
            out = norm("post_feedforward_layernorm")(out)
            return split_by_rows(x + out, compute), None
        x = split_by_rows(x + out, compute)
        out = GatedMLP(config, compute, name="mlp")(norm("post_attention_layernorm")(x))
        return split_by_rows(x + out, compute), None


def layer_windows(config: DecoderConfig, attention: Attention) -> list[int | None]:
    """The causal window of every layer; None everywhere when bidirectional."""
    windowed = attention == "causal" and config.sliding_window is not None
    every = config.window_every
    return [
        config.sliding_window if windowed and i % every == 0 else None
        for i in range(config.num_layers)
    ]


class Decoder(nn.Module):
    """Embedding, layers and final norm.

    `scan_layers` expects stacked parameters `layers` [L, ...]; otherwise `layers_0`, `layers_1`,
    ...
    """

    config: DecoderConfig
    compute: Compute
    attention: Attention
    scan_layers: bool = True

    @nn.compact
    def __call__(self, batch: TokenBatch) -> Num[Array, "B T D"]:
        config, compute = self.config, self.compute
        table = Embedding(config.vocab_size, config.embed_dim, compute, name="embed_tokens")
        x = split_by_rows(table(batch.input_ids), compute)
        if config.scale_embeddings:
            x = x * jnp.asarray(config.embed_dim**0.5, x.dtype)
        positions = batch.positions
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        rope = rotary_table(positions, config.head_dim, config.rope_theta)
        x = self._layers(x, rope, batch)
        x = RMSNorm(config.norm_eps, config.norm_offset, name="norm")(x)
        return split_by_rows(x, compute)

    def _layers(self, x: Num[Array, "B T D"], rope: Any, batch: TokenBatch) -> Num[Array, "B T D"]:
        config, compute = self.config, self.compute
        if not config.num_layers:
            return x
        windows = layer_windows(config, self.attention)
        if not self.scan_layers:
            layer = rematerialized(DecoderLayer, compute, scanned=False)
            for i, window in enumerate(windows):
                spec = mask_spec(batch, self.attention, window)
                x, _ = layer(config, compute, name=f"layers_{i}")(x, rope, spec, None)
            return x
        uniform = len(set(windows)) == 1
        spec = mask_spec(batch, self.attention, windows[0] if uniform else None)
        # Alternating windows travel with the scan as numbers; "no window" is one that is never
        # reached.
        traced = None if uniform else jnp.asarray([w or x.shape[1] + 1 for w in windows])
        axes = (nn.broadcast, nn.broadcast, 0)
        layers = scanned(DecoderLayer, compute, config.num_layers, axes)
        x, _ = layers(config, compute, name="layers")(x, rope, spec, traced)
        return x
