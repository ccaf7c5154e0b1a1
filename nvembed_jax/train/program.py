"""The compiled side of a stage: objective, optimizer and shardings put together, one program a
batch shape.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from nvembed_jax.config import ModelConfig
from nvembed_jax.model import embed
from nvembed_jax.sharding import batch_sharding, batch_shards, param_shardings
from nvembed_jax.train.causal_lm import causal_lm_grads
from nvembed_jax.train.memory import MemoryPlan, StageShape, plan_memory
from nvembed_jax.train.optimizer import make_optimizer
from nvembed_jax.train.recipe import Recipe, StageConfig
from nvembed_jax.train.step import (
    GradFn,
    TrainState,
    accumulated,
    contrastive_grads,
    init_state,
    make_train_step,
)
from nvembed_jax.train.trainable import model_params


class Program:
    """One stage's step on a mesh.

    Attributes:
        optimizer: of optax. grads: (trainable, frozen, batch, key) -> ((loss, metrics), gradients).
        step: the jitted function (state, frozen, batch) -> (state, metrics).
    """

    def __init__(self, recipe: Recipe, stage: StageConfig, config: ModelConfig, mesh: Any):
        self.recipe, self.stage, self.config, self.mesh = recipe, stage, config, mesh
        self.compute = recipe.compute.resolve(mesh if mesh.size > 1 else None)
        self.optimizer = make_optimizer(stage.optimizer, stage.steps)
        self.grads = self._grads()
        self.step = self._jitted()
        self._compiled: dict[Any, Any] = {}

    def init_state(self, trainable: Any) -> TrainState:
        """The state before the stage's first step, laid out on the mesh; takes over `trainable`."""

        def init(trainable: Any) -> TrainState:
            return init_state(trainable, self.optimizer, bool(self.stage.optimizer.ema_decay))

        places = param_shardings(self.mesh, jax.eval_shape(init, trainable))
        return jax.jit(init, out_shardings=places)(trainable)

    def abstract_state(self, trainable: Any) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        shapes = jax.eval_shape(
            lambda t: init_state(t, self.optimizer, bool(self.stage.optimizer.ema_decay)), trainable
        )
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            param_shardings(self.mesh, shapes),
        )

    def __call__(self, state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, Any]:
        """Runs one step; `state` is given up."""
        return self.compiled(state, frozen, batch)(state, frozen, batch)

    def compiled(self, state: TrainState, frozen: Any, batch: Any) -> Any:
        """The program for a batch of this shape."""
        shape = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch))
        shape = (shape, jax.tree.structure(batch))
        if shape not in self._compiled:
            self._compiled[shape] = self.step.lower(state, frozen, batch).compile()
        return self._compiled[shape]

    @property
    def num_compilations(self) -> int:
        """Programs compiled so far."""
        return len(self._compiled)

    def plan(self, state: Any, frozen: Any, limit: int = 0) -> MemoryPlan:
        """What a device will hold; from shapes alone."""
        stage = self.stage
        queries = stage.batch_size // stage.accumulate
        passages = queries * (1 + stage.negatives)
        shape = StageShape(
            queries=queries,
            passages=passages,
            # Without chunks both sides are kept for the backward pass.
            chunk=min(stage.chunk_size, passages) if stage.chunk_size else queries + passages,
            length=max(stage.query_length, stage.passage_length),
            cached=bool(stage.chunk_size) or stage.accumulate > 1,
            full_scores=stage.loss.in_batch,
        )
        sizes = {"frozen": frozen, "state": state, "stage": shape, "limit": limit}
        return plan_memory(self.config, self.compute, self.mesh, **sizes)

    def _params(self, trainable: Any, frozen: Any, key: Any) -> Any:
        return model_params(self.recipe.trainable, trainable, frozen, self.compute.dtype, key)

    def _grads(self) -> GradFn:
        stage = self.stage
        if stage.objective == "causal_lm":
            return causal_lm_grads(self.config, self.compute, self._params)

        def encode(trainable: Any, frozen: Any, tokens: Any, key: Any) -> Any:
            params = self._params(trainable, frozen, key)
            return embed(self.config, params, tokens, compute=self.compute)

        grads = contrastive_grads(
            encode,
            stage.loss,
            chunk_size=stage.chunk_size,
            shards=batch_shards(self.mesh),
            place=self._place,
        )
        return accumulated(grads, stage.accumulate, self._place)

    def _jitted(self) -> Any:
        mesh, decay = self.mesh, self.stage.optimizer.ema_decay
        step = make_train_step(self.grads, self.optimizer, seed=self.recipe.seed, ema_decay=decay)

        def laid_out(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, Any]:
            state, metrics = step(state, frozen, batch)
            whole = NamedSharding(mesh, PartitionSpec())
            return (
                jax.lax.with_sharding_constraint(state, param_shardings(mesh, state)),
                jax.lax.with_sharding_constraint(metrics, jax.tree.map(lambda _: whole, metrics)),
            )

        return jax.jit(laid_out, donate_argnums=0)

    def _place(self, tree: Any, axis: int) -> Any:
        """Rows stay split over `data` and `fsdp` at `axis`."""
        if self.mesh.size == 1:
            return tree
        spec = PartitionSpec(*([None] * axis), *batch_sharding(self.mesh).spec)
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, spec))
