"""A recipe: the frozen form of a `configs/*.py` ConfigDict; unknown keys raise with the nearest
name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from nvembed_jax.config import NAMED_CONFIGS, ModelConfig, from_dict, to_dict
from nvembed_jax.data.blend import BlendConfig, SourceConfig
from nvembed_jax.model.compute import Compute
from nvembed_jax.runtime import compute_dtype
from nvembed_jax.train.losses import LossConfig
from nvembed_jax.train.optimizer import OptimizerConfig
from nvembed_jax.train.trainable import TrainableConfig

OBJECTIVES = ("contrastive", "causal_lm")
CPU_UNROLL = 6  # layers of a scan: a loop over layers copies what the backward pass keeps


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where the model comes from.

    Attributes:
        path: folder or name of a checkpoint to start from ("bundled": the package's default model);
            "": random weights of `named`.
        named: a config of `nvembed_jax.config` ("nv_embed_v2", ...), for its sizes and templates;
            "": the checkpoint's own. With both, the checkpoint gives the backbone, and parts that
            it lacks (a latent block) begin at random.
        overrides: fields of `ModelConfig` to replace, nested ones as nested dicts.
        tokenizer: folder of the tokenizer; "": the checkpoint's; "packaged": the 8,192-piece one
            that comes with the package.
    """

    path: str = ""
    named: str = ""
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if self.named and self.named not in NAMED_CONFIGS:
            raise ValueError(
                f"model.named must be one of {', '.join(sorted(NAMED_CONFIGS))}; got {self.named!r}"
            )
        if not self.path and not self.named:
            raise ValueError("model: give `path` (a checkpoint) or `named` (random weights)")

    def resolve(self, found: ModelConfig | None = None) -> ModelConfig:
        """The model's config; `found` is the checkpoint's."""
        base = NAMED_CONFIGS[self.named]() if self.named else found
        if base is None:
            raise ValueError(f"{self.path}: has no config")
        if self.named and found is not None:
            base = dataclasses.replace(base, backbone=found.backbone)
        return from_dict(_merged(to_dict(base), self.overrides))


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; one may be -1, the rest."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the model is run (see `model.Compute`); "" is the device's default dtype, `unroll` 0 the
    device's default too: `CPU_UNROLL` on one CPU, else 1."""

    dtype: str = ""
    frozen_dtype: str = ""
    kernel: str = "auto"
    remat: str = "none"
    unroll: int = 0

    def resolve(self, mesh: Any = None) -> Compute:
        """The options of the compiled step."""
        on_one_cpu = mesh is None and jax.default_backend() == "cpu"
        return Compute(
            dtype=compute_dtype(self.dtype or None),
            kernel=self.kernel,  # type: ignore[arg-type]
            remat=self.remat,  # type: ignore[arg-type]
            unroll=self.unroll or (CPU_UNROLL if on_one_cpu else 1),
            mesh=mesh,
        )


@dataclass(frozen=True, kw_only=True)
class StageConfig(BlendConfig):
    """One stage of training.

    Attributes:
        objective: "contrastive", or "causal_lm" (next token, on texts of the data).
        steps: 0 leaves the stage out.
        accumulate: micro-batches a step; in-batch negatives stay within one.
        chunk_size: texts embedded at once (GradCache: exact, flat memory); 0: all.
    """

    objective: str = "contrastive"
    steps: int
    accumulate: int = 1
    chunk_size: int = 0
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        BlendConfig.__post_init__(self)
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective must be one of {', '.join(OBJECTIVES)}; got {self.objective!r}"
            )
        for name in ("steps", "accumulate", "chunk_size"):
            if getattr(self, name) < (name == "accumulate"):
                raise ValueError(f"{name} is out of range: {getattr(self, name)}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run.

    Attributes:
        name: of the recipe. seed: of weights, order, labels and dropout.
        teacher: folder or name of a model to distil from; "": none. teacher_length: tokens that it
            reads; 0: its own maximum, 512 at most. teacher_cache: folder that keeps its embeddings,
            for other runs too; "": WORKDIR/cache.
        checkpoint_every: steps; also at the end of every stage. keep: checkpoints kept.
        save_stages: keep the model after each stage, in WORKDIR/models.
        log_every: steps between lines on the terminal (metrics.jsonl has one a step).
        tensorboard: write event files too.
        peak_tflops: of one device, for the utilisation (MFU); 0: known devices only.
        stages: in order.
    """

    name: str
    seed: int = 0
    model: ModelSource
    teacher: str = ""
    teacher_length: int = 0
    teacher_cache: str = ""
    trainable: TrainableConfig = dataclasses.field(default_factory=TrainableConfig)
    compute: ComputeConfig = ComputeConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint_every: int = 500
    keep: int = 2
    save_stages: bool = False
    log_every: int = 10
    tensorboard: bool = False
    peak_tflops: float = 0.0
    stages: dict[str, StageConfig]


# What may change between a run and its resumption: where and how it runs, not what it computes.
RESUMABLE = (
    "mesh",
    "checkpoint_every",
    "keep",
    "save_stages",
    "log_every",
    "tensorboard",
    "peak_tflops",
    "teacher_cache",
)


def parse_recipe(config: Any) -> Recipe:
    """The recipe of a ConfigDict (or a nested dict): `stages` names the keys that hold stages.

    Raises:
        ValueError: unknown keys (nearest names shown), missing ones, values out of range.
    """
    plain = _plain(config)
    names = plain.pop("stages", None) or [key for key in plain if key.startswith("stage")]
    if not names:
        raise ValueError("a recipe needs at least one stage: config.stage1 = ...")
    missing = [name for name in names if name not in plain]
    if missing:
        raise ValueError(
            f"config.stages names {', '.join(missing)}, which the config does not hold"
        )
    stages = {name: _parse_stage(name, plain.pop(name)) for name in names}
    return from_dict({**plain, "stages": stages}, Recipe)


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain JSON-ready types, written beside checkpoints and results."""
    return dataclasses.asdict(recipe)


def _parse_stage(name: str, plain: dict[str, Any]) -> StageConfig:
    plain = dict(plain)
    try:
        sources = plain.pop("sources", {})
        plain["sources"] = {key: from_dict(value, SourceConfig) for key, value in sources.items()}
        return from_dict(plain, StageConfig)
    except ValueError as error:
        raise ValueError(f"config.{name}: {error}") from None


def _plain(value: Any) -> Any:
    """ConfigDicts to dicts, lists to tuples (frozen configs hold tuples)."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if nested else value
    return out
