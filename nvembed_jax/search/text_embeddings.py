"""Texts of a file on disk, and their embeddings there, where a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nvembed_jax.search.mining_embeddings import EmbeddingCache, Teacher
from nvembed_jax.search.mining_texts import TextStore


@dataclass(kw_only=True)
class TextEmbeddings(EmbeddingCache):
    """A folder of embeddings by model and texts; what is there already is not made again."""

    def texts(self, model: Teacher, store: TextStore) -> Float[np.ndarray, "N D"]:
        """Memory map of the embeddings of all texts, as passages."""

        def encode(texts: list[str]) -> np.ndarray:
            return model.encode_document(texts, show_progress_bar=False, **self.encoding)

        return self._embedded(model, "texts", store, encode)

    def remove(self) -> None:
        """Removes the embeddings of this run, and their folder where nothing else is in it."""
        for path in self.written:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def embedding_folder(out: Path, cache: str | Path | None) -> Path:
    """Where the embeddings of a run stand: in the folder that was named, else beside its output."""
    return Path(f"{out}.cache") if cache is None else Path(cache)


def loaded(model: Teacher | Callable[[], Any]) -> Teacher:
    """The model itself, or what a function loads."""
    return model() if callable(model) else model
