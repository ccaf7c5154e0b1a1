"""A frozen model whose embeddings a student learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nvembed_jax.checkpoint import store
from nvembed_jax.model import Compute
from nvembed_jax.runner import Runner
from nvembed_jax.runtime import compute_dtype
from nvembed_jax.text import instructions
from nvembed_jax.text.tokenizer import Tokenizer


def load_teacher(path: str) -> Callable[[list[str], list[str]], np.ndarray]:
    """A function (tasks or prefixes of the student, texts) -> unit vectors [N, E].

    The teacher reads texts with its own query prompt where the student had a prefix, and with its
    passage prompt where it had none.

    Raises:
        FileNotFoundError, ValueError: no such model, or several processes.
    """
    if jax.process_count() > 1:
        raise ValueError("a teacher runs in one process; label the data first, or train in one")
    folder = store.resolve_model(path)
    config = store.load_config(folder)
    dtype = compute_dtype(None)
    runner = Runner(config, store.load_params(folder, config, dtype=dtype), Compute(dtype=dtype))
    tokenizer = Tokenizer.from_folder(folder, config.text)
    longest = min(config.text.max_length, 512)

    def teach(prefixes: list[str], texts: list[str]) -> np.ndarray:
        out = np.zeros((len(texts), config.embed_dim), np.float32)
        for instructed in (True, False):
            chosen = [i for i, prefix in enumerate(prefixes) if bool(prefix) == instructed]
            if chosen:
                out[chosen] = _embedded([texts[i] for i in chosen], instructed)
        return out

    def _embedded(texts: list[str], instructed: bool) -> np.ndarray:
        side = instructions.query_prefix if instructed else instructions.passage_prefix
        prefix = side(config.text)
        out = np.zeros((len(texts), config.embed_dim), np.float32)
        parts: Any = runner.run(
            texts,
            lambda batch: tokenizer.encode(batch, prefix=prefix, max_length=longest),
            max_length=longest,
            pad_id=tokenizer.pad_id,
            batch_tokens=None,
            normalize=True,
        )
        for indices, rows in parts:
            out[indices] = rows
        return out

    return teach
