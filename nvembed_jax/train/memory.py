"""The memory plan: what a device will hold, from shapes alone, before anything is allocated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from nvembed_jax.config import BertConfig, ModelConfig
from nvembed_jax.model.compute import Compute
from nvembed_jax.sharding import batch_shards, param_shardings

_MENDS = (
    "use a smaller chunk_size (GradCache), compute.remat='full', more fsdp devices, LoRA in place "
    "of full training, or shorter texts"
)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one device, by what they are for.

    Attributes:
        parts: name -> bytes. limit: bytes that the device has; 0: not known.
    """

    parts: dict[str, int]
    limit: int = 0

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(self.parts.values())

    def check(self) -> None:
        """Raises MemoryError, with the numbers, if it will not fit."""
        if self.limit and self.total > self.limit:
            raise MemoryError(f"this run does not fit one device: {self.summary()}; {_MENDS}")

    def summary(self) -> str:
        """One line."""
        largest = sorted(self.parts.items(), key=lambda item: -item[1])
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in largest if size)
        limit = f" of {_gib(self.limit)}" if self.limit else ""
        return f"{_gib(self.total)}{limit} planned ({parts})"

    def table(self) -> str:
        """A line a part."""
        rows = [*self.parts.items(), ("total", self.total)]
        if self.limit:
            rows.append(("device", self.limit))
        return "\n".join(f"  {name:<28}{_gib(size):>12}" for name, size in rows)


@dataclass(frozen=True, kw_only=True)
class StageShape:
    """The sizes of one step that memory depends on.

    Attributes:
        queries, passages: texts of a micro-batch, over all devices. chunk: texts embedded at once.
        length: tokens of the longest text.
        cached: whether gradients are summed over chunks or micro-batches.
    """

    queries: int
    passages: int
    chunk: int
    length: int
    cached: bool = False
    full_scores: bool = True


def plan_memory(
    config: ModelConfig,
    compute: Compute,
    mesh: Any,
    *,
    frozen: Any,
    state: Any,
    stage: StageShape,
    limit: int = 0,
) -> MemoryPlan:
    """The plan of one stage.

    Args:
        frozen, state: abstract (or real) frozen parameters and `TrainState`.
        limit: bytes of a device; 0: not known.
    """
    trained = tree_bytes(mesh, state.trainable)
    shards = batch_shards(mesh)
    rows = max(1, -(-stage.chunk // shards))
    wide = stage.queries + stage.passages
    scores = stage.passages if stage.full_scores else stage.passages // max(stage.queries, 1)
    width = config.embed_dim
    parts = {
        "frozen weights": tree_bytes(mesh, frozen),
        "trained weights (float32)": trained,
        "optimizer state": tree_bytes(mesh, state.opt_state),
        "running mean": tree_bytes(mesh, state.ema),
        "gradients": trained * (2 if stage.cached else 1),
        "weights in compute dtype": _working_weights(compute, mesh, frozen, state.trainable),
        "activations": activation_bytes(config, compute, mesh, rows, stage.length),
        # Embeddings of the whole batch meet on every device, with their gradients.
        "embeddings": 2 * 4 * wide * width,
        "scores": 3 * 4 * -(-stage.queries // shards) * scores,
    }
    return MemoryPlan(parts, limit)


def tree_bytes(mesh: Any, tree: Any) -> int:
    """Bytes of a tree of arrays on one device of the mesh."""
    places = jax.tree.leaves(param_shardings(mesh, tree))
    return sum(
        int(np.prod(place.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf, place in zip(jax.tree.leaves(tree), places, strict=True)
    )


def activation_bytes(
    config: ModelConfig, compute: Compute, mesh: Any, rows: int, length: int
) -> int:
    """Of one chunk's forward and backward pass on one device.

    Kept of every layer: its input ("full"), the results of its matmuls too ("dots"), or what norms,
    activations and attention are made from as well ("none"); and all of one layer and of the
    pooling while their gradients are made.
    """
    backbone, tensor = config.backbone, mesh.shape.get("tensor", 1)
    size, tokens = np.dtype(compute.dtype).itemsize, rows * length
    if isinstance(backbone, BertConfig):
        heads, attention, mlp = backbone.num_heads, 4 * backbone.embed_dim, 2 * backbone.mlp_dim
    else:
        heads = backbone.num_heads
        attention = backbone.head_dim * (2 * heads + 2 * backbone.num_kv_heads)
        mlp = 4 * backbone.mlp_dim
    dots = tokens * size * (attention + mlp) // tensor
    # XLA's attention forms the scores, in float32 and again as weights; fused kernels do not.
    fused = compute.kernel not in ("auto", "xla") or compute.dtype != np.float32
    scores = 0 if fused else 2 * 4 * rows * heads * length * length // tensor
    layer = dots + scores + tokens * backbone.embed_dim * (2 * size + 2 * 4)
    kept = {
        "full": tokens * backbone.embed_dim * size,
        "dots": dots + tokens * backbone.embed_dim * size,
        "none": layer - scores,
    }[compute.remat]
    return backbone.num_layers * kept + max(
        2 * layer, _pooling_bytes(config, tokens, size) // tensor
    )


def device_limit() -> int:
    """Bytes that one device of this process may use; simulated CPU devices share the machine's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform != "cpu":
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def _pooling_bytes(config: ModelConfig, tokens: int, size: int) -> int:
    """All of the pooling block, twice: values and gradients."""
    width = config.backbone.embed_dim
    if config.pooling == "latent" and config.latent is not None:
        latent = config.latent
        inner = latent.num_cross_heads * latent.cross_head_dim
        scores = latent.num_cross_heads * latent.num_latents
        wide = size * (2 * inner + 3 * latent.mlp_multiplier * width) + (4 + size) * scores
        return 2 * tokens * (wide + 4 * width)
    if config.pooling == "self_attention" and config.self_attention_pooling is not None:
        multiplier = config.self_attention_pooling.mlp_multiplier
        return 2 * tokens * size * (5 + 3 * multiplier) * width
    return 2 * tokens * 4 * width


def _working_weights(compute: Compute, mesh: Any, frozen: Any, trainable: Any) -> int:
    """Copies in the compute dtype: of what is trained, and of a layer that `fsdp` gathers."""
    size = np.dtype(compute.dtype).itemsize
    cast = tree_bytes(mesh, trainable) * size // 4 if size < 4 else 0
    fsdp = mesh.shape.get("fsdp", 1)
    if fsdp == 1:
        return cast
    leaves = [leaf for tree in (frozen, trainable) for leaf in jax.tree.leaves(tree)]
    stacked = [int(np.prod(leaf.shape[1:])) for leaf in leaves if leaf.ndim == 3]
    gathered = max(sum(stacked), max((int(np.prod(leaf.shape)) for leaf in leaves), default=0))
    return cast + 2 * size * gathered // mesh.shape.get("tensor", 1)


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
