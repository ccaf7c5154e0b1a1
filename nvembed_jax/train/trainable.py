"""What is trained and what stays: parameters cut in two by name, adapters beside them, and the
whole model put together again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from nvembed_jax.model.lora import LoraConfig, init_adapters, merge_adapters, with_adapters
from nvembed_jax.sharding import is_matrix


@dataclass(frozen=True, kw_only=True)
class TrainableConfig:
    """Which parameters are trained.

    Attributes:
        full: regular expressions of names ("pooling\\\\..*") that are trained in full.
        frozen: names that are not, though `full` matches them.
        lora: pairs beside frozen matrices; None: none. The paper's set-up is LoRA on the backbone
            and `full=("pooling\\\\..*",)`.
    """

    full: tuple[str, ...] = (".*",)
    frozen: tuple[str, ...] = ()
    lora: LoraConfig | None = None


def split_params(config: TrainableConfig, params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trained in full, frozen): two nested dicts that hold every leaf of `params` once.

    Raises:
        ValueError: an expression that matches nothing, or nothing left to train.
    """
    flat = flatten_dict(params, sep=".")
    for pattern in (*config.full, *config.frozen):
        if not any(re.fullmatch(pattern, name) for name in flat):
            raise ValueError(
                f"trainable: {pattern!r} matches no parameter; names are like "
                f"{', '.join(sorted(flat)[:3])}"
            )

    def trained(name: str) -> bool:
        matches = [
            any(re.fullmatch(p, name) for p in group) for group in (config.full, config.frozen)
        ]
        return matches[0] and not matches[1]

    parts = ({n: v for n, v in flat.items() if trained(n) == wanted} for wanted in (True, False))
    full, frozen = (unflatten_dict(part, sep=".") for part in parts)
    if not full and config.lora is None:
        raise ValueError("nothing is trained: no parameter is in `full` and there is no `lora`")
    return full, frozen


def init_trainable(config: TrainableConfig, params: Any, key: Any) -> dict[str, Any]:
    """{"full": leaves in float32, "lora": adapters} at the first step."""
    full, _ = split_params(config, params)
    out = {"full": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), full)}
    if config.lora is not None:
        out["lora"] = init_adapters(config.lora, params, key)
    return out


def model_params(
    config: TrainableConfig, trainable: Any, frozen: Any, dtype: Any, key: Any = None
) -> dict[str, Any]:
    """The parameters that `embed` runs on: adapters laid over, float32 matrices in `dtype`.

    Args:
        key: of this step's adapter dropout; None: none.
    """
    params = merge_trees(frozen, trainable["full"])
    if config.lora is not None:
        params = with_adapters(params, trainable["lora"], config.lora, key)
    # Cast before use: a sharded matrix is then gathered in the compute dtype.
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _cast(path, leaf, dtype), params)


def merged_params(config: TrainableConfig, trainable: Any, frozen: Any) -> dict[str, Any]:
    """The trained model's plain parameters: adapters merged into the matrices."""
    params = merge_trees(frozen, trainable["full"])
    return params if config.lora is None else merge_adapters(params, trainable["lora"], config.lora)


def merge_trees(*trees: Any) -> dict[str, Any]:
    """Nested dicts with different leaves, as one."""
    flat: dict[str, Any] = {}
    for tree in trees:
        flat.update(flatten_dict(tree, sep="."))
    return unflatten_dict(flat, sep=".")


def _cast(path: Any, leaf: Any, dtype: Any) -> Any:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return leaf.astype(dtype) if is_matrix(name, leaf.ndim) else leaf
