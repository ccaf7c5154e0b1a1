"""Loading model folders into JAX arrays with any sharding; the door to saving and resolving too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nvembed_jax.checkpoint.keys import Parts
from nvembed_jax.checkpoint.model_folder import load_config, open_model, weights_fingerprint
from nvembed_jax.checkpoint.reading import read_slice
from nvembed_jax.checkpoint.resolve import resolve_model
from nvembed_jax.checkpoint.safetensors_io import float_dtype
from nvembed_jax.checkpoint.saving import save_model
from nvembed_jax.checkpoint.shapes import expected_shapes
from nvembed_jax.checkpoint.tree import flatten, unflatten
from nvembed_jax.config import ModelConfig

__all__ = [
    "abstract_leaves",
    "load_config",
    "load_params",
    "resolve_model",
    "save_model",
    "weights_fingerprint",
]


def abstract_leaves(config: ModelConfig, dtype: Any = "float32") -> dict[str, Any]:
    """The parameter tree as `jax.ShapeDtypeStruct`s, from the config alone."""
    kind = float_dtype(dtype)
    shapes = expected_shapes(config)
    return unflatten({name: jax.ShapeDtypeStruct(shape, kind) for name, shape in shapes.items()})


def load_params(
    folder: str | Path,
    config: ModelConfig | None = None,
    *,
    dtype: Any = None,
    shardings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Loads the parameters of a model folder, ours or published.

    Only what the addressable devices need is read, a shard at a time; a shard that several devices
    share is read once. Host memory peaks at one shard.

    Args:
        folder: the model folder.
        config: default: the folder's. One with another pooling loads only what that pooling needs.
        dtype: of all weights; default: as stored.
        shardings: a nested dict of `jax.sharding.Sharding`, as the parameters; None: the default
            device.

    Returns:
        Nested dict of `jax.Array`, layers stacked [L, ...].

    Raises:
        FileNotFoundError, ValueError: a missing or broken folder, or one that does not fit.
    """
    model = open_model(folder)
    shapes = expected_shapes(config or model.config)
    _check_wanted(shapes, model.parts, folder)
    places: Mapping[str, Any] = dict.fromkeys(shapes) if shardings is None else flatten(shardings)
    if places.keys() != shapes.keys():
        odd = sorted(places.keys() ^ shapes.keys())
        raise ValueError(f"shardings and parameters differ in {', '.join(odd[:5])}")
    kind = None if dtype is None else float_dtype(dtype)
    return unflatten({name: _load_leaf(model.parts[name], kind, places[name]) for name in shapes})


def _check_wanted(shapes: Mapping[str, Any], parts: Mapping[str, Parts], folder: Any) -> None:
    for name, shape in shapes.items():
        if name not in parts:
            raise ValueError(
                f"{folder} has no {name!r}, which the asked-for config needs; "
                "was it made for another pooling or backbone?"
            )
        if parts[name].shape != shape:
            raise ValueError(
                f"{folder}: {name!r} has shape {list(parts[name].shape)}; "
                f"the asked-for config needs {list(shape)}"
            )


def _load_leaf(parts: Parts, dtype: np.dtype | None, sharding: Any) -> jax.Array:
    if sharding is None:
        return jax.block_until_ready(jax.device_put(read_slice(parts, dtype=dtype)))
    blocks: dict[tuple[tuple[int, int], ...], list[Any]] = {}
    slices: dict[tuple[tuple[int, int], ...], tuple[slice, ...]] = {}
    for device, index in sharding.addressable_devices_indices_map(parts.shape).items():
        bounds = [part.indices(n)[:2] for part, n in zip(index, parts.shape, strict=True)]
        key = tuple(bounds)
        blocks.setdefault(key, []).append(device)
        slices[key] = index
    arrays = []
    for key, devices in blocks.items():
        block = read_slice(parts, slices[key], dtype)
        # Waiting keeps one host block alive at a time.
        arrays += [jax.block_until_ready(jax.device_put(block, device)) for device in devices]
    return jax.make_array_from_single_device_arrays(parts.shape, sharding, arrays)
