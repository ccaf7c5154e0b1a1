"""nv-embedqa-mistral-7b-v2: a bidirectional Mistral-7B with mean pooling, for question answering.

Source: the model card of nv-embedqa-mistral-7b-v2; arXiv 2407.15831 (NV-Retriever).
Known: Mistral-7B-v0.1 with LoRA, no causal mask, mean pooling, 512 tokens, no latent block.
    Second-hand, of NV-Retriever-v1, which is made the same way: LoRA rank 16, alpha 32; 192 tokens
    a query, 512 a passage; positive-aware hard negatives; stages as NV-Embed's.
Assumed: hyperparameters and sets as nv_embed_v2.py, retrieval alone in both stages; 4 hard
    negatives; instruction tokens are pooled; 10,000 steps and 5,000.
Hardware: 8 x H100 80 GB, 13 h; 8 x A100 80 GB, 41 h (estimates: docs/recipes.md).
Expected: no MTEB average is published; NV-Retriever-v1 reached 60.9 on MTEB retrieval.

    nvembed train --config configs/nv_embedqa_mistral_7b_v2.py:MINED --workdir run

MINED: as in nv_embed_v2.py, which must stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "nv_embedqa_mistral_7b_v2"
    config.model.named = "nv_embedqa_mistral_7b_v2"
    config.trainable.full = ()
    config.stage2.sources = config.stage1.sources
    for stage, steps in ((config.stage1, 10_000), (config.stage2, 5_000)):
        stage.update({"steps": steps, "negatives": 4, "query_length": 192})
    return config
