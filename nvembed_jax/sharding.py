"""Meshes, and where parameters and batches live on them: parameter name -> logical axes -> mesh
axes -> sharding.

Mesh axes: `data` (copies of the model), `fsdp` (parameters split, gathered for use), `tensor`
(heads and MLP split). Batches are split over `data` and `fsdp`. Everything is plain `jax.jit` with
shardings (what pjit became).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AnyMesh = Mesh | AbstractMesh
AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
RULES: dict[str, str | None] = {
    "vocab": "tensor",
    "heads": "tensor",
    "mlp": "tensor",
    "embed": "fsdp",
    "fused": None,
}
# Owner of a `weight` [out, in] -> its logical axes; the bias has the first of them. Anything else
# is replicated.
_LOGICAL = {
    **dict.fromkeys(("embed_tokens", "word_embeddings"), ("vocab", "embed")),
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "to_q", "scores"), ("heads", "embed")),
    **dict.fromkeys(("o_proj", "to_out", "values"), ("embed", "heads")),
    **dict.fromkeys(("gate_proj", "up_proj"), ("mlp", "embed")),
    "down_proj": ("embed", "mlp"),
    # The pooling's fused matrices [value; gate] and [k; v] stay whole on `tensor`: their halves
    # would lie on different devices, and what they make would travel.
    **dict.fromkeys(("up", "to_kv"), ("fused", "embed")),
    "down": ("embed", "fused"),
}
_logger = logging.getLogger(__name__)


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh with axes `data`, `fsdp`, `tensor`; one size may be -1: whatever is left of the
    devices.

    Raises ValueError if the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        given = dict(zip(AXES, sizes, strict=True))
        raise ValueError(f"mesh sizes must be positive, at most one -1; got {given}")
    fixed = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if int(np.prod(sizes)) != len(devices):
        raise ValueError(
            f"mesh {dict(zip(AXES, sizes, strict=True))} does not fill {len(devices)} devices; "
            "choose sizes whose product is the number of devices"
        )
    return jax.make_mesh(sizes, AXES, devices=devices, axis_types=(AxisType.Auto,) * len(AXES))


def logical_axes(name: str, ndim: int) -> tuple[str | None, ...]:
    """Logical axes of the parameter `name` ("backbone.layers.mlp.up_proj.weight"); leading axes
    are stacked layers."""
    *_, owner, kind = ("", *name.split("."))
    own: tuple[str | None, ...] = _LOGICAL.get(owner, ())
    if kind == "bias":
        own = own[:1]
    elif kind in ("lora_a", "lora_b") and own:
        own = (None, own[1]) if kind == "lora_a" else (own[0], None)
    elif kind != "weight":
        own = ()
    if len(own) > ndim:  # an optimizer's row or column statistics
        own = ()
    return (None,) * (ndim - len(own)) + own


def is_matrix(name: str, ndim: int) -> bool:
    """Whether the parameter `name` multiplies activations: no norm, bias or latents."""
    return not name.endswith(".bias") and any(logical_axes(name, ndim))


def param_spec(mesh: AnyMesh, name: str, shape: Sequence[int]) -> PartitionSpec:
    """Partition of one parameter. A dimension that its mesh axis does not divide stays whole."""
    spec = []
    for size, logical in zip(shape, logical_axes(name, len(shape)), strict=True):
        axis = RULES[logical] if logical else None
        if axis is not None and size % mesh.shape.get(axis, 1):
            _logger.info(
                "%s: %d does not split over %s=%d; kept whole", name, size, axis, mesh.shape[axis]
            )
            axis = None
        spec.append(axis if axis in mesh.shape else None)
    return PartitionSpec(*spec)


def param_shardings(mesh: AnyMesh, params: Any) -> Any:
    """The sharding of every leaf of `params` (arrays or abstract shapes), same structure."""

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return NamedSharding(mesh, param_spec(mesh, name, leaf.shape))

    return jax.tree_util.tree_map_with_path(place, params)


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """Rows of a batch over `data` and `fsdp`."""
    return NamedSharding(
        mesh, PartitionSpec(tuple(axis for axis in BATCH_AXES if axis in mesh.shape))
    )


def batch_shards(mesh: AnyMesh | None) -> int:
    """How many parts the rows of a batch are split into."""
    return 1 if mesh is None else int(np.prod([mesh.shape.get(axis, 1) for axis in BATCH_AXES]))
