"""Products with operands in the compute dtype and float32 sums, forward and backward.

Left to itself, differentiation multiplies the float32 gradient with the other operand, in float32:
half the speed on CPUs with native bfloat16, a small part of it on accelerators.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def contract(
    spec: str, a: Num[Array, "*shape_a"], b: Num[Array, "*shape_b"], dtype: Any
) -> Float[Array, "*shape_out"]:
    """`einsum(spec, a, b)` with both operands in `dtype`; the result is float32.

    Gradients are products of the same kind: the incoming one is rounded to `dtype`, sums are
    float32, and a float32 operand gets a float32 gradient. Every letter of an operand stands in the
    result or in the other operand.
    """
    dtype = jnp.dtype(dtype)
    if dtype == jnp.float32:
        return _product(spec, a, b, dtype)
    return _contract(spec, dtype, a, b)


def _product(spec: str, a: Any, b: Any, dtype: Any) -> Any:
    return jnp.einsum(spec, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _contract(spec: str, dtype: Any, a: Any, b: Any) -> Any:
    return _product(spec, a, b, dtype)


def _forward(spec: str, dtype: Any, a: Any, b: Any) -> Any:
    return _product(spec, a, b, dtype), (a, b)


def _backward(spec: str, dtype: Any, operands: Any, gradient: Any) -> Any:
    a, b = operands
    inputs, result = spec.split("->")
    left, right = inputs.split(",")
    return (
        _product(f"{result},{right}->{left}", gradient, b, dtype).astype(a.dtype),
        _product(f"{left},{result}->{right}", a, gradient, dtype).astype(b.dtype),
    )


_contract.defvjp(_forward, _backward)
