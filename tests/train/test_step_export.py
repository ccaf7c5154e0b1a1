"""The train step lowers for all platforms, and memory stays flat under GradCache."""

from __future__ import annotations

import dataclasses

import jax
import jax.export
import pytest
import training_steps as steps

from nvembed_jax.sharding import make_mesh
from nvembed_jax.train.recipe import ComputeConfig


def test_the_step_exports_for_cpu_cuda_and_tpu_on_eight_devices():
    recipe = steps.recipe(steps.PAPER, chunk_size=32, optimizer={"warmup_steps": 0})
    recipe = dataclasses.replace(recipe, compute=ComputeConfig(kernel="xla", remat="full"))
    stepper = steps.Stepper(recipe, make_mesh(data=2, fsdp=2, tensor=2))
    args = (stepper.state, stepper.frozen, stepper.place(steps.batch()))
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), args
    )
    exported = jax.export.export(stepper.program.step, platforms=("cpu", "cuda", "tpu"))(*shapes)
    assert exported.nr_devices == 8
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    assert "stablehlo" in exported.mlir_module()


@pytest.mark.parametrize("chunk", [0, 32])
def test_activations_do_not_grow_with_the_batch_under_gradcache(chunk):
    """What is left of the peak: embeddings and scores, which grow as they must."""
    used = []
    for rows in (32, 128):
        recipe = steps.recipe(batch_size=rows, chunk_size=chunk)
        compiled = steps.Stepper(recipe).compiled(steps.batch(rows))
        needed = 4 * (4 * rows * 32 * 4 + 3 * rows * rows * 4)  # embeddings twice, scores thrice
        used.append(compiled.memory_analysis().temp_size_in_bytes - needed)
    grown = used[1] / used[0]
    assert (grown > 3) if chunk == 0 else (grown < 1.35), grown
