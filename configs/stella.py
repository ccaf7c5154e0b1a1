"""stella-en-1.5B-v5: a small decoder that learns a large model's embeddings, then shorter ones.

Source: the model card of stella_en_1.5B_v5; arXiv 2412.19048 (Jasper and Stella) for the method.
Known: Qwen2-1.5B (from gte-Qwen2-1.5B-instruct), bidirectional, mean pooling, a dense layer to the
    width of the embedding; distillation with a cosine loss and a loss on similarities within the
    batch; Matryoshka widths; two prompts, one for retrieval, one for similar sentences.
Assumed: one teacher, NV-Embed-v2 (the paper joins two); weights 10 and 200 of the two losses; no
    relative-similarity loss; one dense layer of 4,096 whose leading widths are trained, in place of
    one layer a width; all weights trained from the start; batch 128; 20,000 and 10,000 steps;
    learning rates 1e-4 and 5e-5; the sets of nv_embed_v2.py.
Hardware: 8 x H100 80 GB, 7 h; 8 x A100 80 GB, 22 h (estimates: docs/recipes.md), and the
    teacher's forward passes.
Expected: MTEB-56 average 71.19 at 1,024 dimensions (the published model).

    nvembed train --config configs/stella.py:MINED --workdir run --config.teacher=nvidia/NV-Embed-v2

MINED: as in nv_embed_v2.py, which must stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")
WIDTHS = (512, 768, 1024, 2048, 4096)


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "stella"
    config.teacher = "nvidia/NV-Embed-v2"
    config.model = ConfigDict(
        {
            "path": "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
            "named": "stella_en_1_5b_v5",
            "tokenizer": "",
            "overrides": {
                "projections": ({"in_dim": 1536, "out_dim": WIDTHS[-1]},),
                "matryoshka_dims": WIDTHS,
            },
        }
    )
    config.trainable = ConfigDict({"full": (".*",), "frozen": ()})
    config.stage1.sources = config.stage2.sources
    config.stage2 = config.stage1.copy_and_resolve_references()
    distill = {"distill_cosine": 10.0, "distill_similarity": 200.0}
    config.stage1.update({"steps": 20_000, "negatives": 1})
    config.stage1.loss = ConfigDict({"contrastive": 0.0, "in_batch": False, **distill})
    config.stage1.optimizer.learning_rate = 1e-4
    config.stage2.update({"steps": 10_000})
    config.stage2.loss = ConfigDict(
        {"temperature": 0.02, "in_batch": False, "matryoshka_dims": WIDTHS, **distill}
    )
    config.stage2.optimizer.learning_rate = 5e-5
    return config
