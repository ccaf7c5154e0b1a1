"""SFR-Embedding-2_R: the successor of SFR-Embedding-Mistral, tuned in several stages.

Source: the model card of Salesforce/SFR-Embedding-2_R.
Known: Mistral-7B, last-token pooling, instructions as e5-mistral; training in several stages.
Assumed: everything else, since no report was published: retrieval first, then all tasks; otherwise
    as sfr_embedding_mistral.py, with rank 16 and half the learning rate in the second stage.
Hardware: 8 x H100 80 GB, 22 h; 8 x A100 80 GB, 69 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 70.31.

    nvembed train --config configs/sfr_embedding_2r.py:MINED --workdir run

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
    config.name = "sfr_embedding_2r"
    config.trainable.lora.update({"rank": 16, "alpha": 32.0})
    config.stages = ("stage1", "stage2")
    config.stage2 = config.stage1.copy_and_resolve_references()
    config.stage2.optimizer.learning_rate = config.stage1.optimizer.learning_rate / 2
    config.stage1.sources = {
        name: source
        for name, source in config.stage1.sources.items()
        if source.get("in_batch", True)
    }
    return config
