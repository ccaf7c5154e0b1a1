"""Pairs whose cosines are written in their texts, and models that read them there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from nvembed_jax.calibration.pairs import PairScores


class WrittenModel:
    """The text "anchor" is the first axis; every other text holds its cosine with it.

    Args:
        bend: what this model makes of the cosine. Queries get their sign turned round.
    """

    def __init__(self, name: str, bend: Callable[[np.ndarray], np.ndarray] = lambda s: s) -> None:
        self.config, self.fingerprint = SimpleNamespace(name=name), f"fingerprint of {name}"
        self.bend, self.tasks = bend, []

    def encode_document(self, inputs: list[str], **options: Any) -> np.ndarray:
        anchors = np.array([text == "anchor" for text in inputs])
        written = np.array([0.0 if text == "anchor" else float(text.split()[0]) for text in inputs])
        cosine = np.where(anchors, 1.0, self.bend(written))
        # Longer than one: scores are cosines, whatever a model's norms are.
        return 3 * np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1).astype(np.float32)

    def encode_query(self, inputs: list[str], task: Any = None, **options: Any) -> np.ndarray:
        self.tasks.append(task)
        return -self.encode_document(inputs, **options)


def square(cosine: np.ndarray) -> np.ndarray:
    """Rises with a cosine above 0, and lies below it."""
    return cosine**2


def rows(cosines: Any, labels: Any = None, keys: tuple[str, str] = ("text1", "text2")) -> list:
    found = [dict(zip(keys, ("anchor", f"{c:.6f}"), strict=True)) for c in cosines]
    for row, label in zip(found, labels if labels is not None else (), strict=labels is not None):
        row["label"] = int(label)
    return found


def write_pairs(path: Path, pairs: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return path


def noisy_scores(count: int, seed: int = 0, new: Callable = square) -> PairScores:
    """Two models that see the same truth with different noise; 30 % of the pairs match."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.3).astype(np.int64)
    truth = 0.35 + 0.3 * labels
    old = np.clip(truth + 0.1 * rng.normal(size=count), 0, 1)
    other = np.clip(truth + 0.1 * rng.normal(size=count), 0, 1)
    return PairScores(old=old, new=new(other), labels=labels)
