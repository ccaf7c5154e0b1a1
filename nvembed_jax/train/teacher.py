"""A frozen model whose embeddings a student learns from."""

from __future__ import annotations

import json
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from nvembed_jax.checkpoint import store
from nvembed_jax.config import to_dict
from nvembed_jax.data.embedding_cache import EmbeddingCache
from nvembed_jax.model import Compute
from nvembed_jax.runner import Runner
from nvembed_jax.runtime import compute_dtype
from nvembed_jax.text import instructions
from nvembed_jax.text.tokenizer import Tokenizer

MAX_LENGTH = 512  # tokens a teacher reads, unless a recipe says otherwise


class Teacher:
    """Embeds texts for a student; called with (the student's prefixes, texts).

    It reads texts with its own query prompt where the student had a prefix, and with its passage
    prompt where it had none. With a cache a text is embedded once, also by later runs.

    Args:
        path: folder or name of the model.
        dtype: of weights and activations; None: the device's default.
        max_length: tokens; 0: the model's own, `MAX_LENGTH` at most.
        cache: folder for a file of embeddings; None: nothing is kept.

    Raises:
        FileNotFoundError, ValueError: no such model, or several processes.
    """

    def __init__(
        self, path: str, *, dtype: Any = None, max_length: int = 0, cache: Path | None = None
    ):
        if jax.process_count() > 1:
            raise ValueError("a teacher runs in one process; label the data first, or train in one")
        folder = store.resolve_model(path)
        self.config = store.load_config(folder)
        dtype = compute_dtype(dtype)
        self.max_length = max_length or min(self.config.text.max_length, MAX_LENGTH)
        self._tokenizer = Tokenizer.from_folder(folder, self.config.text)
        params = store.load_params(folder, self.config, dtype=dtype)
        self._runner = Runner(self.config, params, Compute(dtype=dtype))
        self._cache = None
        if cache is not None:
            facts = {
                "weights": store.weights_fingerprint(folder),
                "config": to_dict(self.config),
                "tokenizer": self._tokenizer.fingerprint,
                "dtype": str(dtype),
                "max_length": self.max_length,
            }
            name = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
            self._cache = EmbeddingCache(cache / f"teacher-{name}.sqlite", facts)

    def __call__(self, prefixes: list[str], texts: list[str]) -> Float[np.ndarray, "N E"]:
        """Unit vectors."""
        out = np.zeros((len(texts), self.config.embed_dim), np.float32)
        for instructed in (True, False):
            chosen = [i for i, prefix in enumerate(prefixes) if bool(prefix) == instructed]
            if chosen:
                side = instructions.query_prefix if instructed else instructions.passage_prefix
                out[chosen] = self._known(side(self.config.text), [texts[i] for i in chosen])
        return out

    def _known(self, prefix: str, texts: list[str]) -> Float[np.ndarray, "N E"]:
        """From the cache, else embedded and kept: in one transaction, so that a run that is killed
        here and resumed embeds the same texts together, and gets the same bits."""
        if self._cache is None:
            return self._embedded(prefix, texts)
        keys = [_key(prefix, text) for text in texts]
        found = self._cache.get(keys)
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if fresh:
            rows = self._embedded(prefix, list(fresh.values()))
            self._cache.put(list(fresh), rows)
            found |= dict(zip(fresh, rows, strict=True))
        return np.stack([found[key] for key in keys])

    def _embedded(self, prefix: str, texts: list[str]) -> Float[np.ndarray, "N E"]:
        out = np.zeros((len(texts), self.config.embed_dim), np.float32)
        parts = self._runner.run(
            texts,
            lambda batch: self._tokenizer.encode(batch, prefix=prefix, max_length=self.max_length),
            max_length=self.max_length,
            pad_id=self._tokenizer.pad_id,
            batch_tokens=None,
            normalize=True,
        )
        for indices, rows in parts:
            out[indices] = rows
        return out


def _key(prefix: str, text: str) -> bytes:
    return blake2b(f"{prefix}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
