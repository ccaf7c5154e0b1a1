"""LoRA (arXiv 2106.09685): low-rank pairs beside frozen matrices, W + scale * B A.

Adapters are a parameter tree of their own, with `lora_a` [.., r, in] and `lora_b` [.., out, r]
where the model has a `weight` [.., out, in]; laid over the model's tree, `Linear` adds their
product.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

DECODER_MATRICES = (
    r"backbone\.layers\.self_attn\.[qkvo]_proj",
    r"backbone\.layers\.mlp\.(gate|up|down)_proj",
)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which matrices get a pair, and of which rank.

    Attributes:
        rank: r. alpha: the product counts alpha / rank times.
        dropout: share of the input features of A that one step drops: one mask a matrix and step,
            the same for all texts, so that chunking, rematerialisation and meshes change nothing.
        targets: regular expressions; a matrix whose name (without ".weight") one of them matches
            whole is adapted.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = DECODER_MATRICES

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"a LoRA rank must be at least 1; got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA dropout must be in [0, 1); got {self.dropout}")

    @property
    def scale(self) -> float:
        """What the product is multiplied with."""
        return self.alpha / self.rank


def init_adapters(config: LoraConfig, params: Any, key: Any) -> dict[str, Any]:
    """Pairs for the matrices of `params` (arrays or abstract); their product is zero at first.

    A is uniform in ±1/sqrt(in), B zero, both float32; they depend on the name and the key only.

    Raises:
        ValueError: a target that no matrix matches.
    """
    flat: dict[str, Any] = flatten_dict(params, sep=".")  # type: ignore[assignment]
    names = [name.removesuffix(".weight") for name in flat if name.endswith(".weight")]
    for target in config.targets:
        if not any(re.fullmatch(target, name) for name in names):
            raise ValueError(
                f"the LoRA target {target!r} matches no matrix; this model has, for example, "
                f"{', '.join(sorted(names)[:5])}"
            )
    chosen = [n for n in names if any(re.fullmatch(target, n) for target in config.targets)]
    pairs: dict[str, Any] = {}
    for name in chosen:
        *stack, out_dim, in_dim = flat[f"{name}.weight"].shape
        bound = in_dim**-0.5
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        shape = (*stack, config.rank, in_dim)
        pairs[f"{name}.lora_a"] = jax.random.uniform(own, shape, jnp.float32, -bound, bound)
        pairs[f"{name}.lora_b"] = jnp.zeros((*stack, out_dim, config.rank), jnp.float32)
    return unflatten_dict(pairs, sep=".")


def with_adapters(params: Any, adapters: Any, config: LoraConfig, key: Any = None) -> Any:
    """`params` with the pairs laid over it, B scaled; the model then runs adapted.

    Args:
        key: of this step's dropout; None: no dropout (evaluation).
    """
    flat = dict(flatten_dict(params, sep="."))
    pairs: dict[str, Any] = flatten_dict(adapters, sep=".")  # type: ignore[assignment]
    for name, value in pairs.items():
        if name.endswith(".lora_b"):
            value = value * config.scale
        elif key is not None and config.dropout:
            value = _dropped(
                value, config.dropout, jax.random.fold_in(key, zlib.crc32(name.encode()))
            )
        flat[name] = value
    return unflatten_dict(flat, sep=".")


def merge_adapters(params: Any, adapters: Any, config: LoraConfig) -> Any:
    """`params` with scale * B A added to the adapted matrices, in their dtype."""
    flat: dict[str, Any] = dict(flatten_dict(params, sep="."))  # type: ignore[arg-type]
    pairs: dict[str, Any] = flatten_dict(adapters, sep=".")  # type: ignore[assignment]
    for name, lora_b in pairs.items():
        if not name.endswith(".lora_b"):
            continue
        owner = name.removesuffix(".lora_b")
        change = jnp.einsum(
            "...or,...ri->...oi",
            lora_b,
            pairs[f"{owner}.lora_a"],
            precision=jax.lax.Precision.HIGHEST,
        )
        weight = flat[f"{owner}.weight"]
        merged = weight.astype(jnp.float32) + config.scale * change
        flat[f"{owner}.weight"] = merged.astype(weight.dtype)
    return unflatten_dict(flat, sep=".")


def _dropped(lora_a: Any, rate: float, key: Any) -> Any:
    """A with whole input features dropped, the others scaled up."""
    shape = (*lora_a.shape[:-2], 1, lora_a.shape[-1])
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return lora_a * kept / (1 - rate)
