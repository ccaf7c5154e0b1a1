"""Every kernel against a plain float64 loop or the XLA one; the toggle; choosing a kernel."""

from __future__ import annotations

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nvembed_jax.model import attention
from nvembed_jax.model.attention import Call, attend, choose_kernel
from nvembed_jax.model.compute import Compute
from nvembed_jax.model.masks import MaskSpec, dense_mask
from nvembed_jax.sharding import make_mesh

ON_NVIDIA = attention._device(None)[1] >= 8
FUSED = ["triton", "splash"]  # in interpret mode
KERNELS = ["xla", *FUSED, *(["cudnn"] if ON_NVIDIA else [])]
LENGTH, SCALE = 20, 0.3
MASK = np.arange(LENGTH) < np.array([[13], [LENGTH]])
SEGMENTS = np.array([[4] * 5 + [9] * 8 + [-1] * 7, [2] * 20], np.int32)


def spec_of(causal: bool = False, packed: bool = False, window: int | None = None) -> MaskSpec:
    segments = jnp.asarray(SEGMENTS) if packed else None
    return MaskSpec(jnp.asarray(MASK), segments, causal=causal, window=window)


def qkv(batch=2, length=LENGTH, heads=4, kv_heads=2, head_dim=16, dtype=jnp.float32):
    draw = np.random.default_rng(0)
    shapes = [(batch, length, count, head_dim) for count in (heads, kv_heads, kv_heads)]
    return tuple(jnp.asarray(draw.standard_normal(shape), dtype) for shape in shapes)


def run(kernel, q, k, v, spec, mesh=None, **options):
    compute = Compute(kernel=kernel, interpret=kernel in FUSED, mesh=mesh)
    return attend(q, k, v, spec, compute, scale=SCALE, **options)


def plain(q, k, v, allowed, softcap=None):
    """One query at a time, float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    groups = q.shape[2] // k.shape[2]
    for b, t, n in np.ndindex(q.shape[:3]):
        scores = k[b, :, n // groups] @ q[b, t, n] * SCALE
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.exp(scores) * np.asarray(allowed)[b, t]
        if weights.any():
            out[b, t, n] = weights / weights.sum() @ v[b, :, n // groups]
    return out


def output_and_gradients(arrays, spec, kernel, mesh=None, softcap=None):
    """Output at real tokens, and the gradients of a random combination of it."""
    real = spec.attention_mask[:, :, None, None]
    weight = jax.random.normal(jax.random.key(1), arrays[0].shape, arrays[0].dtype) * real
    out, pull = jax.vjp(lambda *a: run(kernel, *a, spec, mesh, softcap=softcap), *arrays)
    return out * real, *pull(weight)


QUICK = {"xla_backend_optimization_level": 0}  # compiles in a third of the time
evaluate = jax.jit(
    output_and_gradients, static_argnames=("kernel", "mesh", "softcap"), compiler_options=QUICK
)


def assert_close(got, expected, tolerance=1e-5):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("window", [None, 1, 3, LENGTH])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_xla_equals_a_plain_loop(causal, packed, window):
    spec = spec_of(causal, packed, window)
    q, k, v = qkv()
    allowed = dense_mask(spec if causal else dataclasses.replace(spec, window=None))
    expected = plain(q, k, v, allowed)
    got = np.asarray(run("xla", q, k, v, spec))
    np.testing.assert_allclose(got[MASK], expected[MASK], atol=2e-6)


def test_xla_equals_a_plain_loop_with_softcap_and_a_traced_window():
    q, k, v = qkv()
    spec = spec_of(causal=True)
    traced = jax.jit(lambda window: run("xla", q, k, v, spec, softcap=0.5, window=window))
    for window in (1, 4, LENGTH + 1):
        expected = plain(q, k, v, dense_mask(spec, window=window), softcap=0.5)
        np.testing.assert_allclose(traced(window)[MASK], expected[MASK], atol=2e-6)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("kernel", FUSED)
def test_fused_kernel_equals_xla_forward_and_gradient(kernel, causal, packed):
    spec = spec_of(causal, packed)
    expected = evaluate(qkv(), spec, "xla")
    assert_close(evaluate(qkv(), spec, kernel), expected)


@pytest.mark.parametrize(
    ("kernel", "length", "head_dim"), [("triton", 33, 24), ("splash", 130, 24)]
)
def test_fused_kernel_pads_odd_lengths_and_heads(kernel, length, head_dim):
    arrays = qkv(batch=1, length=length, heads=2, kv_heads=1, head_dim=head_dim)
    spec = MaskSpec(jnp.arange(length)[None] < length - 2, causal=True)
    assert_close(evaluate(arrays, spec, kernel), evaluate(arrays, spec, "xla"))


def test_splash_equals_xla_with_window_and_softcap():
    spec = spec_of(causal=True, packed=True, window=3)
    expected = evaluate(qkv(), spec, "xla", softcap=0.5)
    assert_close(evaluate(qkv(), spec, "splash", softcap=0.5), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_causality_probe_the_toggle_toggles(kernel):
    dtype = jnp.bfloat16 if kernel == "cudnn" else jnp.float32
    q, k, v = qkv(dtype=dtype)
    j = 6
    moved = [x.at[:, j].add(3.0) for x in (q, k, v)]
    for causal in (False, True):
        spec = spec_of(causal)
        change = jnp.abs(run(kernel, *moved, spec) - run(kernel, q, k, v, spec)).max(axis=(2, 3))
        before, own = np.asarray(change[:, :j]), np.asarray(change[:, j])
        assert (own > 1e-3).all()
        assert (before == 0).all() if causal else (before > 1e-3).all()


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("kernel", [k for k in KERNELS if k != "cudnn"])
def test_packed_texts_do_not_see_each_other(kernel, causal):
    q, k, v = qkv()
    spec = spec_of(causal, packed=True)
    moved = [x.at[0, :5].add(3.0) for x in (q, k, v)]  # the first text of row 0
    change = jnp.abs(run(kernel, *moved, spec) - run(kernel, q, k, v, spec)).max(axis=(2, 3))
    assert (np.asarray(change[0, :5]) > 1e-3).all()
    assert (np.asarray(change[0, 5:13]) == 0).all()
    assert (np.asarray(change[1]) == 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_a_row_without_tokens_is_finite_and_poisons_nothing(kernel, causal):
    arrays = qkv(dtype=jnp.bfloat16 if kernel == "cudnn" else jnp.float32)
    spec = spec_of(causal)
    out, *grads = evaluate(arrays, spec, kernel)
    spec = spec.replace(attention_mask=spec.attention_mask.at[0].set(False))
    out_without, *grads_without = evaluate(arrays, spec, kernel)
    assert np.isfinite(run(kernel, *arrays, spec)).all()
    assert all((x[0] == 0).all() for x in (out_without, *grads_without))
    assert_close([x[1] for x in (out_without, *grads_without)], [x[1] for x in (out, *grads)], 0)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_walking_query_blocks_changes_nothing(monkeypatch, causal, packed):
    spec = spec_of(causal, packed, window=6)
    expected = evaluate(qkv(), spec, "xla", softcap=2.0)
    monkeypatch.setattr(attention, "BLOCK_SCORES", 1)
    monkeypatch.setattr(attention, "MIN_BLOCK", 7)  # 20 queries: three blocks of 7, one padded
    walked = jax.jit(
        lambda *a: output_and_gradients(*a, "xla", softcap=2.0), compiler_options=QUICK
    )
    assert "scan" in str(jax.make_jaxpr(lambda *a: run("xla", *a, spec))(*qkv()))
    assert_close(walked(qkv(), spec), expected, 1e-6)


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_attention_over_32768_tokens_needs_the_memory_of_a_block(causal):
    shape = jax.ShapeDtypeStruct((1, 32768, 4, 16), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 32768), bool)

    def loss(q, k, v, mask):
        return run("xla", q, k, v, MaskSpec(mask, causal=causal)).sum()

    for program in (loss, jax.grad(loss, (0, 1, 2))):
        compiled = jax.jit(program).lower(shape, shape, shape, mask).compile()
        used = compiled.memory_analysis().temp_size_in_bytes
        assert used < 1.5 * 2**30  # one head's whole score matrix would be 4 GiB


@pytest.mark.parametrize("kernel", FUSED)
@pytest.mark.parametrize("kv_heads", [2, 1], ids=["split", "repeated"])
def test_fused_kernel_on_a_mesh_equals_one_device(kernel, kv_heads):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    arrays = [jnp.tile(x, (2, 1, 1, 1)) for x in qkv(kv_heads=kv_heads)]
    mask, ids = (jnp.tile(jnp.asarray(x), (2, 1)) for x in (MASK, SEGMENTS))
    spec = MaskSpec(mask, ids, causal=True)
    expected = evaluate(arrays, spec, "xla")
    assert_close(evaluate(arrays, spec, kernel, mesh), expected)


def test_fused_kernel_on_a_mesh_refuses_rows_that_do_not_split():
    with pytest.raises(ValueError, match="2 rows do not split into 8 shards; pad the batch"):
        run("splash", *qkv(), spec_of(), mesh=make_mesh())


@pytest.mark.parametrize("window", [None, 3])
def test_cudnn_call_says_the_rule_in_lengths(monkeypatch, window):
    """What we hand to cuDNN, run by the XLA twin of the same function."""
    real = jax.nn.dot_product_attention
    seen = {}

    def twin(*args, implementation, **options):
        seen.update(options, implementation=implementation)
        return real(*args, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", twin)
    q, k, v = qkv()
    for causal in (False, True):
        spec = spec_of(causal, window=window if causal else None)
        got = attention._cudnn(q, k, v, spec, scale=SCALE, window=spec.window)
        np.testing.assert_allclose(got[MASK], run("xla", q, k, v, spec)[MASK], atol=2e-6)
        assert (np.asarray(got)[~MASK] == 0).all()
    assert seen["implementation"] == "cudnn"
    assert "mask" not in seen
    assert seen["query_seq_lengths"].tolist() == [13, LENGTH]
    empty = spec_of().replace(attention_mask=jnp.asarray(MASK).at[0].set(False))
    out = np.asarray(attention._cudnn(q, k, v, empty, scale=SCALE, window=None))
    assert seen["key_value_seq_lengths"].tolist() == [1, LENGTH]  # no division by zero in row 0
    assert (out[0] == 0).all()


BF16, F32 = jnp.bfloat16, jnp.float32
PADDED, PACKED, CAUSAL = spec_of(), spec_of(packed=True), spec_of(causal=True)
TABLE = [
    # platform, capability, dtype, spec, head_dim, softcap, window -> kernel
    ("cpu", 0.0, F32, PADDED, 32, None, None, "xla"),
    ("cpu", 0.0, BF16, PACKED, 128, None, None, "xla"),
    ("rocm", 0.0, BF16, PADDED, 128, None, None, "xla"),
    ("cuda", 9.0, BF16, PADDED, 128, None, None, "cudnn"),
    ("cuda", 9.0, jnp.float16, CAUSAL, 64, None, None, "cudnn"),
    ("cuda", 9.0, BF16, CAUSAL, 128, None, 4096, "cudnn"),
    ("cuda", 9.0, BF16, PADDED, 256, None, None, "cudnn"),
    ("cuda", 8.0, BF16, PADDED, 256, None, None, "xla"),  # wide heads need Hopper
    ("cuda", 9.0, BF16, PADDED, 20, None, None, "triton"),  # not a multiple of 8
    ("cuda", 9.0, BF16, PACKED, 128, None, None, "triton"),
    ("cuda", 9.0, BF16, PACKED, 128, None, 4096, "xla"),
    ("cuda", 9.0, BF16, PACKED, 256, None, None, "xla"),
    ("cuda", 9.0, F32, PADDED, 128, None, None, "xla"),
    ("cuda", 9.0, BF16, CAUSAL, 128, 50.0, None, "xla"),  # Gemma 2
    ("cuda", 9.0, BF16, CAUSAL, 128, None, jnp.asarray(8), "xla"),  # differs between layers
    ("cuda", 7.5, BF16, PADDED, 128, None, None, "xla"),  # T4
    ("tpu", 0.0, BF16, PADDED, 128, None, None, "splash"),
    ("tpu", 0.0, F32, PACKED, 64, 50.0, 4096, "splash"),
    ("tpu", 0.0, BF16, CAUSAL, 128, None, jnp.asarray(8), "xla"),
]


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "spec", "head_dim", "softcap", "window", "expected"), TABLE
)
def test_choose_kernel_table(
    platform, capability, dtype, spec, head_dim, softcap, window, expected
):
    call = Call(platform, capability, dtype, spec, head_dim, softcap, window)
    assert choose_kernel(call) == expected


def test_choose_kernel_takes_xla_for_tpu_rows_shorter_than_a_block():
    assert choose_kernel(Call("tpu", 0.0, BF16, PADDED, 128, length=64)) == "xla"


@pytest.mark.parametrize(
    ("kernel", "call", "why", "instead"),
    [
        ("cudnn", Call("cpu", 0.0, BF16, PADDED, 64), "it is for cuda, this is cpu", "xla"),
        ("cudnn", Call("cuda", 9.0, BF16, PACKED, 64), "it has no segment ids", "triton"),
        ("cudnn", Call("cuda", 9.0, F32, PADDED, 64), "bfloat16 and float16, not float32", "xla"),
        ("cudnn", Call("cuda", 9.0, BF16, PADDED, 64, 50.0), "it has no soft-cap", "xla"),
        ("cudnn", Call("cuda", 7.5, BF16, PADDED, 64), "compute capability 8.0", "xla"),
        ("cudnn", Call("cuda", 9.0, BF16, PADDED, 288), "heads of at most 256, not 288", "xla"),
        ("triton", Call("tpu", 0.0, BF16, PADDED, 64), "it is for cuda, this is tpu", "splash"),
        ("triton", Call("cuda", 9.0, BF16, CAUSAL, 64, None, 8), "no sliding window", "cudnn"),
        ("splash", Call("cuda", 9.0, BF16, PADDED, 64), "it is for tpu, this is cuda", "cudnn"),
        ("splash", Call("tpu", 0.0, BF16, CAUSAL, 64, None, jnp.asarray(8)), "one scan", "xla"),
    ],
)
def test_a_kernel_asked_for_that_cannot_serve_says_why_and_what_can(kernel, call, why, instead):
    with pytest.raises(ValueError, match=why) as error:
        choose_kernel(call, kernel)
    assert str(error.value).endswith(f"use {instead!r}")


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="unknown attention kernel 'flash'; choose auto, xla"):
        choose_kernel(Call("cpu", 0.0, F32, PADDED, 64), "flash")


def test_a_window_of_no_token_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        run("xla", *qkv(), spec_of(causal=True, window=0))


def test_a_pallas_kernel_missing_from_jax_is_passed_over(monkeypatch):
    monkeypatch.setitem(attention.MODULES, "splash", "jax.experimental.pallas.ops.tpu.nowhere")
    call = Call("tpu", 0.0, BF16, PADDED, 128)
    assert choose_kernel(call) == "xla"
    with pytest.raises(ValueError, match=r"this jax has no .*tpu\.nowhere"):
        choose_kernel(call, "splash")


def test_auto_that_falls_back_says_so_once(monkeypatch, caplog):
    attention._log_once.cache_clear()
    monkeypatch.setattr(attention, "_device", lambda mesh: ("cuda", 9.0))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            run("auto", *qkv(), spec_of())
    assert caplog.messages == [
        "attention runs on 'xla' instead of 'cudnn': it takes bfloat16 and float16, not float32"
    ]


def test_auto_on_a_cpu_says_nothing(caplog):
    run("auto", *qkv(), spec_of(packed=True))
    assert caplog.messages == []
