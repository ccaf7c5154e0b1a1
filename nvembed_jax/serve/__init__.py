"""A server of embeddings: request -> tokens -> batches of many requests -> response. HTTP stands in
`app`, the queue and the device thread in `batcher`, what both carry out in `service`.
"""

from __future__ import annotations

import importlib.util

from nvembed_jax.serve.settings import ServerSettings

__all__ = ["ServerSettings", "check_packages"]

PACKAGES = ("fastapi", "orjson", "prometheus_client", "uvicorn")


def check_packages() -> None:
    """Raises ImportError, which names the extra, where a package of the server is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the server needs {', '.join(missing)}, which the lean install leaves out: "
            'pip install "nvembed_jax[serve]"'
        )
