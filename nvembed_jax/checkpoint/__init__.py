"""Checkpoints: published folders in, our model folders out, and back; loading with any sharding."""

from nvembed_jax.checkpoint.export import export_checkpoint
from nvembed_jax.checkpoint.hf_convert import convert_checkpoint
from nvembed_jax.checkpoint.shapes import expected_shapes
from nvembed_jax.checkpoint.store import load_config, load_params, resolve_model, save_model

__all__ = [
    "convert_checkpoint",
    "expected_shapes",
    "export_checkpoint",
    "load_config",
    "load_params",
    "resolve_model",
    "save_model",
]
