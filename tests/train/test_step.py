"""The step: GradCache, accumulation, meshes, what the compiler makes of it."""

from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
import pytest
import training_steps as steps

from nvembed_jax.sharding import make_mesh
from nvembed_jax.train import grad_cache
from nvembed_jax.train.recipe import ComputeConfig

# Plain SGD, so that parameters move by the gradient: Adam would blow up differences of tiny ones.
SGD = {"name": "sgd", "learning_rate": 1.0, "warmup_steps": 0, "schedule": "constant", "beta1": 0.0}
MESHES = {
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "tensor": {"data": 4, "tensor": 2},
    "mixed": {"data": 2, "fsdp": 2, "tensor": 2},
}


def test_split_rows_is_strided_and_join_rows_undoes_it():
    rows = np.arange(12)[:, None]
    parts = grad_cache.split_rows(rows, 3)
    assert parts[:, :, 0].tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    np.testing.assert_array_equal(grad_cache.join_rows(parts), rows)


@pytest.mark.parametrize(
    ("rows", "size", "shards", "count"),
    [(64, 64, 1, 1), (64, 63, 1, 2), (24, 10, 1, 3), (24, 10, 4, 3), (24, 10, 8, 3), (7, 3, 1, 7)],
)
def test_chunk_count_is_the_fewest_that_divide(rows, size, shards, count):
    assert grad_cache.chunk_count(rows, size, shards) == count


def test_chunk_count_refuses_what_does_not_split():
    with pytest.raises(ValueError, match="multiple of 8"):
        grad_cache.chunk_count(12, 4, 8)


@pytest.mark.parametrize("trainable", [None, steps.PAPER], ids=["full", "lora"])
def test_gradcache_equals_the_full_batch(trainable):
    host = steps.batch()
    whole, metrics = steps.Stepper(steps.recipe(trainable)).gradients(host)
    cached, again = steps.Stepper(steps.recipe(trainable, chunk_size=8)).gradients(host)
    steps.assert_same(cached, whole)
    assert again == pytest.approx(metrics, rel=1e-5, abs=1e-6)


def test_accumulation_is_the_mean_over_micro_batches():
    host = steps.batch()
    got, metrics = steps.Stepper(steps.recipe(accumulate=2)).gradients(host)
    single = steps.Stepper(steps.recipe(batch_size=8))
    parts = [single.gradients(_examples(host, range(first, 16, 2))) for first in (0, 1)]
    (first, loss), (second, other) = parts
    steps.assert_same(got, {k: (first[k] + second[k]) / 2 for k in first})
    assert metrics["loss"] == pytest.approx((loss["loss"] + other["loss"]) / 2, rel=1e-6)


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_rematerialisation_changes_nothing(remat):
    plain, _ = steps.Stepper(_recipe()).gradients(steps.batch())
    recipe = dataclasses.replace(_recipe(), compute=ComputeConfig(remat=remat))
    again, _ = steps.Stepper(recipe).gradients(steps.batch())
    steps.assert_same(again, plain)


@pytest.mark.parametrize("name", MESHES)
def test_eight_devices_equal_one(name, reference_gradients):
    stepper = steps.Stepper(_recipe(), make_mesh(**MESHES[name]))
    got, metrics = stepper.gradients(steps.batch())
    steps.assert_same(got, reference_gradients[0])
    assert metrics == pytest.approx(reference_gradients[1], rel=1e-5, abs=1e-6)


def test_a_step_on_eight_devices_moves_weights_as_one_does():
    results = []
    for mesh in (None, make_mesh(data=2, fsdp=2, tensor=2)):
        stepper = steps.Stepper(_recipe(), mesh)
        results.append(stepper.run(steps.batch(seed=1), steps.batch(seed=2)))
    steps.assert_same(results[1][0], results[0][0])
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["fsdp", "mixed"])
def test_no_rows_move_between_devices(name, capfd):
    stepper = steps.Stepper(_recipe(), make_mesh(**MESHES[name]))
    text = stepper.compiled(steps.batch()).as_text()
    assert "all-reduce" in text
    assert not re.findall(r"all-to-all", text)
    assert "rematerialization" not in capfd.readouterr().err


def test_state_is_born_sharded():
    stepper = steps.Stepper(_recipe(), make_mesh(data=1, fsdp=8))
    latent_up = stepper.state.trainable["full"]["pooling"]["feed_forward"]["up"]["weight"]
    assert latent_up.sharding.shard_shape(latent_up.shape)[1] == latent_up.shape[1] // 8
    moment = stepper.state.opt_state[0]
    assert jax.tree.leaves(stepper.frozen)[0].sharding.mesh.shape["fsdp"] == 8
    assert moment is not None


def test_running_mean_follows_the_weights():
    optimizer = {**SGD, "ema_decay": 0.5}
    stepper = steps.Stepper(steps.recipe(optimizer=optimizer))
    start = jax.device_get(stepper.state.trainable)
    stepper.run(steps.batch())
    now, mean = jax.device_get((stepper.state.trainable, stepper.state.ema))
    jax.tree.map(
        lambda a, b, m: np.testing.assert_allclose(m, (a + b) / 2, rtol=1e-5, atol=1e-7),
        start, now, mean,
    )  # fmt: skip


@pytest.fixture(scope="module")
def reference_gradients():
    """On one device."""
    return steps.Stepper(_recipe()).gradients(steps.batch())


def _recipe():
    return steps.recipe(steps.PAPER, optimizer=SGD, chunk_size=32)


def _examples(host, rows):
    rows = np.asarray(list(rows))
    flat = (rows[:, None] * 4 + np.arange(4)).reshape(-1)
    picked = jax.tree.map(lambda leaf: leaf[rows], host.replace(passages=host.queries))
    return picked.replace(passages=jax.tree.map(lambda leaf: leaf[flat], host.passages))
