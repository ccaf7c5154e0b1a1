"""The smallest complete two-stage run: a tiny NV-Embed on a CPU, in minutes.

Source: arXiv 2405.17428 (NV-Embed, v3), section 4, in miniature.
Known: stage 1 with in-batch and hard negatives, stage 2 without in-batch negatives.
Assumed: every number. The model has 3 layers, 64 wide, the package's own tokenizer and random
    weights; it needs no network.
Hardware: 2 CPU cores, 3 min.
Expected: no score; this shows that the pipeline runs, no more.

    nvembed train --config configs/tiny_cpu.py --workdir run \\
        --config.stage1.data=pairs.jsonl --config.stage2.data=pairs.jsonl
"""

from __future__ import annotations

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Two stages; `data` names the examples of each (JSONL)."""
    config = ConfigDict()
    config.name = "tiny_cpu"
    config.seed = 0
    config.model = ConfigDict(
        {
            "named": "tiny",
            "tokenizer": "packaged",
            "overrides": {"backbone": {"vocab_size": 8192}, "text": {"max_length": 512}},
        }
    )
    config.checkpoint_every = 50
    config.keep = 2
    config.log_every = 10
    config.stages = ("stage1", "stage2")
    config.stage1 = _stage(steps=100, learning_rate=1e-3, in_batch=True)
    config.stage2 = _stage(steps=50, learning_rate=5e-4, in_batch=False)
    return config


def _stage(steps: int, learning_rate: float, in_batch: bool) -> ConfigDict:
    return ConfigDict(
        {
            "data": "",
            "steps": steps,
            "batch_size": 32,
            "negatives": 7,
            "query_length": 64,
            "passage_length": 128,
            "in_batch": in_batch,
            "loss": {"temperature": 0.02, "in_batch": in_batch},
            "optimizer": {"learning_rate": learning_rate, "warmup_steps": 10},
        }
    )
