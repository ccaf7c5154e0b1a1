"""The command line of the trainer, for `nvembed train` and `python -m nvembed_jax.train`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nvembed_jax.train.config_file import load_config, parse_overrides

PACKAGES = ("grain", "ml_collections", "optax", "orbax")
STOPPED = 143  # 128 + SIGTERM: asked to stop, and did, with everything saved


def run(
    config: str,
    workdir: Path,
    overrides: Sequence[str] = (),
    *,
    distributed: bool = False,
    plan_only: bool = False,
    progress: bool | None = None,
) -> int:
    """Trains; returns the exit code.

    Args:
        config: FILE.py or FILE.py:ARGUMENT. overrides: "--config.key=value" as typed.
        distributed: one of several processes; their addresses come from SLURM, GKE, a TPU pod or
            JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
        plan_only: print the memory plan of every stage and stop; nothing is loaded.

    Raises:
        ImportError: the extra `train` is not installed. ValueError, OSError, MemoryError: as
            `train`.
    """
    _check_packages()
    if distributed:
        _join_processes()
    from nvembed_jax.train.recipe import parse_recipe

    recipe = parse_recipe(load_config(config, parse_overrides(overrides)))
    if plan_only:
        from nvembed_jax.train.planning import recipe_plans

        for text in recipe_plans(recipe):
            print(text)
        return 0
    from nvembed_jax.train.trainer import train

    outcome = train(recipe, workdir, progress=progress)
    return STOPPED if outcome.model is None else 0


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m nvembed_jax.train`: what `nvembed train` does, for launchers of modules."""
    parser = argparse.ArgumentParser("python -m nvembed_jax.train", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE.py")
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--distributed", action="store_true", help="one of several processes")
    parser.add_argument("--plan", action="store_true", help="print the memory plan and stop")
    options, overrides = parser.parse_known_args(argv)
    try:
        return run(
            options.config,
            options.workdir,
            overrides,
            distributed=options.distributed,
            plan_only=options.plan,
        )
    except (ImportError, ValueError, OSError, MemoryError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _check_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"training needs {', '.join(missing)}, which the lean install leaves out; "
            "pip install 'nvembed_jax[train]'"
        )


def _join_processes() -> None:
    import jax

    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        jax.distributed.initialize()
        return
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address, int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    )
