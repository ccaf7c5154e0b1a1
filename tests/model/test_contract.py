"""Products keep the compute dtype forward and backward, with float32 sums."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nvembed_jax.model.contract import contract

SPECS = {
    "ABD,FD->ABF": ((2, 3, 8), (5, 8)),
    "BTNH,LNH->BTNL": ((2, 3, 4, 8), (6, 4, 8)),
    "...TS,...SH->...TH": ((2, 3, 5), (2, 5, 8)),
}


def loss(spec, dtype, a, b):
    return jnp.sum(jnp.sin(contract(spec, a, b, dtype)))


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_are_those_of_einsum(spec):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in SPECS[spec])
    exact = jax.grad(lambda a, b: jnp.sum(jnp.sin(jnp.einsum(spec, a, b))), (0, 1))(a, b)
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.06)):
        got = jax.grad(lambda a, b, d=dtype: loss(spec, d, a, b), (0, 1))(a, b)
        for one, other in zip(got, exact, strict=True):
            assert one.dtype == jnp.float32
            np.testing.assert_allclose(one, other, atol=tolerance * float(jnp.abs(other).max()))


@pytest.mark.parametrize("spec", SPECS)
def test_no_product_has_a_float32_operand(spec):
    a, b = (jnp.zeros(s, jnp.float32) for s in SPECS[spec])
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda a, b: loss(spec, jnp.bfloat16, a, b), (0, 1)))(a, b))
    kinds = dict(re.findall(r"(\w+):(\w+)\[", jaxpr))
    products = re.findall(r"= dot_general\[.*?\] (\w+) (\w+)", jaxpr, re.S)
    assert len(products) == 3
    assert {kinds[name] for pair in products for name in pair} == {"bf16"}
