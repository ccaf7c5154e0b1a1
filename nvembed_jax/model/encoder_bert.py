"""The BERT encoder of E5 and MiniLM: post-LayerNorm, absolute positions, token types; hidden
states out."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Num

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import BertConfig
from nvembed_jax.model.attention import attend
from nvembed_jax.model.compute import Compute
from nvembed_jax.model.layers import (
    ACTIVATIONS,
    Embedding,
    LayerNorm,
    Linear,
    recomputed,
    rematerialized,
    scanned,
    split_by_rows,
)
from nvembed_jax.model.masks import MaskSpec, mask_spec


class BertEmbeddings(nn.Module):
    """Sum of word, position and (first) token-type embeddings, normed."""

    config: BertConfig
    compute: Compute

    @nn.compact
    def __call__(self, batch: TokenBatch) -> Num[Array, "B T D"]:
        config, compute = self.config, self.compute

        def table(rows: int, name: str) -> Embedding:
            return Embedding(rows, config.embed_dim, compute, name=name)

        positions = batch.positions
        if positions is None:
            positions = jnp.arange(batch.input_ids.shape[1])[None]
        x = table(config.vocab_size, "word_embeddings")(batch.input_ids)
        x = x + table(config.max_positions, "position_embeddings")(positions)
        types = table(config.num_token_types, "token_type_embeddings")
        x = x + types(jnp.zeros((1, 1), jnp.int32))
        return LayerNorm(config.norm_eps, name="norm")(x)


class BertAttention(nn.Module):
    """Multi-head self-attention with biases."""

    config: BertConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"], spec: MaskSpec) -> Num[Array, "B T D"]:
        width, heads = self.config.embed_dim, self.config.num_heads
        q, k, v = (
            Linear(width, use_bias=True, compute=self.compute, name=name)(x).reshape(
                *x.shape[:2], heads, width // heads
            )
            for name in ("q_proj", "k_proj", "v_proj")
        )
        out = attend(q, k, v, spec, self.compute, scale=(width // heads) ** -0.5)
        out = out.reshape(*x.shape[:2], width)
        return Linear(width, use_bias=True, compute=self.compute, name="o_proj")(out)


class BertLayer(nn.Module):
    """Attention and MLP, each with a residual and a norm behind it."""

    config: BertConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"], spec: MaskSpec) -> tuple[Num[Array, "B T D"], None]:
        config, compute = self.config, self.compute
        out = BertAttention(config, compute, name="self_attn")(x, spec)
        x = LayerNorm(config.norm_eps, name="attention_layernorm")(x + out)
        x = split_by_rows(x, compute)
        out = BertMLP(config, compute, name="mlp")(x)
        x = LayerNorm(config.norm_eps, name="output_layernorm")(x + out)
        return split_by_rows(x, compute), None


class BertMLP(nn.Module):
    """`down(act(up(x)))`."""

    config: BertConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"]) -> Num[Array, "B T D"]:
        hidden = Linear(self.config.mlp_dim, use_bias=True, compute=self.compute, name="up_proj")(x)
        act = ACTIVATIONS[self.config.activation]
        hidden = recomputed(lambda h: act(h.astype(jnp.float32)).astype(x.dtype), hidden)
        return Linear(self.config.embed_dim, use_bias=True, compute=self.compute, name="down_proj")(
            hidden
        )


class BertEncoder(nn.Module):
    """Embeddings and layers; `scan_layers` as in `Decoder`."""

    config: BertConfig
    compute: Compute
    scan_layers: bool = True

    @nn.compact
    def __call__(self, batch: TokenBatch) -> Num[Array, "B T D"]:
        config, compute = self.config, self.compute
        x = split_by_rows(BertEmbeddings(config, compute, name="embeddings")(batch), compute)
        spec = mask_spec(batch, "bidirectional")
        if not self.scan_layers:
            layer = rematerialized(BertLayer, compute, scanned=False)
            for i in range(config.num_layers):
                x, _ = layer(config, compute, name=f"layers_{i}")(x, spec)
            return x
        layers = scanned(BertLayer, compute, config.num_layers, (nn.broadcast,))
        x, _ = layers(config, compute, name="layers")(x, spec)
        return x
