"""`jax.export` of the embedding function for devices that this machine does not have.

Lowered without the device: `xla` for all three platforms in one artifact, `splash` for tpu, and
`triton` for cuda (its custom call has no compatibility promise: that check must be disabled; jax
0.11 wants the GPU's kind too, as an abstract device). Not lowered without the device: `cudnn`, as
tracing it asks the cuDNN library for its version.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding, use_abstract_mesh

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import tiny
from nvembed_jax.model import Compute, abstract_params, embed
from nvembed_jax.sharding import AXES, batch_sharding, make_mesh, param_shardings

ROWS, LENGTH = 8, 16
ALL = ("cpu", "cuda", "tpu")
TRITON = "__gpu$xla.gpu.triton"
SPLASH = "tpu_custom_call"
CONFIG = dataclasses.replace(tiny(), backbone=dataclasses.replace(tiny().backbone, num_layers=1))


DEVICES = {
    "cuda": AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu"),
    "tpu": AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu"),
}


def absent_mesh(platform: str) -> AbstractMesh:
    """4 data x 2 tensor of a device that is not here."""
    types = (AxisType.Auto,) * 3
    return AbstractMesh((4, 1, 2), AXES, axis_types=types, abstract_device=DEVICES[platform])


def absent_device(platform: str) -> use_abstract_mesh:
    return use_abstract_mesh(AbstractMesh((), (), abstract_device=DEVICES[platform]))


def token_batch(packed: bool) -> TokenBatch:
    """Real tokens, two texts a row when packed."""
    ids = jnp.arange(ROWS * LENGTH, dtype=jnp.int32).reshape(ROWS, LENGTH) % 500
    mask = jnp.ones((ROWS, LENGTH), bool)
    if not packed:
        return TokenBatch(ids, mask, mask)
    half = jnp.arange(LENGTH) // (LENGTH // 2)
    segments = (2 * jnp.arange(ROWS)[:, None] + half).astype(jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(LENGTH) % (LENGTH // 2), (ROWS, LENGTH))
    return TokenBatch(ids, mask, mask, segments, positions.astype(jnp.int32), 2 * ROWS)


def sharded_like(x, mesh, spec) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))


def exported(
    kernel, platforms, *, dtype=jnp.float32, packed=False, mesh=None, gradient=False, disabled=()
):
    compute = Compute(kernel=kernel, dtype=dtype, mesh=mesh)

    def forward(params, batch):
        return embed(CONFIG, params, batch, compute=compute)

    def backward(params, batch):
        return jax.grad(lambda params: forward(params, batch).sum())(params)

    params, batch = abstract_params(CONFIG, dtype), token_batch(packed)
    if mesh is not None:
        here = make_mesh(data=4, tensor=2)
        split = jax.tree.map(lambda _: batch_sharding(here), batch)
        params, batch = (
            jax.tree.map(lambda x, s: sharded_like(x, mesh, s.spec), *pair)
            for pair in ((params, param_shardings(here, params)), (batch, split))
        )
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in disabled]
    function = jax.jit(backward if gradient else forward)
    return export.export(function, platforms=platforms, disabled_checks=checks)(params, batch)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("sharded", [False, True], ids=["one", "mesh"])
def test_xla_attention_lowers_for_cpu_cuda_and_tpu_in_one_artifact(sharded, packed):
    mesh = make_mesh(data=4, tensor=2) if sharded else None
    artifact = exported("xla", ALL, packed=packed, mesh=mesh)
    assert artifact.platforms == ALL
    assert artifact.nr_devices == (8 if sharded else 1)
    assert "custom_call" not in artifact.mlir_module()


@pytest.mark.parametrize("sharded", [False, True], ids=["one", "mesh"])
@pytest.mark.parametrize(
    ("gradient", "packed"), [(False, False), (True, True)], ids=["encode", "train"]
)
@pytest.mark.parametrize(
    ("kernel", "platform", "call"), [("splash", "tpu", SPLASH), ("triton", "cuda", TRITON)]
)
def test_pallas_attention_lowers_for_its_device(kernel, platform, call, gradient, packed, sharded):
    options = {"dtype": jnp.bfloat16, "packed": packed, "gradient": gradient}
    options["disabled"] = [TRITON] if kernel == "triton" else []
    if sharded:
        artifact = exported(kernel, (platform,), mesh=absent_mesh(platform), **options)
    else:
        with absent_device(platform):
            artifact = exported(kernel, (platform,), **options)
    assert artifact.nr_devices == (8 if sharded else 1)
    assert f"@{call}" in artifact.mlir_module()


def test_an_exported_artifact_gives_the_same_embeddings():
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: draw.standard_normal(x.shape).astype(x.dtype), abstract_params(CONFIG)
    )
    batch = token_batch(packed=True)
    function = jax.jit(lambda params, batch: embed(CONFIG, params, batch))
    artifact = export.export(function, platforms=ALL)(params, batch)
    np.testing.assert_allclose(artifact.call(params, batch), function(params, batch), atol=1e-6)


def test_triton_needs_its_custom_call_check_disabled():
    with absent_device("cuda"), pytest.raises(ValueError, match="no compatibility guarantees"):
        exported("triton", ("cuda",), dtype=jnp.bfloat16)


@pytest.mark.parametrize("kernel", ["triton", "splash"])
def test_pallas_attention_without_interpret_does_not_lower_for_cpu(kernel):
    with pytest.raises(ValueError, match="Only interpret mode is supported on CPU"):
        exported(kernel, ("cpu",), dtype=jnp.bfloat16)


def test_cudnn_attention_cannot_be_lowered_without_the_device():
    with pytest.raises(ValueError, match="'cudnn' cannot run here: it is for cuda, this is cpu"):
        exported("cudnn", ("cuda",), dtype=jnp.bfloat16)
