"""Linear, norms, embeddings, rotary positions and the gated feed-forward blocks: the parts every
family is made of.

Matrices are stored as published, [out, in]. Operands are in the compute dtype, accumulation and
norms in float32 (on CPUs asking for a float32 result is also what selects the native bfloat16
kernels).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Num

from nvembed_jax.config import DecoderConfig
from nvembed_jax.model.compute import Compute
from nvembed_jax.model.contract import contract
from nvembed_jax.sharding import batch_sharding, batch_shards


def gelu_erf(x: Float[Array, "*batch F"]) -> Float[Array, "*batch F"]:
    """Exact GELU as published models compute it; `jax.nn.gelu` goes through erfc, 6 % slower to run
    in a whole MiniLM on CPUs, and differs by rounding only.
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * 2**-0.5))


ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": gelu_erf,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "identity": lambda x: x,
    "tanh": jnp.tanh,
}
# What a backward pass keeps of a layer: only its input; or the results of its matmuls with weights.
REMAT_POLICIES = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
_matrix_init = nn.initializers.normal(0.02)


def project(
    x: Num[Array, "*batch D"],
    weight: Num[Array, "F D"],
    bias: Any,
    dtype: Any,
    out_dtype: Any = None,
) -> Num[Array, "*batch F"]:
    """`x @ weight.T + bias`: operands in `dtype`, sums in float32, the result in `out_dtype` or
    `dtype`."""
    lead = "ABC"[: x.ndim - 1]
    out = contract(f"{lead}D,FD->{lead}F", x, weight, dtype)
    if bias is not None:
        out = out + bias.astype(jnp.float32)
    return out.astype(out_dtype or dtype)


def parameter(module: nn.Module, name: str, init: Any, shape: tuple[int, ...]) -> Array:
    """`module.param`, without tracing the initialiser again where the parameter is given."""
    if not module.has_variable("params", name):
        return module.param(name, init, shape)
    value = module.get_variable("params", name)
    if value.shape != shape:
        path = ".".join((*module.path, name))
        raise ValueError(f"{path} has shape {value.shape}; the config needs {shape}")
    return value


def split_by_rows(x: Num[Array, "B ..."], compute: Compute) -> Num[Array, "B ..."]:
    """`x` with its rows over `data` and `fsdp`, and nothing else split.

    Without it the compiler spreads the split of the weights (`fsdp`) to the width of activations,
    and rows travel between devices at every norm.
    """
    if compute.mesh is None or x.shape[0] % batch_shards(compute.mesh):
        return x
    return jax.lax.with_sharding_constraint(x, batch_sharding(compute.mesh))


def whole(x: Num[Array, "*shape"], compute: Compute) -> Num[Array, "*shape"]:
    """`x` (and its gradient) complete on every device."""
    if compute.mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(compute.mesh, PartitionSpec()))


def rematerialized(layer: type[nn.Module], compute: Compute, scanned: bool) -> Any:
    """`layer`, recomputed in the backward pass as far as `compute.remat` says."""
    if compute.remat == "none":
        return layer
    return nn.remat(layer, prevent_cse=not scanned, policy=REMAT_POLICIES[compute.remat])


def scanned(layer: type[nn.Module], compute: Compute, length: int, in_axes: Any) -> Any:
    """`length` layers as one module over stacked parameters [L, ...], carrying the first argument.

    Args:
        in_axes: of the other arguments: `nn.broadcast`, or 0 for one slice a layer.
    """
    return nn.scan(
        rematerialized(layer, compute, scanned=True),
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=length,
        unroll=min(compute.unroll, length),
    )


def recomputed(function: Any, *args: Any) -> Any:
    """`function(*args)`, of which the backward pass keeps the arguments only.

    For what costs memory traffic and next to no arithmetic: norms, activations, attention weights.
    Their float32 intermediates would be several times the size of what they are made from.
    """
    return jax.checkpoint(function, prevent_cse=False)(*args)


class Linear(nn.Module):
    """A dense layer, `weight` [out, in] and an optional `bias` [out].

    Where the parameters hold a LoRA pair too, `lora_a` [r, in] and `lora_b` [out, r]
    (`model/lora.py`), its product is added without ever being formed.
    """

    features: int
    use_bias: bool = False
    compute: Compute = Compute()
    out_dtype: Any = None

    @nn.compact
    def __call__(self, x: Num[Array, "*batch D"]) -> Num[Array, "*batch F"]:
        weight = parameter(self, "weight", _matrix_init, (self.features, x.shape[-1]))
        bias = (
            parameter(self, "bias", nn.initializers.zeros, (self.features,))
            if self.use_bias
            else None
        )
        dtype = self.compute.dtype
        if not self.has_variable("params", "lora_a"):
            return project(x, weight, bias, dtype, self.out_dtype)
        lora_a, lora_b = (self.get_variable("params", name) for name in ("lora_a", "lora_b"))
        out = project(x, weight, bias, dtype, jnp.float32)
        out = out + project(project(x, lora_a, None, dtype), lora_b, None, dtype, jnp.float32)
        return out.astype(self.out_dtype or dtype)


class Embedding(nn.Module):
    """A table `weight` [V, D]."""

    num_embeddings: int
    features: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, ids: Int[Array, "*batch"]) -> Num[Array, "*batch D"]:
        table = parameter(self, "weight", _matrix_init, (self.num_embeddings, self.features))
        if self.compute.mesh is not None:  # gathered for the lookup: rows stay where they are
            table = whole(table.astype(self.compute.dtype), self.compute)
        return jnp.take(table, ids, axis=0, mode="clip").astype(self.compute.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm; `offset` 1 where weights are stored less one (Gemma)."""

    eps: float
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Num[Array, "*batch D"]) -> Num[Array, "*batch D"]:
        weight = parameter(
            self, "weight", nn.initializers.constant(1.0 - self.offset), (x.shape[-1],)
        )

        def normed(x: Any, weight: Any) -> Any:
            value = x.astype(jnp.float32)
            value = value * jax.lax.rsqrt(jnp.mean(value * value, -1, keepdims=True) + self.eps)
            return (value * (weight.astype(jnp.float32) + self.offset)).astype(x.dtype)

        return recomputed(normed, x, weight)


def standardize(x: Num[Array, "*batch D"], eps: float) -> Float[Array, "*batch D"]:
    """Zero mean and unit variance over the last axis, in float32."""
    value = x.astype(jnp.float32)
    value = value - jnp.mean(value, -1, keepdims=True)
    return value * jax.lax.rsqrt(jnp.mean(value * value, -1, keepdims=True) + eps)


class LayerNorm(nn.Module):
    """Layer norm with `weight` and `bias` [D]."""

    eps: float

    @nn.compact
    def __call__(self, x: Num[Array, "*batch D"]) -> Num[Array, "*batch D"]:
        weight = parameter(self, "weight", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
        bias = parameter(self, "bias", nn.initializers.zeros, (x.shape[-1],)).astype(jnp.float32)

        def normed(x: Any, weight: Any, bias: Any) -> Any:
            return (standardize(x, self.eps) * weight + bias).astype(x.dtype)

        return recomputed(normed, x, weight, bias)


def rotary_table(
    positions: Int[Array, "B T"], head_dim: int, theta: float
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Cosines and sines of rotary position embedding (RoFormer), float32."""
    frequency = theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = positions[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Num[Array, "B T N H"], table: tuple[Float[Array, "B T half"], Float[Array, "B T half"]]
) -> Num[Array, "B T N H"]:
    """Rotates the halves of every head (the layout of Hugging Face checkpoints)."""
    cos, sin = (part[:, :, None, :] for part in table)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return out.astype(x.dtype)


class GatedMLP(nn.Module):
    """`down(act(gate(x)) * up(x))`: SwiGLU for Mistral and Qwen2, tanh-GELU for Gemma 2."""

    config: DecoderConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"]) -> Num[Array, "B T D"]:
        config, compute = self.config, self.compute
        act = ACTIVATIONS[config.activation]
        gate = Linear(config.mlp_dim, compute=compute, name="gate_proj")(x)
        up = Linear(config.mlp_dim, compute=compute, name="up_proj")(x)

        def gated(gate: Any, up: Any) -> Any:
            return (act(gate.astype(jnp.float32)) * up.astype(jnp.float32)).astype(compute.dtype)

        hidden = recomputed(gated, gate, up)
        return Linear(config.embed_dim, compute=compute, name="down_proj")(hidden)


def geglu(x: Num[Array, "*batch twoF"]) -> Num[Array, "*batch F"]:
    """`value * gelu(gate)`; the first half is the value (as published), GELU in the erf form."""
    value, gate = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return (value * ACTIVATIONS["gelu"](gate)).astype(x.dtype)


class GEGLUFeedForward(nn.Module):
    """The feed-forward block of the poolings: pre-norm, GEGLU, without the residual."""

    multiplier: int
    eps: float
    compute: Compute

    @nn.compact
    def __call__(self, x: Num[Array, "B T D"]) -> Num[Array, "B T D"]:
        width = x.shape[-1] * self.multiplier
        hidden = LayerNorm(self.eps, name="norm")(x)
        hidden = Linear(2 * width, use_bias=True, compute=self.compute, name="up")(hidden)
        return Linear(x.shape[-1], use_bias=True, compute=self.compute, name="down")(
            recomputed(geglu, hidden)
        )
