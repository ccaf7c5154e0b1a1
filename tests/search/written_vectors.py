"""A model whose embeddings stand in the texts, and a way to run single commands."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from nvembed_jax.cli.main import run


class WrittenVectors:
    """Embeds "3 4 any words" as the leading numbers, not scaled to length one.

    Attributes:
        encoded: the blocks of texts that came. fail_after: blocks, then the power goes out.
    """

    def __init__(self, name: str = "written", width: int = 2, fail_after: int | None = None):
        self.config, self.fingerprint = SimpleNamespace(name=name), f"fingerprint of {name}"
        self.width, self.fail_after = width, fail_after
        self.encoded: list[list[str]] = []

    def encode_document(self, inputs, **options):
        if self.fail_after == len(self.encoded):
            raise KeyboardInterrupt
        self.encoded.append(list(inputs))
        rows = [[float(x) for x in text.split()[: self.width]] for text in inputs]
        return np.array(rows, np.float32)

    def encode_query(self, inputs, task=None, **options):
        return self.encode_document(inputs, **options)


def written(vector, words: str = "") -> str:
    """The text that `WrittenVectors` embeds as `vector`."""
    return " ".join([*(f"{x:.6f}" for x in vector), words]).strip()


def written_command(name: str, width: int, capsys: Any, monkeypatch: Any) -> Callable[..., Any]:
    """Runs `nvembed NAME ARGS` with a model that reads vectors from texts: (code, out, err).

    Its `models` are those that the last call loaded.
    """
    monkeypatch.delenv("NVEMBED_MODEL", raising=False)
    models: list[WrittenVectors] = []

    def load(model: str | None, **options: Any) -> WrittenVectors:
        models.append(WrittenVectors(model or "default", width=width))
        return models[-1]

    monkeypatch.setattr("nvembed_jax.cli.options.load_model", load)

    def call(*args: object) -> tuple[int, str, str]:
        models.clear()
        code = run([name, *(str(arg) for arg in args)])
        return code, *capsys.readouterr()

    call.models = models
    return call
