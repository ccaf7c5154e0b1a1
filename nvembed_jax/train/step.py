"""One training step: (state, frozen parameters, batch) -> (state, metrics), for any objective that
knows how to embed; pure, jitted by the trainer with shardings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from nvembed_jax.batch import ContrastiveBatch, TokenBatch
from nvembed_jax.train import grad_cache
from nvembed_jax.train.losses import LossConfig, total_loss

EncodeFn = Callable[[Any, Any, TokenBatch, Any], Any]  # (trainable, frozen, tokens, key) -> [B, D]
GradFn = Callable[
    [Any, Any, Any, Any], Any
]  # (trainable, frozen, batch, key) -> ((loss, m), grads)


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        step: int32 scalar, steps done in this stage.
        trainable: float32 parameters (`train/trainable.py`).
        opt_state: of optax. ema: running mean of `trainable`, or None.
    """

    step: Any
    trainable: Any
    opt_state: Any
    ema: Any = None


def init_state(trainable: Any, optimizer: Any, ema: bool = False) -> TrainState:
    """The state before the first step of a stage."""
    mean = jax.tree.map(jnp.copy, trainable) if ema else None
    return TrainState(jnp.int32(0), trainable, optimizer.init(trainable), mean)


def contrastive_grads(
    encode: EncodeFn,
    loss: LossConfig,
    *,
    chunk_size: int = 0,
    shards: int = 1,
    place: grad_cache.Place = lambda tree, axis: tree,
) -> GradFn:
    """Loss and gradients of a `ContrastiveBatch`.

    Args:
        chunk_size: texts embedded at once (GradCache); 0: all.
        shards: parts that the rows of a batch are split into on the mesh.
    """

    def grads(trainable: Any, frozen: Any, batch: ContrastiveBatch, key: Any) -> Any:
        texts = (batch.queries, batch.passages)
        rows = [part.num_texts or part.input_ids.shape[0] for part in texts]
        chunks = [grad_cache.chunk_count(n, chunk_size or n, shards) for n in rows]
        run = grad_cache.value_and_grad(
            lambda params, tokens: encode(params, frozen, tokens, key),
            lambda queries, passages, batch: total_loss(loss, queries, passages, batch),
            chunks,
            place,
        )
        return run(trainable, texts, batch)

    return grads


def accumulated(
    grads: GradFn, parts: int, place: grad_cache.Place = lambda tree, axis: tree
) -> GradFn:
    """Gradients averaged over `parts` micro-batches one after the other; in-batch negatives stay
    within a micro-batch.
    """
    if parts == 1:
        return grads

    def run(trainable: Any, frozen: Any, batch: Any, key: Any) -> Any:
        def add(sums: Any, part: Any) -> Any:
            (loss, metrics), grad = grads(trainable, frozen, part, key)
            out = jax.tree.map(lambda a, b: a + b.astype(a.dtype) / parts, sums, grad)
            return out, (loss, metrics)

        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), trainable)
        total, (losses, metrics) = jax.lax.scan(add, zeros, split_examples(batch, parts, place))
        return (jnp.mean(losses), jax.tree.map(jnp.mean, metrics)), total

    return run


def split_examples(
    batch: Any, parts: int, place: grad_cache.Place = lambda tree, axis: tree
) -> Any:
    """A batch to [parts, ...] micro-batches of whole examples, strided over the examples."""
    if not isinstance(batch, ContrastiveBatch):
        return grad_cache.split_rows(batch, parts, place)
    count, per_example = batch.passage_mask.shape

    def grouped(leaf: Any) -> Any:  # [B * P, ...] -> [B, P, ...]
        return leaf.reshape(count, per_example, *leaf.shape[1:])

    fields = {name: getattr(batch, name) for name in ("passages", "teacher_passages")}
    whole: Any = dataclasses.replace(batch, **jax.tree.map(grouped, fields))
    split = grad_cache.split_rows(whole, parts, place)

    def flat(leaf: Any) -> Any:  # [parts, B / parts, P, ...] -> [parts, B * P / parts, ...]
        return leaf.reshape(parts, -1, *leaf.shape[3:])

    fields = {name: getattr(split, name) for name in fields}
    return dataclasses.replace(split, **place(jax.tree.map(flat, fields), 1))


def make_train_step(
    grads: GradFn, optimizer: Any, *, seed: int = 0, ema_decay: float = 0.0
) -> Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Any]]]:
    """The step: gradients, optimizer, running mean. Dropout keys depend on (seed, step) only."""
    import optax

    def train_step(state: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, metrics), grad = grads(state.trainable, frozen, batch, key)
        updates, opt_state = optimizer.update(grad, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        ema = state.ema
        if ema is not None:
            ema = jax.tree.map(lambda a, b: ema_decay * a + (1 - ema_decay) * b, ema, trainable)
        metrics = {"loss": loss, **metrics, "grad_norm": optax.tree.norm(grad)}
        return TrainState(state.step + 1, trainable, opt_state, ema), metrics

    return train_step
