"""The recipes made small, and training examples for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nvembed_jax.config import NAMED_CONFIGS, BertConfig
from nvembed_jax.train.config_file import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path.name for path in CONFIGS.glob("*.py"))
# Variants that an argument chooses, beside the default of each file.
VARIANTS = ("nv_embed_single_stage.py:on", "gte.py:base")
WIDTH = 32
ANIMALS = ("cat", "dog", "owl", "ant", "fox", "cow", "bee", "elk", "hen", "yak", "eel", "emu")


def write_pairs(path: Path) -> Path:
    """A few examples with two negatives each."""
    rows = [
        {
            "query": f"what does the {animal} eat",
            "positive": f"the {animal} eats what it finds",
            "negatives": [f"the {animal} sleeps all day", f"a {other} eats grass"],
            "task": "Given a question, retrieve the answer",
        }
        for animal, other in zip(ANIMALS, ANIMALS[1:] + ANIMALS[:1], strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf8")
    return path


def without_checkpoint(file: str) -> Any:
    """The recipe with random weights of the same sizes: nothing to download."""
    config = load_config(CONFIGS / file)
    config.model.path, config.model.tokenizer = "", "packaged"
    return config


def small(file: str, data: Path) -> Any:
    """The recipe with a model 32 wide and two steps a stage, on one file.

    Rates and ranks are the same for all: recipes that differ in these alone share their programs.
    """
    config = without_checkpoint(file)
    sizes = {"embed_dim": WIDTH, "mlp_dim": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 8192}
    model, overrides = NAMED_CONFIGS[config.model.named](), config.model.overrides
    if not isinstance(model.backbone, BertConfig):
        sizes |= {"num_kv_heads": 1, "head_dim": 16}
    overrides.backbone = sizes
    if model.latent is not None:
        heads = {"num_cross_heads": 2, "cross_head_dim": 16}
        overrides.latent = {"num_latents": 8, "latent_dim": WIDTH, **heads}
    if model.projections:
        overrides.projections = ({"in_dim": WIDTH, "out_dim": WIDTH},)
    if model.projections or "matryoshka_dims" in overrides:
        overrides.matryoshka_dims = (8, WIDTH)
    if "compute" in config:  # on a CPU, bfloat16 doubles the time of compilation
        config.compute.update({"dtype": "float32", "frozen_dtype": "float32"})
    if "trainable" in config and "lora" in config.trainable:
        config.trainable.lora.update({"rank": 4, "alpha": 8.0, "dropout": 0.1})
    config.mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    for name in config.stages:
        _small_stage(config[name], data)
    return config


def _small_stage(stage: Any, data: Path) -> None:
    """Two steps of eight short examples; in-batch negatives, losses and chunks as they are."""
    sources = stage.get("sources") or {"pairs": {}}
    stage.sources = {name: {**source, "data": str(data)} for name, source in sources.items()}
    stage.data = ""
    chunk = 8 if stage.get("chunk_size") else 0
    parts = 2 if stage.get("accumulate", 1) > 1 else 1
    stage.update({"steps": 2, "batch_size": 8, "chunk_size": chunk, "accumulate": parts})
    stage.update({"negatives": min(stage.negatives, 2), "length_buckets": 0})
    stage.update({"query_length": 32, "passage_length": 32})
    stage.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 1, "weight_decay": 0.01})
    if "loss" in stage and stage.loss.get("matryoshka_dims"):
        stage.loss.matryoshka_dims = (8, WIDTH)
