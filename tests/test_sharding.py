"""Meshes, parameter placement, and that eight devices compute what one does."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import tiny
from nvembed_jax.model import embed, init_params
from nvembed_jax.sharding import (
    batch_sharding,
    batch_shards,
    logical_axes,
    make_mesh,
    param_shardings,
    param_spec,
)


def test_mesh_fills_the_devices():
    mesh = make_mesh(tensor=2)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 1, "tensor": 2}
    assert batch_shards(mesh) == 4
    assert batch_shards(None) == 1


@pytest.mark.parametrize(
    "sizes", [{"data": 3}, {"data": -1, "fsdp": -1}, {"tensor": 0}, {"fsdp": 16}]
)
def test_bad_mesh_is_refused(sizes: dict):
    with pytest.raises(ValueError, match="mesh"):
        make_mesh(**sizes)


@pytest.mark.parametrize(
    ("name", "ndim", "axes"),
    [
        ("backbone.layers.self_attn.q_proj.weight", 3, (None, "heads", "embed")),
        ("backbone.layers.self_attn.o_proj.weight", 3, (None, "embed", "heads")),
        ("backbone.layers.self_attn.q_proj.bias", 2, (None, "heads")),
        ("backbone.layers.mlp.down_proj.weight", 3, (None, "embed", "mlp")),
        ("backbone.layers_3.mlp.up_proj.weight", 2, ("mlp", "embed")),
        ("backbone.embed_tokens.weight", 2, ("vocab", "embed")),
        ("backbone.norm.weight", 1, (None,)),
        ("pooling.latents", 2, (None, None)),
        ("pooling.feed_forward.norm.bias", 1, (None,)),
        ("pooling.folded.scores.bias", 1, ("heads",)),
    ],
)
def test_logical_axes_follow_the_name(name: str, ndim: int, axes: tuple):
    assert logical_axes(name, ndim) == axes


def test_dimension_that_does_not_divide_stays_whole():
    mesh = make_mesh(fsdp=2, tensor=4)
    name = "backbone.layers.mlp.up_proj.weight"
    assert param_spec(mesh, name, (3, 128, 64)) == P(None, "tensor", "fsdp")
    assert param_spec(mesh, name, (3, 130, 63)) == P(None, None, None)


@pytest.mark.parametrize(
    "sizes", [{"data": 8}, {"data": 4, "tensor": 2}, {"data": 2, "fsdp": 2, "tensor": 2}]
)
def test_eight_devices_equal_one(sizes: dict):
    config = tiny()
    params = init_params(config, jax.random.key(0))
    draw = np.random.default_rng(0)
    ids = draw.integers(3, 512, (8, 24)).astype(np.int32)
    mask = np.arange(24) < draw.integers(1, 25, (8, 1))
    batch = TokenBatch(ids, mask, mask)
    expected = jax.jit(partial(embed, config))(params, batch)
    mesh = make_mesh(**sizes)
    shardings = param_shardings(mesh, params)
    born = jax.jit(partial(init_params, config), out_shardings=shardings)(jax.random.key(0))
    placed = jax.device_put(params, shardings)
    split = jax.device_put(batch, batch_sharding(mesh))
    out = jax.jit(partial(embed, config))(placed, split)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    q_proj = born["backbone"]["layers"]["self_attn"]["q_proj"]["weight"]
    assert (
        q_proj.addressable_shards[0].data.size * mesh.shape["tensor"] * mesh.shape["fsdp"]
        == q_proj.size
    )
