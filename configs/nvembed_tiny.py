"""nvembed-tiny, second part: the two stages of NV-Embed on the distilled model.

Source: ours, after arXiv 2405.17428 (NV-Embed, v3), sections 3 and 4.
Known: stage 1 on retrieval pairs with in-batch and mined hard negatives; stage 2 on a blend with
    classification and inference sets, without in-batch negatives.
Assumed: every number. The teacher stays: its similarities hold what the few public pairs do not
    teach; temperature 0.05; learning rates 3e-4 and 1e-4; 2,000 and 1,000 steps of 64.
Hardware: 2 CPU cores, 1 h (an estimate).
Expected: no published score; experiments/016_nvembed_tiny has ours.

    nvembed train --config configs/nvembed_tiny.py:MINED --workdir run_stages \\
        --config.model.path=run_distill/model --config.teacher=teacher

MINED: the pairs of nvembed_tiny_distill.py, which must stand beside this file, with negatives.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nvembed_tiny_distill.py")
LABELLED = ("banking77", "hwu64", "snips")


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of NAME.jsonl.gz with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "nvembed_tiny"
    config.model.path = "run_distill/model"
    config.save_stages = True
    config.stages = ("stage1", "stage2")
    blend = config.stage1.sources.to_dict()
    retrieval = {name: source for name, source in blend.items() if name not in LABELLED}
    widths = tuple(config.stage1.loss.matryoshka_dims)
    config.stage1 = _stage(retrieval, widths, steps=2000, negatives=2, length=96, rate=3e-4)
    config.stage2 = _stage(blend, widths, steps=1000, negatives=4, length=64, rate=1e-4)
    config.stage2.in_batch = config.stage2.loss.in_batch = False
    return config


def _stage(
    sources: dict[str, dict],
    widths: tuple[int, ...],
    *,
    steps: int,
    negatives: int,
    length: int,
    rate: float,
) -> ConfigDict:
    return ConfigDict(
        {
            "data": "",
            "sources": sources,
            "steps": steps,
            "batch_size": 64,
            "negatives": negatives,
            "query_length": 48,
            "passage_length": length,
            "in_batch": True,
            "loss": {
                "temperature": 0.05,
                "in_batch": True,
                "false_negative_margin": 0.1,
                "matryoshka_dims": widths,
                "distill_similarity": 10.0,
                "distill_cosine": 1.0,
            },
            "optimizer": {"learning_rate": rate, "warmup_steps": 100, "schedule": "linear"},
        }
    )
