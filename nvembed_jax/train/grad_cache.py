"""GradCache (arXiv 2101.06983): exact gradients of a loss over a large batch, embedded in chunks.

Memory holds the activations of one chunk, all embeddings and the scores, whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Place = Callable[
    [Any, int], Any
]  # (tree of arrays, axis of the rows) -> tree, laid out on the mesh


def value_and_grad(
    encode: Callable[[Any, Any], Any],
    loss: Callable[..., tuple[Any, Any]],
    chunks: Sequence[int],
    place: Place = lambda tree, axis: tree,
) -> Callable[..., Any]:
    """A function (params, batches, *rest) -> ((loss, metrics), gradients of params in float32).

    Args:
        encode: (params, batch) -> embeddings [B, D], a row for every row of the batch.
        loss: (*embeddings, *rest) -> (scalar, metrics), one matrix of embeddings a batch.
        chunks: into how many parts each batch is cut; 1 everywhere is plain differentiation.
        place: fixes the layout of the rows on a mesh after every cut, so that none is moved.
    """

    def direct(params: Any, batches: Sequence[Any], *rest: Any) -> Any:
        def total(params: Any) -> Any:
            return loss(*(encode(params, batch) for batch in batches), *rest)

        return jax.value_and_grad(total, has_aux=True)(params)

    def cached(params: Any, batches: Sequence[Any], *rest: Any) -> Any:
        parts = [split_rows(b, n, place) for b, n in zip(batches, chunks, strict=True)]
        embeddings = [
            join_rows(jax.lax.map(lambda part: encode(params, part), part), place) for part in parts
        ]
        (value, metrics), cotangents = jax.value_and_grad(
            lambda embeddings: loss(*embeddings, *rest), has_aux=True
        )(embeddings)
        grads = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
        for part, cotangent, n in zip(parts, cotangents, chunks, strict=True):
            grads, _ = jax.lax.scan(
                lambda sums, xs: (_add_pullback(encode, params, sums, *xs), None),
                grads,
                (part, split_rows(cotangent, n, place)),
            )
        return (value, metrics), grads

    return direct if all(n == 1 for n in chunks) else cached


def split_rows(tree: Any, parts: int, place: Place = lambda tree, axis: tree) -> Any:
    """Rows [B, ...] to [parts, B / parts, ...], strided: part i has rows i, i + parts, ...

    Every device keeps its own rows: cutting the batch into runs instead would move all of them.
    """

    def split(leaf: Any) -> Any:
        return jnp.swapaxes(leaf.reshape(-1, parts, *leaf.shape[1:]), 0, 1)

    return place(jax.tree.map(split, tree), 1)


def join_rows(tree: Any, place: Place = lambda tree, axis: tree) -> Any:
    """The inverse of `split_rows`."""

    def join(leaf: Any) -> Any:
        return jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

    return place(jax.tree.map(join, tree), 0)


def chunk_count(rows: int, chunk_size: int, shards: int = 1) -> int:
    """The fewest equal chunks of at most `chunk_size` rows whose rows split over `shards`.

    Raises:
        ValueError: there is none.
    """
    for count in range(max(1, -(-rows // chunk_size)), rows + 1):
        if rows % count == 0 and rows // count % shards == 0:
            return count
    raise ValueError(
        f"{rows} texts cannot be cut into equal chunks of at most {chunk_size} that split over "
        f"{shards} devices; make the batch a multiple of {shards} and chunk_size at least {shards}"
    )


def _add_pullback(encode: Any, params: Any, sums: Any, batch: Any, cotangent: Any) -> Any:
    _, pullback = jax.vjp(lambda p: encode(p, batch), params)
    (grads,) = pullback(cotangent)
    return jax.tree.map(lambda total, grad: total + grad.astype(total.dtype), sums, grads)
