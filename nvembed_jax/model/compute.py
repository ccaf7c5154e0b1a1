"""How a model is run, as opposed to what it is: compute dtype, attention kernel,
rematerialisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp

AttentionKernel = Literal["auto", "xla", "cudnn", "triton", "splash"]
Remat = Literal["none", "full", "dots"]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Static options of one compiled program.

    Attributes:
        dtype: of activations and matmul operands; accumulation, norms, softmax and pooling are
            float32.
        kernel: attention kernel; "auto" chooses by device, dtype and layout (`model/attention.py`).
        interpret: run Pallas kernels in interpret mode (tests on CPUs).
        remat: what the backward pass computes again of a layer: "none"; "full": all but its input;
            "dots": all but the results of its matmuls with weights.
        unroll: layers a step of the scan over stacked layers.
        mesh: the mesh that activations are laid out on; None: one device.
    """

    dtype: Any = jnp.float32
    kernel: AttentionKernel = "auto"
    interpret: bool = False
    remat: Remat = "none"
    unroll: int = 1
    mesh: Any = None
