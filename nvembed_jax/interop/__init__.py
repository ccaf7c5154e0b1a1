"""Other systems' models and formats: models behind HTTP endpoints with the calls of `Embedder`."""

from nvembed_jax.interop.endpoint import Endpoint, is_remote, make_endpoint, parse_spec
from nvembed_jax.interop.remote import RemoteEmbedder, open_model

__all__ = [
    "Endpoint",
    "RemoteEmbedder",
    "is_remote",
    "make_endpoint",
    "open_model",
    "parse_spec",
]
