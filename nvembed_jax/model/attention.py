"""Attention dispatch: one entry, `attend`, over the kernels that can serve a call.

The XLA path is the reference; it walks blocks of queries when a score matrix would be large, so
that 32,768 tokens fit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from nvembed_jax.model.compute import Compute
from nvembed_jax.model.masks import MaskSpec, dense_mask

MASKED = -1e30  # finite: a row without keys (batch padding) gives a mean, not NaN
BLOCK_SCORES = (
    1 << 24
)  # elements of one head's score block, B x Q x S, before queries are walked in blocks


def attend(
    q: Num[Array, "B T N H"],
    k: Num[Array, "B T K H"],
    v: Num[Array, "B T K H"],
    spec: MaskSpec,
    compute: Compute,
    *,
    scale: float,
    softcap: float | None = None,
    window: Int[Array, ""] | int | None = None,
) -> Num[Array, "B T N H"]:
    """Grouped-query attention under `spec`; scores and softmax in float32.

    Args:
        scale: factor of the scores.
        softcap: `cap * tanh(scores / cap)` before masking (Gemma 2).
        window: overrides the spec's window for this layer; may be traced.
    """
    return _xla(q, k, v, spec, scale, softcap, window)


def _xla(q, k, v, spec, scale, softcap, window):
    batch, length = q.shape[:2]
    block = length
    while batch * block * length > BLOCK_SCORES and block % 2 == 0 and block > 128:
        block //= 2
    if block == length:
        return _xla_block(q, k, v, spec, 0, scale, softcap, window)

    def one(start):
        part = jax.lax.dynamic_slice_in_dim(q, start, block, axis=1)
        return _xla_block(part, k, v, spec, start, scale, softcap, window)

    out = jax.lax.map(one, jnp.arange(0, length, block))  # [blocks, B, block, N, H]
    return jnp.moveaxis(out, 0, 1).reshape(q.shape)


def _xla_block(q, k, v, spec, start, scale, softcap, window):
    batch, queries, heads, head_dim = q.shape
    groups = heads // k.shape[2]
    q = q.reshape(batch, queries, k.shape[2], groups, head_dim)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32) * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    allowed = dense_mask(spec, start, queries, window)[:, None, None]
    weights = jax.nn.softmax(jnp.where(allowed, scores, MASKED), axis=-1).astype(v.dtype)
    out = jnp.einsum("BKGTS,BSKH->BTKGH", weights, v, preferred_element_type=jnp.float32)
    return out.reshape(batch, queries, heads, head_dim).astype(v.dtype)
