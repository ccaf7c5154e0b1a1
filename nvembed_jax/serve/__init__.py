"""A server of embeddings: request -> tokens -> batches of many requests -> response. HTTP stands in
`app`, gRPC in `rpc`, the queue and the device thread in `batcher`, what a request asks for in
`service`.
"""

from __future__ import annotations

import importlib.util

from nvembed_jax.serve.settings import ServerSettings

__all__ = ["ServerSettings", "check_packages"]

PACKAGES = ("fastapi", "orjson", "prometheus_client", "uvicorn")
RPC_PACKAGES = ("google.protobuf", "grpc")


def check_packages(with_rpc: bool = False) -> None:
    """Raises ImportError, which names the extra, where a package of the server is missing."""
    wanted = (*PACKAGES, *RPC_PACKAGES) if with_rpc else PACKAGES
    missing = [name for name in wanted if not _is_installed(name)]
    if missing:
        raise ImportError(
            f"the server needs {', '.join(missing)}, which the lean install leaves out: "
            'pip install "nvembed_jax[serve]"'
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
