"""Next-token prediction with the decoder alone, its output matrix tied to the embeddings: pretrains
the causal start that "removing the mask" presumes (paper, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import DecoderConfig, ModelConfig
from nvembed_jax.model.compute import Compute
from nvembed_jax.model.contract import contract
from nvembed_jax.model.decoder import Decoder
from nvembed_jax.train.step import GradFn


def causal_lm_grads(
    config: ModelConfig, compute: Compute, full_params: Callable[[Any, Any, Any], Any]
) -> GradFn:
    """Loss and gradients of packed or padded `TokenBatch`es.

    Args:
        full_params: (trainable, frozen, key) -> the model's parameters.

    Raises:
        ValueError: the model is not a decoder.
    """
    if not isinstance(config.backbone, DecoderConfig):
        raise ValueError("causal_lm needs a decoder; this model is a BERT encoder")
    decoder = Decoder(config.backbone, compute, "causal")

    def loss(trainable: Any, frozen: Any, batch: TokenBatch, key: Any) -> Any:
        backbone = full_params(trainable, frozen, key)["backbone"]
        hidden: Any = decoder.apply({"params": backbone}, batch)
        table = backbone["embed_tokens"]["weight"]
        logits = contract("BTD,VD->BTV", hidden, table, compute.dtype)
        return next_token_loss(logits, batch.input_ids, target_mask(batch))

    return lambda *args: jax.value_and_grad(loss, has_aux=True)(*args)


def target_mask(batch: TokenBatch) -> Bool[Array, "B T"]:
    """Positions whose next token is a target: real, and of the same text."""
    following = jnp.roll(batch.attention_mask, -1, axis=1).at[:, -1].set(False)
    mask = batch.attention_mask & following
    if batch.segment_ids is not None:
        segments = jnp.asarray(batch.segment_ids)
        mask &= segments == jnp.roll(segments, -1, axis=1)
    return mask


def next_token_loss(
    logits: Float[Array, "B T V"], input_ids: Int[Array, "B T"], mask: Bool[Array, "B T"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean cross entropy of the next tokens, and the share guessed right."""
    targets = jnp.roll(input_ids, -1, axis=1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - chosen
    count = jnp.maximum(jnp.sum(mask), 1)
    # Not argmax, which XLA does not vectorise on CPUs: the maximum is there already.
    right = (chosen >= jnp.max(logits, axis=-1)) & mask
    return jnp.sum(losses * mask) / count, {"accuracy": jnp.sum(right) / count}
