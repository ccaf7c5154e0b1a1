"""Linq-Embed-Mistral: e5-mistral-7b-instruct on refined and synthetic data.

Source: arXiv 2412.03223 (Linq-Embed-Mistral Technical Report).
Known: starts from e5-mistral-7b-instruct; batches of one task ("homogeneous task ordering"), and
    fine-tuning on mixed tasks; hard negatives chosen by a teacher for each task; synthetic data.
    Second-hand: LoRA rank 16, alpha 32 on all linear layers.
Assumed: everything else: two stages, the first with batches of one task, the second mixed; batch
    2,048; 1,000 and 250 steps; learning rates 2e-5 and 1e-5; 7 hard negatives; temperature 0.02;
    sets as sfr_embedding_mistral.py, and synthetic examples.
Hardware: 8 x H100 80 GB, 14 h; 8 x A100 80 GB, 43 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 68.2, retrieval 60.2.

    nvembed train --config configs/linq_embed_mistral.py:MINED --workdir run

MINED: as in nv_embed_v2.py, which must stand beside this file, as must sfr_embedding_mistral.py.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("sfr_embedding_mistral.py")


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "linq_embed_mistral"
    config.trainable.lora.update({"rank": 16, "alpha": 32.0, "dropout": 0.1})
    if mined:
        config.stage1.sources["synthetic"] = {
            "data": f"{mined}/synthetic.jsonl.gz",
            "weight": 100.0,
        }
    config.stages = ("stage1", "stage2")
    config.stage1.optimizer.learning_rate = 2e-5
    config.stage2 = config.stage1.copy_and_resolve_references()
    config.stage2.update({"batching": "blended", "steps": 250})
    config.stage2.optimizer.update({"learning_rate": 1e-5, "warmup_steps": 25})
    return config
