"""The trained model as a folder: adapters merged, gathered from all processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from nvembed_jax.checkpoint.store import save_model
from nvembed_jax.train.recipe import Recipe
from nvembed_jax.train.start import Start
from nvembed_jax.train.trainable import merged_params


def save_trained(folder: Path, recipe: Recipe, start: Start, trainable: Any) -> None:
    """Writes the model folder, in the compute dtype; whole or not at all."""
    merge = jax.jit(lambda trainable, frozen: merged_params(recipe.trainable, trainable, frozen))
    params = merge(trainable, start.frozen)
    if jax.process_count() > 1:
        params = _gathered(params)
    if jax.process_index() == 0:
        files = {path.name: path.read_bytes() for path in start.tokenizer.files}
        dtype = jnp.dtype(recipe.compute.resolve().dtype).name
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(folder, start.config, params, tokenizer_files=files, dtype=dtype, overwrite=True)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("model saved")


def _gathered(params: Any) -> dict[str, Any]:
    """Every leaf whole, in the memory of every process."""
    from jax.experimental import multihost_utils

    flat = flatten_dict(params, sep=".")
    whole = {
        name: np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        for name, leaf in flat.items()
    }
    return unflatten_dict(whole, sep=".")
