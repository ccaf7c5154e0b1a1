"""What a run reports: a line a step in metrics.jsonl, TensorBoard if asked for, throughput and
MFU.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nvembed_jax.config import ModelConfig
from nvembed_jax.data.writers import write_text
from nvembed_jax.sharding import logical_axes

# Dense bf16 peak of one device, TFLOP/s, as the makers publish it; by a part of `device_kind`.
PEAK_TFLOPS = {
    "H100": 989.0, "H200": 989.0, "A100": 312.0, "B200": 2250.0, "L40S": 362.0,
    "TPU v6": 918.0, "TPU v5p": 459.0, "TPU v5 lite": 197.0, "TPU v5e": 197.0, "TPU v4": 275.0,
}  # fmt: skip


class MetricsLog:
    """metrics.jsonl, one line a step; a resumed run goes on behind the step it resumes from.

    Of several processes the first alone has the file: another one's would take its place.
    """

    def __init__(self, workdir: Path, resumed_step: int, tensorboard: bool = False):
        self.path = workdir / "metrics.jsonl"
        self._file, self._board = None, None
        if jax.process_index() != 0:
            return
        _cut(self.path, resumed_step)
        if tensorboard:
            self._board = _board(workdir / "tensorboard", resumed_step + 1)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)  # a line at a time

    def write(self, line: dict[str, Any]) -> None:
        """Adds the line of one step."""
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(f"{line['stage']}/{name}", value, line["step"])

    def flush(self) -> None:
        """Puts all lines on disk: before a checkpoint, so that none is missing behind it."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends the files."""
        self.flush()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


class Throughput:
    """Tokens a second since the last call, and the share of the devices' peak that this is."""

    def __init__(self, config: ModelConfig, params: Any, trainable_full: bool, peak_tflops: float):
        self.flops_per_token = flops_per_token(config, params, trainable_full)
        self.peak = 1e12 * (peak_tflops or known_peak()) * jax.device_count()
        self._last = time.perf_counter()

    def measure(self, tokens: int) -> dict[str, float]:
        """{"tokens_per_s": ..., "seconds": ...}, and "mfu" where the peak is known."""
        now = time.perf_counter()
        seconds, self._last = max(now - self._last, 1e-9), now
        rate = tokens / seconds
        out = {"tokens_per_s": round(rate, 1), "seconds": round(seconds, 5)}
        if self.peak:
            out["mfu"] = round(rate * self.flops_per_token / self.peak, 4)
        return out


def flops_per_token(config: ModelConfig, params: Any, trainable_full: bool) -> float:
    """Of a training step, recomputation not counted: 2N forward, 2N for gradients of activations,
    and 2N for gradients of weights where all are trained; N counts matrices that tokens pass
    through (the embedding table is looked up, not multiplied).
    """
    latents = config.latent.num_latents if config.latent is not None else 0
    matrices = 0.0
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        axes = logical_axes(name, leaf.ndim)
        looked_up = "vocab" in axes or name.endswith("to_kv.weight")  # once a batch, not a token
        if sum(axis is not None for axis in axes) == 2 and not looked_up:
            matrices += float(np.prod(leaf.shape))
    if config.pooling == "latent" and config.latent is not None:
        inner = config.latent.num_cross_heads * config.latent.cross_head_dim
        matrices += 2 * latents * inner  # scores and weighted values against the latents
    return (6.0 if trainable_full else 4.0) * matrices


def known_peak() -> float:
    """TFLOP/s of one device of this machine; 0: not known."""
    kind = jax.devices()[0].device_kind
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in kind), 0.0)


def _board(folder: Path, purge_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ImportError(
            "config.tensorboard needs the package tensorboardX; pip install 'nvembed_jax[train]'"
        ) from None
    return SummaryWriter(str(folder), purge_step=purge_step)


def _cut(path: Path, step: int) -> None:
    """Drops lines behind `step`, and a last line that a killed run left half written."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            break
    write_text(path, "".join(kept))
