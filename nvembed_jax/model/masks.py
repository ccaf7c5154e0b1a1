"""Which query position may see which key position. The causal/bidirectional toggle lives here and
only here.

A `MaskSpec` states the rule without materialising it: kernels read its fields, the XLA path asks
for `dense_mask`.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import Attention


@flax.struct.dataclass
class MaskSpec:
    """The attention rule of one layer.

    Attributes:
        attention_mask: bool [B, S]; only these keys are seen.
        segment_ids: None or int32 [B, S]; a query sees only keys of its own segment.
        causal: a query sees no key behind it.
        window: None, or a causal query sees only the last `window` keys, itself included.
    """

    attention_mask: Any
    segment_ids: Any = None
    causal: bool = flax.struct.field(pytree_node=False, default=False)
    window: int | None = flax.struct.field(pytree_node=False, default=None)


def mask_spec(batch: TokenBatch, attention: Attention, window: int | None = None) -> MaskSpec:
    """The rule for a batch. A sliding window belongs to the causal mask; bidirectional sees
    everything."""
    causal = attention == "causal"
    return MaskSpec(
        attention_mask=batch.attention_mask,
        segment_ids=batch.segment_ids,
        causal=causal,
        window=window if causal else None,
    )


def dense_mask(
    spec: MaskSpec,
    query_start: Int[Array, ""] | int = 0,
    num_queries: int | None = None,
    window: Int[Array, ""] | int | None = None,
) -> Bool[Array, "B Q S"]:
    """The rule as a matrix for queries `query_start : query_start + num_queries`.

    `window` overrides the spec's (it may be traced: Gemma 2 alternates windows over scanned
    layers).
    """
    length = spec.attention_mask.shape[-1]
    num_queries = length if num_queries is None else num_queries
    query = query_start + jnp.arange(num_queries)[:, None]
    key = jnp.arange(length)[None, :]
    allowed = spec.attention_mask[:, None, :]
    if spec.causal:
        allowed = allowed & (key <= query)
        window = spec.window if window is None else window
        if window is not None:
            allowed = allowed & (query - key < window)
    if spec.segment_ids is not None:
        own = spec.segment_ids[:, query[:, 0]]
        allowed = allowed & (own[:, :, None] == spec.segment_ids[:, None, :])
    return jnp.broadcast_to(allowed, (spec.attention_mask.shape[0], num_queries, length))


def last_token_mask(batch: TokenBatch) -> Bool[Array, "B T"]:
    """True on the last real token of every text."""
    mask = batch.attention_mask
    after = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
    last = mask & ~after
    if batch.segment_ids is not None:
        following = jnp.pad(batch.segment_ids[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        last = last | (mask & (following != batch.segment_ids))
    return last


def first_token_mask(batch: TokenBatch) -> Bool[Array, "B T"]:
    """True on the first token of every text."""
    mask = batch.attention_mask
    first = mask & ~jnp.pad(mask[:, :-1], ((0, 0), (1, 0)))
    if batch.segment_ids is not None:
        before = jnp.pad(batch.segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        first = first | (mask & (before != batch.segment_ids))
    return first
