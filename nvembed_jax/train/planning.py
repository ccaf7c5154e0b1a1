"""Memory plans of a whole recipe from shapes alone: no weights, no data, no devices needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

from nvembed_jax.sharding import AXES
from nvembed_jax.train.memory import MemoryPlan
from nvembed_jax.train.program import Program
from nvembed_jax.train.recipe import Recipe
from nvembed_jax.train.start import abstract_start, resolve_config


def recipe_plans(recipe: Recipe, devices: int = 0, limit: int = 0) -> Iterator[str]:
    """A text a stage: what each of its devices will hold.

    Args:
        devices: of the mesh; 0: as many as the recipe's mesh names, else those of this machine.
        limit: bytes of a device; 0: not known.
    """
    for name, plan in plan_stages(recipe, devices, limit).items():
        yield f"{recipe.name}, {name}: memory of a device\n{plan.table()}"


def plan_stages(recipe: Recipe, devices: int = 0, limit: int = 0) -> dict[str, MemoryPlan]:
    """The plan of every stage that takes steps."""
    # A named config says all sizes: no checkpoint is looked for.
    config = recipe.model.resolve() if recipe.model.named else resolve_config(recipe)[0]
    trainable, frozen = abstract_start(recipe, config)
    mesh = abstract_mesh(recipe, devices)
    plans = {}
    for name, stage in recipe.stages.items():
        if stage.steps:
            program = Program(recipe, stage, config, mesh)
            plans[name] = program.plan(program.abstract_state(trainable), frozen, limit)
    return plans


def abstract_mesh(recipe: Recipe, devices: int = 0) -> Any:
    """The recipe's mesh without devices."""
    sizes = asdict(recipe.mesh)
    fixed = 1
    for size in sizes.values():
        fixed *= max(size, 1)
    left = (devices or max(fixed, jax.device_count())) // fixed
    shape = tuple(left if sizes[axis] == -1 else sizes[axis] for axis in AXES)
    return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))
