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
    import jax
    import optax

    schedule = make_schedule(config, steps)
    adamw = optax.adamw(
        schedule, config.beta1, config.beta2, config.eps,
        weight_decay=config.weight_decay, mask=decayed,
    )  # fmt: skip
    if config.name == "adamw":
        rule = adamw
    elif config.name == "adafactor":
        rule = optax.adafactor(
            schedule, weight_decay_rate=config.weight_decay or None, weight_decay_mask=decayed
        )
    elif config.name == "lion":
        rule = optax.lion(
            schedule, config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decayed
        )
    elif config.name == "muon":
        axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-1, output_axis=-2)
        muon = optax.contrib.muon(
            schedule, eps=config.eps, weight_decay=config.weight_decay, consistent_rms=0.2,
            muon_weight_dimension_numbers=lambda params: jax.tree.map(lambda _: axes, params),
        )  # fmt: skip
        # Muon's own AdamW, for the leaves that are no matrices, would decay norms and biases.
        rule = optax.partition({"muon": muon, "adamw": adamw}, _muon_labels)
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


def _muon_labels(params: Any) -> Any:
    """Who moves each leaf: Muon the matrices between activations, stacked or not."""
    import jax

    def label(path: Any, decays: bool) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return "muon" if decays and "embed_tokens" not in name else "adamw"

    return jax.tree_util.tree_map_with_path(label, decayed(params))
