"""nv-embedqa-e5-v5: E5-large tuned for question answering; small enough for one GPU.

Source: the model card of nv-embedqa-e5-v5; arXiv 2212.03533 (E5) for the start and the prefixes.
Known: starts from E5-large-unsupervised, 24 layers, 1,024 wide, mean pooling; prefixes "query: "
    and "passage: "; 512 tokens; public and private question-answering sets.
Assumed: every hyperparameter: in-batch and 4 hard negatives; temperature 0.02; batch 1,024; 3,000
    steps; learning rate 1e-5; all weights trained; sets that are public, by their sizes, capped.
Hardware: 8 x H100 80 GB, 1.6 h; 8 x A100 80 GB, 5 h (estimates: docs/recipes.md).
Expected: no MTEB average is published.

    nvembed train --config configs/nv_embedqa_e5_v5.py:MINED --workdir run

MINED: as in nv_embed_v2.py, which must stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")
SETS = ("nq", "squad", "hotpotqa", "fever_beir", "paq", "stackexchange")


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "nv_embedqa_e5_v5"
    config.model.update({"path": "intfloat/e5-large-unsupervised", "named": "nv_embedqa_e5_v5"})
    config.trainable = ConfigDict({"full": (".*",), "frozen": ()})
    config.mesh.fsdp = 1
    config.stages = ("stage1",)
    del config.stage2
    stage = config.stage1
    stage.sources = {name: stage.sources[name] for name in SETS}
    stage.update({"steps": 3000, "batch_size": 1024, "negatives": 4, "chunk_size": 512})
    stage.optimizer.update({"learning_rate": 1e-5, "warmup_steps": 300, "weight_decay": 0.01})
    return config
