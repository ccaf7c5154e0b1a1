"""NV-Embed in JAX/Flax.

Shape legend of the whole package: B texts, R packed rows, T tokens, S key tokens, D embed_dim, N
heads, K kv heads, G = N/K, H head_dim, F mlp_dim, L latents, Q queries, P passages, V vocabulary.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nvembed_jax.version import __version__

if TYPE_CHECKING:
    from nvembed_jax.checkpoint import convert_checkpoint, export_checkpoint
    from nvembed_jax.encoder import Embedder

_LAZY = {
    "Embedder": "nvembed_jax.encoder",
    "convert_checkpoint": "nvembed_jax.checkpoint",
    "export_checkpoint": "nvembed_jax.checkpoint",
}
__all__ = ["Embedder", "__version__", "convert_checkpoint", "export_checkpoint"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
