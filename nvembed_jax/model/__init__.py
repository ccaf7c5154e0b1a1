"""The models: token batches in, embeddings out. Pure functions of a frozen config and a nested
dict of arrays."""

from nvembed_jax.model.compute import Compute
from nvembed_jax.model.embedding_model import (
    abstract_params,
    embed,
    init_params,
    l2_normalize,
    unstack_layers,
)
from nvembed_jax.model.latent_fold import fold_latents

__all__ = [
    "Compute",
    "abstract_params",
    "embed",
    "fold_latents",
    "init_params",
    "l2_normalize",
    "unstack_layers",
]
