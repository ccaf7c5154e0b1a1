"""Learning-rate schedules and optimizers, all of optax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nvembed_jax.sharding import is_matrix

OPTIMIZERS = ("adamw", "adafactor", "lion", "muon", "sgd")
SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become steps.

    Attributes:
        name: "muon" orthogonalises the steps of matrices between activations, scaled so that
            AdamW's learning rate fits (arXiv 2502.16982); all else is AdamW's.
        learning_rate: the peak. schedule: after `warmup_steps`, "linear" or "cosine" to
            `final_fraction` of the peak at the last step, or "constant".
        weight_decay: of matrices only; norms, biases and latents have none.
        clip_norm: of the global gradient; 0: none.
        ema_decay: of a running mean of the trained weights, which is what is saved as the model;
            0: none.
    """

    name: str = "adamw"
    learning_rate: float = 2e-5
    warmup_steps: int = 500
    schedule: str = "linear"
    final_fraction: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        for field, value, allowed in (
            ("optimizer.name", self.name, OPTIMIZERS),
            ("optimizer.schedule", self.schedule, SCHEDULES),
        ):
            if value not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}; got {value!r}")


def make_schedule(config: OptimizerConfig, steps: int) -> Any:
    """Step number -> learning rate."""
    import optax

    peak, warmup = config.learning_rate, min(config.warmup_steps, max(steps - 1, 0))
    rest = max(steps - warmup, 1)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, config.final_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, peak * config.final_fraction, rest)
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    # The first step moves too: it is at peak / warmup, not at 0.
    rising = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rising, after], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> Any:
    """The `optax.GradientTransformation` of one stage of `steps` steps."""
    import optax

    schedule = make_schedule(config, steps)
    if config.name == "adamw":
        rule = optax.adamw(
            schedule, config.beta1, config.beta2, config.eps,
            weight_decay=config.weight_decay, mask=decayed,
        )  # fmt: skip
    elif config.name == "adafactor":
        rule = optax.adafactor(
            schedule, weight_decay_rate=config.weight_decay or None, weight_decay_mask=decayed
        )
    elif config.name == "lion":
        rule = optax.lion(
            schedule, config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decayed
        )
    elif config.name == "muon":
        rule = optax.contrib.muon(
            schedule, adam_b1=config.beta1, adam_b2=config.beta2, eps=config.eps,
            weight_decay=config.weight_decay, weight_decay_mask=decayed,
            adam_weight_decay=config.weight_decay, consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices,
        )  # fmt: skip
    else:
        rule = optax.sgd(schedule, momentum=config.beta1)
    return (
        optax.chain(optax.clip_by_global_norm(config.clip_norm), rule) if config.clip_norm else rule
    )


def decayed(params: Any) -> Any:
    """Which leaves weight decay applies to: matrices by name."""
    import jax

    def decays(path: Any, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return is_matrix(name, leaf.ndim)

    return jax.tree_util.tree_map_with_path(decays, params)


def _matrices(params: Any) -> Any:
    """The axes of each matrix that Muon orthogonalises, stacked or not; None for other leaves."""
    import jax
    from optax.contrib import MuonDimensionNumbers

    axes = MuonDimensionNumbers(reduction_axis=-1, output_axis=-2)

    def described(path: Any, decays: bool) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return axes if decays and "embed_tokens" not in name else None

    return jax.tree_util.tree_map_with_path(described, decayed(params))
