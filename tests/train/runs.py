"""Small runs of the trainer: made-up data, a small recipe, the trainer as a process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import training_steps as steps

from nvembed_jax.train.recipe import Recipe, parse_recipe

WORDS = [
    *("river", "stone", "light", "paper", "green", "cloud", "music"),
    *("train", "window", "garden", "salt", "iron", "bread", "glass"),
]
CONFIG = """
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict(%s)
    config.stages = ("stage1", "stage2")
    return config
"""


def write_pairs(path: Path, count: int = 64, seed: int = 0, negatives: int = 2) -> Path:
    """Questions whose positive repeats their words, and negatives that do not."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            words = [str(word) for word in rng.choice(WORDS, 4)]
            row = {
                "query": f"where is {' '.join(words[:2])} {i}?",
                "positive": f"{' '.join(words)} number {i}",
                "negatives": [
                    f"{' '.join(rng.choice(WORDS, 3))} {i} {j}" for j in range(negatives)
                ],
            }
            file.write(json.dumps(row) + "\n")
    return path


def plain_recipe(data: Path, **changes: Any) -> dict[str, Any]:
    """Two stages of a few steps on a model of two narrow layers."""
    backbone = {**steps.SMALL, "vocab_size": 8192}
    latent = {"num_latents": 8, "latent_dim": 32, "num_cross_heads": 4, "cross_head_dim": 8}
    stage = {
        "data": str(data), "steps": 4, "batch_size": 8, "negatives": 2,
        "query_length": 32, "passage_length": 32, "length_buckets": 0,
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 0},
    }  # fmt: skip
    return {
        "name": "small",
        "seed": 1,
        "model": {
            "named": "tiny",
            "tokenizer": "packaged",
            "overrides": {"backbone": backbone, "latent": latent, "text": {"max_length": 64}},
        },
        "checkpoint_every": 2,
        "stage1": stage,
        "stage2": {**stage, "steps": 3, "in_batch": False, "loss": {"in_batch": False}},
        **changes,
    }


def recipe(data: Path, **changes: Any) -> Recipe:
    """`plain_recipe`, parsed."""
    return parse_recipe(plain_recipe(data, **changes))


def write_config(path: Path, plain: dict[str, Any]) -> Path:
    """A config file that gives `plain`."""
    path.write_text(CONFIG % repr(plain), encoding="utf-8")
    return path


def start(
    config: Path, workdir: Path, *options: str, devices: int = 1, **environment: str
) -> subprocess.Popen[str]:
    """`python -m nvembed_jax.train` as a process of its own."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0",
        "NVEMBED_COMPILATION_CACHE": str(config.parent / f"compiled-{devices}"),
        **environment,
    }
    command = [sys.executable, "-m", "nvembed_jax.train", "--config", str(config)]
    command += ["--workdir", str(workdir), *options]
    return subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str], timeout: float = 300) -> str:
    """Waits for a process that has to succeed; what it said."""
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, said
    return said


def model_hash(workdir: Path) -> str:
    """Of the weights of the trained model."""
    digest = hashlib.sha256()
    for file in sorted((workdir / "model").glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def losses(workdir: Path) -> list[tuple[str, int, float]]:
    """(stage, step, loss) of every line of metrics.jsonl."""
    lines = (workdir / "metrics.jsonl").read_text("utf8").splitlines()
    return [(row["stage"], row["step"], row["loss"]) for row in map(json.loads, lines)]
