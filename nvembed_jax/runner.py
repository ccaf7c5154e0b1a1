"""The device side of `Embedder`: parameters in their fastest form, batches of few static shapes,
a few of them dispatched ahead of the one being fetched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from nvembed_jax.batch import TokenBatch
from nvembed_jax.config import ModelConfig
from nvembed_jax.model import Compute, embed, fold_latents, unstack_layers
from nvembed_jax.sharding import batch_sharding, batch_shards, param_shardings
from nvembed_jax.text.packing import TokenArrays, bucket_lengths, pad, plan_batches
from nvembed_jax.text.tokenizer import Encoded
from nvembed_jax.text.windows import tokenized_windows

IN_FLIGHT = 4  # batches
BATCH_TOKENS = {"cpu": 2048, "gpu": 16384, "tpu": 16384}  # a data shard


class Runner:
    """Runs one model on its devices.

    Attributes:
        params: as they are run: latent block folded (if asked for), layers unstacked on one CPU.
    """

    def __init__(
        self, config: ModelConfig, params: dict[str, Any], compute: Compute, fold: bool = True
    ):
        self.compute, self.mesh = compute, compute.mesh
        self.params = prepare_params(config, params, fold, compute.mesh)
        self._programs: dict[bool, Any] = {
            normalize: jax.jit(partial(embed, config, compute=compute, normalize=normalize))
            for normalize in (True, False)
        }

    @property
    def num_compilations(self) -> int:
        """Programs compiled so far: one a batch shape."""
        return sum(program._cache_size() for program in self._programs.values())

    def default_batch_tokens(self) -> int:
        """Tokens of a batch, padding included, that keep the devices busy."""
        return BATCH_TOKENS.get(jax.default_backend(), 16384) * batch_shards(self.mesh)

    def embed(self, arrays: TokenArrays, normalize: bool) -> Any:
        """Dispatches one batch; embeddings [B, D] on the devices."""
        batch = TokenBatch(*arrays)
        if self.mesh is not None:
            batch = jax.device_put(batch, batch_sharding(self.mesh))
        return self._programs[normalize](self.params, batch)

    def run(
        self,
        texts: list[str],
        tokenize: Callable[[list[str]], list[Encoded]],
        *,
        max_length: int,
        pad_id: int,
        batch_tokens: int | None,
        normalize: bool,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (positions in `texts`, their embeddings) batch by batch."""
        budget = self.default_batch_tokens() if batch_tokens is None else batch_tokens
        buckets = bucket_lengths(max_length)
        waiting: deque[tuple[np.ndarray, Any]] = deque()
        for indices, encoded in tokenized_windows(texts, tokenize):
            lengths = np.array([len(item.input_ids) for item in encoded])
            plans = plan_batches(lengths, budget, buckets, row_multiple=batch_shards(self.mesh))
            for plan in plans:
                chosen = [encoded[i] for i in plan.indices]
                arrays = pad(chosen, plan.length, plan.rows, pad_id)
                waiting.append((indices[plan.indices], self.embed(arrays, normalize)))
                if len(waiting) > IN_FLIGHT:
                    yield _fetch(*waiting.popleft())
        while waiting:
            yield _fetch(*waiting.popleft())


def _fetch(indices: np.ndarray, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    return indices, np.asarray(rows)[: len(indices)]


def prepare_params(
    config: ModelConfig, params: dict[str, Any], fold: bool, mesh: Any = None
) -> dict[str, Any]:
    """Parameters in the form that runs fastest: block folded, and on one CPU layers unstacked."""
    if fold and config.pooling == "latent" and "folded" not in params["pooling"]:
        run = partial(fold_latents, config)
        block = {"pooling": params["pooling"]}
        shapes = jax.eval_shape(run, block)
        shardings = None if mesh is None else param_shardings(mesh, shapes)
        params = {**params, **jax.jit(run, out_shardings=shardings)(block)}
    if mesh is None and jax.default_backend() == "cpu" and "layers" in params["backbone"]:
        # On the host: views of the stacked arrays, not a compiled slice for each of them.
        host = jax.tree.map(np.asarray, params["backbone"])
        params = {**params, **jax.device_put(unstack_layers({"backbone": host}))}
    return params
