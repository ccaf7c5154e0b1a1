"""The whole model: backbone, pooling, projections, L2 norm. `embed` is the pure function under
everything else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import BertConfig, ModelConfig, ProjectionConfig
from nvembed_jax.model.compute import Compute
from nvembed_jax.model.decoder import Decoder
from nvembed_jax.model.encoder_bert import BertEncoder
from nvembed_jax.model.latent_fold import FoldedLatentPooling
from nvembed_jax.model.layers import ACTIVATIONS, Linear
from nvembed_jax.model.pooling import (
    LatentAttentionPooling,
    SelfAttentionPooling,
    masked_mean,
    pooled_positions,
)

Params = dict[str, Any]
NORM_EPS = 1e-12
DEFAULT_COMPUTE = Compute()


class Projections(nn.Module):
    """Dense layers behind the pooling, in order; parameters `0`, `1`, ..."""

    configs: tuple[ProjectionConfig, ...]
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B D"]) -> Num[Array, "B E"]:
        for i, config in enumerate(self.configs):
            layer = Linear(
                config.out_dim, use_bias=config.use_bias, compute=self.compute, name=str(i)
            )
            x = ACTIVATIONS[config.activation](layer(x))
        return x


class FoldedPooling(nn.Module):
    """Keeps the folded block's parameters under `pooling.folded`."""

    config: Any
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"], batch: TokenBatch) -> Float[Array, "texts D"]:
        return FoldedLatentPooling(self.config, self.compute, name="folded")(x, batch)


class EmbeddingModel(nn.Module):
    """Token ids to pooled vectors (not normalised).

    `folded` and `scan_layers` say which form of the parameters is given; `embed` reads them off
    the parameters.
    """

    config: ModelConfig
    compute: Compute = Compute()
    scan_layers: bool = True
    folded: bool = False

    @nn.compact
    def __call__(self, batch: TokenBatch) -> Float[Array, "texts D"]:
        x = self._backbone()(batch)
        x = self._pool(x, batch)
        if self.config.projections:
            x = Projections(self.config.projections, self.compute, name="projections")(x)
        return x.astype(jnp.float32)

    def _backbone(self) -> nn.Module:
        config = self.config
        if isinstance(config.backbone, BertConfig):
            return BertEncoder(config.backbone, self.compute, self.scan_layers, name="backbone")
        return Decoder(
            config.backbone, self.compute, config.attention, self.scan_layers, name="backbone"
        )

    def _pool(self, x: Num[Array, "B T D"], batch: TokenBatch) -> Float[Array, "texts D"]:
        config = self.config
        if config.pooling == "latent" and config.latent is not None:
            block = FoldedPooling if self.folded else LatentAttentionPooling
            return block(config.latent, self.compute, name="pooling")(x, batch)
        if config.pooling == "self_attention" and config.self_attention_pooling is not None:
            block = SelfAttentionPooling(
                config.self_attention_pooling, self.compute, name="pooling"
            )
            return block(x, batch)
        return masked_mean(x, pooled_positions(config.pooling, batch), batch)


def embed(
    config: ModelConfig,
    params: Params,
    batch: TokenBatch,
    *,
    compute: Compute = DEFAULT_COMPUTE,
    normalize: bool = True,
) -> Float[Array, "B D"]:
    """Embeddings of a batch; pure, for use under jit, grad and any mesh.

    Args:
        config: what the model is; `dataclasses.replace(config, attention=..., pooling=...)`
            switches them with the
            same weights.
        params: nested dict; stacked or unstacked layers, plain or folded latent block.
        batch: padded or packed tokens.
        compute: how to run it.
        normalize: L2-normalise the result.

    Returns:
        float32 [B, D]; B counts texts, also when several share a row.
    """
    model = EmbeddingModel(
        config,
        compute,
        scan_layers="layers" in params["backbone"],
        folded="folded" in params.get("pooling", {}),
    )
    out: Any = model.apply({"params": params}, jax.tree.map(jnp.asarray, batch))
    return l2_normalize(out) if normalize else out


def l2_normalize(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Unit length over the last axis; a zero vector stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), NORM_EPS**2))


def init_params(config: ModelConfig, key: Any, dtype: Any = jnp.float32) -> Params:
    """Random parameters: a plain nested dict with stacked layers.

    A pure function: `jax.eval_shape` and `jax.jit(..., out_shardings=...)` make large models
        abstract or born sharded.
    """
    tokens = jnp.zeros((1, 2), jnp.int32)
    mask = jnp.ones((1, 2), bool)
    params = EmbeddingModel(config).init(key, TokenBatch(tokens, mask, mask))["params"]
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def abstract_params(config: ModelConfig, dtype: Any = jnp.float32) -> Params:
    """Shapes and dtypes of the parameters, nothing allocated."""
    return jax.eval_shape(lambda key: init_params(config, key, dtype), jax.random.key(0))


def unstack_layers(params: Params) -> Params:
    """Stacked `layers` [L, ...] to `layers_0`, `layers_1`, ...: compiled without a loop, faster
    for small models."""
    backbone = dict(params["backbone"])
    stacked = backbone.pop("layers", {})
    count = jax.tree.leaves(stacked)[0].shape[0] if stacked else 0
    for i in range(count):
        backbone[f"layers_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
    return {**params, "backbone": backbone}
