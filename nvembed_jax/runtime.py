"""What the process runs with: default dtype, compilation cache, progress bars."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

DTYPES = ("float32", "bfloat16", "float16")


def compute_dtype(dtype: Any = None) -> Any:
    """A dtype for weights and activations; None: bfloat16 on accelerators, float32 on CPUs."""
    default = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    try:
        name = default if dtype is None else jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    return jnp.dtype(name)


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk: in NVEMBED_COMPILATION_CACHE ("0": nowhere), by default in
    ~/.cache/nvembed_jax/xla. A directory that was set in JAX itself is left alone.
    """
    default = str(Path.home() / ".cache" / "nvembed_jax" / "xla")
    where = os.environ.get("NVEMBED_COMPILATION_CACHE", default)
    if where == "0" or getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    jax.config.update("jax_compilation_cache_dir", where)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def progress_bar(total: int, show: bool | None, unit: str = "text") -> Any:
    """A bar on standard error; None shows it on a terminal, for work of more than a second."""
    from tqdm.auto import tqdm

    disable = None if show is None else not show
    return tqdm(total=total, unit=unit, disable=disable, delay=1.0 if show is None else 0.0)
