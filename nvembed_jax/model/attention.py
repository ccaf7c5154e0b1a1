"""Attention dispatch: one entry, `attend`, over the kernels that can serve a call.

`xla` is the reference and runs everywhere; `cudnn` (padded rows) and `triton` (packed rows) are for
NVIDIA GPUs, `splash` is for TPUs. Outputs of padding tokens are finite, but differ between kernels.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Num

from nvembed_jax.model.compute import Compute
from nvembed_jax.model.contract import contract
from nvembed_jax.model.layers import recomputed
from nvembed_jax.model.masks import MaskSpec, dense_mask
from nvembed_jax.sharding import BATCH_AXES

MASKED = -1e30  # finite: a row without keys (batch padding) gives a mean, not NaN
BLOCK_SCORES = 1 << 26  # scores alive at once, B x N x Q x S; beyond it queries go in blocks
MIN_BLOCK = 128  # queries a block, at least
SPLASH_BLOCK = 128  # TPU lanes: rows are padded to a multiple
HOME = {"cudnn": "cuda", "triton": "cuda", "splash": "tpu"}
MODULES = {
    "triton": "jax.experimental.pallas.ops.gpu.attention",
    "splash": "jax.experimental.pallas.ops.tpu.splash_attention",
}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """What the choice of a kernel depends on."""

    platform: str  # "cpu", "cuda", "tpu", or another backend's name
    capability: float  # of an NVIDIA GPU (9.0: Hopper); 0 elsewhere
    dtype: Any
    spec: MaskSpec
    head_dim: int
    softcap: float | None = None
    window: Any = None  # a number, or traced
    length: int = 512  # tokens a row
    interpret: bool = False  # Pallas kernels in interpret mode


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

    Raises:
        ValueError: `compute.kernel` names a kernel that cannot serve this call.
    """
    length, head_dim = q.shape[1], q.shape[3]
    window = _effective_window(spec, window, length)
    call = Call(
        *_device(compute.mesh), q.dtype, spec, head_dim, softcap, window, length, compute.interpret
    )
    kernel = choose_kernel(call, compute.kernel)
    if compute.kernel == "auto":
        _log_fallback(kernel, call)
    if kernel == "xla":
        return _xla(q, k, v, spec, compute, scale, softcap, window)
    fused = {"cudnn": _cudnn, "triton": _triton, "splash": _splash}[kernel]
    options = {"scale": scale, "softcap": softcap, "window": window, "interpret": compute.interpret}
    run = functools.partial(fused, **options)
    if compute.mesh is None:
        return run(q, k, v, spec)
    return _sharded(run, compute.mesh, q, k, v, spec)


def _effective_window(spec: MaskSpec, window: Any, length: int) -> Any:
    """The window that matters: none when bidirectional, nor one as long as the row."""
    window = spec.window if window is None else window
    if isinstance(window, int) and window < 1:
        raise ValueError(f"a window counts the query itself: expected at least 1, got {window}")
    if not spec.causal or (isinstance(window, int) and window >= length):
        return None
    return window


def choose_kernel(call: Call, kernel: str = "auto") -> str:
    """The kernel for a call: `kernel`, or with "auto" the fastest one that can serve it.

    Raises ValueError if the one asked for cannot: says why, and what can.
    """
    usable = next(name for name in _candidates(call) if refusal(name, call) is None)
    if kernel == "auto":
        return usable
    if kernel != "xla" and kernel not in HOME:
        raise ValueError(
            f"unknown attention kernel {kernel!r}; choose auto, xla, {', '.join(HOME)}"
        )
    reason = refusal(kernel, call)
    if reason is not None:
        raise ValueError(f"attention kernel {kernel!r} cannot run here: {reason}; use {usable!r}")
    return kernel


def _candidates(call: Call) -> tuple[str, ...]:
    """Kernels in order of preference."""
    if call.platform == "cuda":
        return ("cudnn", "triton", "xla") if call.spec.segment_ids is None else ("triton", "xla")
    if call.platform == "tpu" and call.length >= SPLASH_BLOCK:  # else a row is mostly padding
        return ("splash", "xla")
    return ("xla",)


def refusal(kernel: str, call: Call) -> str | None:
    """Why `kernel` cannot serve a call, or None.

    On "cpu" Pallas kernels pass: in interpret mode, or to be lowered for the device they are for.
    """
    if kernel == "xla":
        return None
    home, dtype = HOME[kernel], jnp.dtype(call.dtype).name
    reasons = []
    if call.platform != home and (kernel == "cudnn" or call.platform != "cpu"):
        reasons.append(f"it is for {home}, this is {call.platform}")
    if kernel in MODULES and not _importable(MODULES[kernel]):
        reasons.append(f"this jax has no {MODULES[kernel]}")
    if call.window is not None and not isinstance(call.window, int):
        reasons.append("the window differs between the layers of one scan")
    if home == "cuda":
        widest = 256 if kernel == "cudnn" and call.capability >= 9 else 128
        if call.platform == "cuda" and call.capability < 8:
            reasons.append(f"it needs compute capability 8.0, this GPU has {call.capability}")
        if dtype not in ("bfloat16", "float16") and not call.interpret:
            reasons.append(f"it takes bfloat16 and float16, not {dtype}")
        if call.softcap is not None:
            reasons.append("it has no soft-cap")
        if call.head_dim > widest:
            reasons.append(f"it takes heads of at most {widest}, not {call.head_dim}")
    if kernel == "cudnn" and call.spec.segment_ids is not None:
        reasons.append("it has no segment ids: texts packed in a row would see each other")
    if kernel == "cudnn" and call.head_dim % 8:
        reasons.append(f"it takes heads that are a multiple of 8, not {call.head_dim}")
    if kernel == "triton" and call.window is not None:
        reasons.append("it has no sliding window")
    return reasons[0] if reasons else None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _log_fallback(chosen: str, call: Call) -> None:
    """Says, once, that "auto" could not take the first choice of the device."""
    first = _candidates(call)[0]
    if chosen != first:
        _log_once(f"attention runs on {chosen!r} instead of {first!r}: {refusal(first, call)}")


@functools.cache
def _log_once(message: str) -> None:
    _logger.warning(message)


def _device(mesh: Any) -> tuple[str, float]:
    """Platform and compute capability of the device that programs are compiled for."""
    device: Any = jax.config.jax_default_device or jax.devices()[0]  # pyright: ignore
    if isinstance(mesh, Mesh):
        device = mesh.devices.flat[0]
    elif isinstance(device, str):
        device = jax.devices(device)[0]
    if device.platform != "gpu":
        return device.platform, 0.0
    if "cuda" not in device.client.platform_version:
        return "rocm", 0.0
    return "cuda", float(device.compute_capability)


def _xla(q, k, v, spec, compute, scale, softcap, window):
    batch, length, heads, _ = q.shape
    limit = max(MIN_BLOCK, BLOCK_SCORES // (batch * heads * length))
    if length <= limit:  # the backward pass computes scores again: they are not kept
        rest = (spec, compute, 0, scale, softcap, window)
        return recomputed(lambda q, k, v: _xla_block(q, k, v, *rest), q, k, v)
    blocks = -(-length // limit)
    size = -(-length // blocks)  # even blocks: less than `blocks` padded queries
    padded = _pad(q, 1, blocks * size)

    @jax.checkpoint  # the backward pass computes scores again: memory stays that of one block
    def one(start):
        part = jax.lax.dynamic_slice_in_dim(padded, start, size, axis=1)
        return _xla_block(part, k, v, spec, compute, start, scale, softcap, window)

    out = jax.lax.map(one, jnp.arange(blocks) * size)  # [blocks, B, size, N, H]
    return jnp.moveaxis(out, 0, 1).reshape(padded.shape)[:, :length]


def _xla_block(q, k, v, spec, compute, start, scale, softcap, window):
    """Softmax attention in the form that XLA fuses whole on CPUs, scores never leaving the cache.

    That form: heads in front, an added bias and no select, the division behind the second product,
    and operands that layers do not share (shared ones are broadcast to score size, in memory).
    """
    batch, queries, heads, head_dim = q.shape
    kv_heads, groups = k.shape[2], heads // k.shape[2]
    bias = _bias(spec, start, queries, groups, window)  # [B, 1, 1 or G*T, S]
    lead = (batch, kv_heads)
    if q.dtype == jnp.float32:
        q, scale = q * scale, 1.0  # where nothing is lost: a pass less over the scores
    if compute.mesh is None:
        never = q[0, 0, 0, 0] < -jnp.inf  # false, NaN or not; makes bias and scale this layer's own
        bias = jnp.where(never, 0.0, bias)
        scale = 1.0 if scale == 1.0 else jnp.where(never, 0.0, scale)
        if bias.shape[2] == 1:
            lead = (batch * kv_heads,)  # one batch axis: bfloat16 products stay native on CPUs
            bias = jnp.repeat(bias[:, 0], kv_heads, axis=0)
    q = q.reshape(batch, queries, kv_heads, groups, head_dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(*lead, groups * queries, head_dim)
    k, v = (x.transpose(0, 2, 1, 3).reshape(*lead, -1, head_dim) for x in (k, v))
    scores = contract("...TH,...SH->...TS", q, k, q.dtype) * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = scores + bias  # exact: any score vanishes beside MASKED
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = contract("...TS,...SH->...TH", weights, v, v.dtype)
    out = (out / total).astype(v.dtype).reshape(batch, kv_heads, groups, queries, head_dim)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, queries, heads, head_dim)


def _bias(spec, start, queries, groups, window) -> Float[Array, "B 1 Q S"]:
    """0 where a key is seen, else MASKED; one row when every query sees the same keys."""
    if not spec.causal and spec.segment_ids is None:
        allowed = spec.attention_mask[:, None]
    else:
        allowed = jnp.tile(dense_mask(spec, start, queries, window), (1, groups, 1))
    return jnp.where(allowed, 0.0, MASKED)[:, None].astype(jnp.float32)


def _sharded(run, mesh, q, k, v, spec):
    """Every device runs the kernel on its own rows and heads; no partitioner can look inside."""
    rows = tuple(axis for axis in BATCH_AXES if axis in mesh.shape)
    shards = math.prod(mesh.shape[axis] for axis in rows)
    if q.shape[0] % shards:
        raise ValueError(f"{q.shape[0]} rows do not split into {shards} shards; pad the batch")
    tensor = mesh.shape.get("tensor", 1)
    if k.shape[2] % tensor:  # too few key heads for the axis: one for every query head
        k, v = _repeat_heads(q, k, v)
    heads = "tensor" if tensor > 1 and q.shape[2] % tensor == 0 else None
    split = PartitionSpec(rows, None, heads, None)
    specs = (split, split, split, PartitionSpec(rows))
    # Pallas calls carry no replication types: hence no check of them.
    mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
    return mapped(q, k, v, spec)


def _cudnn(q, k, v, spec, *, scale, window, **_):
    """cuDNN flash attention: right padding as lengths, no mask is materialised."""
    lengths = jnp.sum(spec.attention_mask, axis=-1, dtype=jnp.int32)
    lengths = jnp.maximum(lengths, 1)  # batch padding sees its first token: no division by 0
    window = None if window is None else (window - 1, 0)
    out = jax.nn.dot_product_attention(
        q, k, v, scale=scale, is_causal=spec.causal, query_seq_lengths=lengths,
        key_value_seq_lengths=lengths, local_window_size=window, implementation="cudnn",
    )  # fmt: skip
    # Whatever cuDNN leaves behind a row's length must not reach the next layer: 0 * NaN is NaN.
    return jnp.where(spec.attention_mask[:, :, None, None], out, 0)


def _triton(q, k, v, spec, *, scale, interpret, **_):
    """Pallas flash attention for NVIDIA GPUs, told apart by segment ids."""
    from jax.experimental.pallas.ops.gpu import attention as kernel

    k, v = _repeat_heads(q, k, v)
    length, head_dim = q.shape[1], q.shape[3]
    block = min(128, _power_of_two(length))
    width = _power_of_two(head_dim)
    q, k, v = (_pad(_pad(x, 1, -(-length // block) * block), 3, width) for x in (q, k, v))
    block_k = block if width <= 64 else min(64, block)  # shared memory
    sizes = kernel.BlockSizes(block, block_k, *[min(32, block)] * 4)  # the last four: backward
    ids = _pad(_segments(spec), 1, q.shape[1], -1)
    out: Any = kernel.mha(
        q, k, v, ids, sm_scale=scale, causal=spec.causal, block_sizes=sizes, interpret=interpret
    )
    return out[:, :length, :, :head_dim]


def _splash(q, k, v, spec, *, scale, softcap, window, interpret):
    """Splash attention (Pallas, TPU): blocks that the mask empties are skipped."""
    from jax.experimental.pallas.ops.tpu import splash_attention as kernel

    length = q.shape[1]
    padded = -(-length // SPLASH_BLOCK) * SPLASH_BLOCK
    b = next(size for size in (512, 256, 128) if padded % size == 0)
    shape = (padded, padded)
    mask = kernel.FullMask(shape)
    if spec.causal:
        mask = kernel.LocalMask(shape, (None if window is None else window - 1, 0), 0)
    run = kernel.make_splash_mha_single_device(
        mask=kernel.MultiHeadMask([mask] * q.shape[2]),
        block_sizes=kernel.BlockSizes(b, b, b, b, b, b, b, b),
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )
    q = (q.astype(jnp.float32) * scale).astype(q.dtype)  # the kernel has no scale of its own
    q, k, v = (_pad(x, 1, padded).transpose(0, 2, 1, 3) for x in (q, k, v))  # [B, N, T, H]
    ids = _pad(_segments(spec), 1, padded, -1)
    out: Any = jax.vmap(run)(q, k, v, kernel.SegmentIds(q=ids, kv=ids))
    return out.transpose(0, 2, 1, 3)[:, :length]


def _segments(spec: MaskSpec) -> Int[Array, "B S"]:
    """The rule but for causality as segment ids; padding is a segment too: no query is keyless."""
    return jnp.where(spec.attention_mask, 0 if spec.segment_ids is None else spec.segment_ids, -1)


def _repeat_heads(q, k, v):
    groups = q.shape[2] // k.shape[2]
    return jnp.repeat(k, groups, axis=2), jnp.repeat(v, groups, axis=2)


def _pad(x: Array, axis: int, size: int, value: int = 0) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths, constant_values=value)


def _power_of_two(size: int) -> int:
    """The next power of two, at least 16: the smallest tile of a tensor core."""
    return max(16, 1 << (size - 1).bit_length())
