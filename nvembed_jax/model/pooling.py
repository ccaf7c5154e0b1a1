"""Hidden states to one vector a text: latent attention (paper, section 3.2), mean, EOS, CLS and
self-attention pooling.

Every pooling ends in a masked mean: over the pooled tokens, or over the one token that is the
first or the last.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Num

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import LatentConfig, Pooling, SelfAttentionPoolingConfig
from nvembed_jax.model.attention import attend
from nvembed_jax.model.compute import Compute
from nvembed_jax.model.contract import contract
from nvembed_jax.model.layers import (
    GEGLUFeedForward,
    LayerNorm,
    Linear,
    parameter,
    split_by_rows,
    whole,
)
from nvembed_jax.model.masks import first_token_mask, last_token_mask, mask_spec

POOLING_EPS = 1e-5


def masked_mean(
    x: Num[Array, "B T D"], mask: Bool[Array, "B T"], batch: TokenBatch
) -> Float[Array, "texts D"]:
    """Mean of `x` over True positions of every text, in float32; a text without any gives zeros.

    Packed rows are pooled by a 0/1 matrix [texts, R*T], a matmul being faster than a scatter on
    every device.
    """
    precision = jax.lax.Precision.HIGHEST
    if batch.segment_ids is None:
        count = jnp.sum(mask, axis=1, dtype=jnp.float32)
        total = jnp.einsum(
            "BTD,BT->BD",
            x,
            mask.astype(x.dtype),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
    else:
        own = batch.segment_ids.reshape(1, -1) == jnp.arange(batch.num_texts)[:, None]
        chosen = own & mask.reshape(1, -1)  # [texts, R*T]
        count = jnp.sum(chosen, axis=1, dtype=jnp.float32)
        total = jnp.einsum(
            "MD,BM->BD",
            x.reshape(-1, x.shape[-1]),
            chosen.astype(x.dtype),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
    return total / jnp.maximum(count, 1.0)[:, None]


def pooled_positions(pooling: Pooling, batch: TokenBatch) -> Bool[Array, "B T"]:
    """The positions whose mean is the pooled vector."""
    if pooling == "eos":
        return last_token_mask(batch)
    if pooling == "cls":
        return first_token_mask(batch)
    return batch.pool_mask & batch.attention_mask


class CrossAttention(nn.Module):
    """Hidden states attend to the latents: `to_out(softmax(q k^T) v)`, without the residual."""

    config: LatentConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"], latents: Num[Array, "L E"]) -> Num[Array, "B T D"]:
        heads, head_dim = self.config.num_cross_heads, self.config.cross_head_dim
        inner = heads * head_dim
        context = LayerNorm(POOLING_EPS, name="norm_context")(latents.astype(self.compute.dtype))
        q = Linear(inner, compute=self.compute, name="to_q")(LayerNorm(POOLING_EPS, name="norm")(x))
        kv = Linear(2 * inner, compute=self.compute, name="to_kv")(context)
        k, v = (
            whole(part, self.compute).reshape(-1, heads, head_dim)
            for part in jnp.split(kv, 2, axis=-1)
        )  # [L, N, H]
        q = q.reshape(*x.shape[:2], heads, head_dim)
        scores = contract("BTNH,LNH->BTNL", q, k, self.compute.dtype)
        weights = jax.nn.softmax(scores * head_dim**-0.5, axis=-1).astype(x.dtype)
        out = contract("BTNL,LNH->BTNH", weights, v, self.compute.dtype)
        out = out.astype(x.dtype).reshape(*x.shape[:2], inner)
        return Linear(x.shape[-1], compute=self.compute, name="to_out")(out)


class LatentAttentionPooling(nn.Module):
    """The latent-attention block in its plain form, as trained; `latent_fold.py` has the one for
    inference."""

    config: LatentConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"], batch: TokenBatch) -> Float[Array, "texts D"]:
        config = self.config
        shape = (config.num_latents, config.latent_dim)
        latents = parameter(self, "latents", nn.initializers.normal(1.0), shape)
        x = x + CrossAttention(config, self.compute, name="cross_attn")(x, latents)
        x = split_by_rows(x, self.compute)
        feed_forward = GEGLUFeedForward(
            config.mlp_multiplier, POOLING_EPS, self.compute, name="feed_forward"
        )
        x = split_by_rows(x + feed_forward(x), self.compute)
        return masked_mean(x, pooled_positions("latent", batch), batch)


class PoolingAttention(nn.Module):
    """Pre-norm multi-head self-attention without positions, without the residual."""

    num_heads: int
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"], batch: TokenBatch) -> Num[Array, "B T D"]:
        width = x.shape[-1]
        head_dim = width // self.num_heads
        hidden = LayerNorm(POOLING_EPS, name="norm")(x)
        q, k, v = (
            Linear(width, compute=self.compute, name=name)(hidden).reshape(
                *x.shape[:2], self.num_heads, head_dim
            )
            for name in ("q_proj", "k_proj", "v_proj")
        )
        spec = mask_spec(batch, "bidirectional")
        out = attend(q, k, v, spec, self.compute, scale=head_dim**-0.5).reshape(*x.shape[:2], width)
        return Linear(width, compute=self.compute, name="o_proj")(out)


class SelfAttentionPooling(nn.Module):
    """The ablation's self-attention pooling (the paper names it without defining it)."""

    config: SelfAttentionPoolingConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"], batch: TokenBatch) -> Float[Array, "texts D"]:
        x = x + PoolingAttention(self.config.num_heads, self.compute, name="self_attn")(x, batch)
        x = split_by_rows(x, self.compute)
        feed_forward = GEGLUFeedForward(
            self.config.mlp_multiplier, POOLING_EPS, self.compute, name="feed_forward"
        )
        x = split_by_rows(x + feed_forward(x), self.compute)
        return masked_mean(x, pooled_positions("self_attention", batch), batch)
