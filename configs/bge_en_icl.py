"""bge-en-icl: causal Mistral-7B that learns to use examples of the task put before the query.

Source: arXiv 2409.15700 (Making Text Embedders Few-Shot Learners) and the authors' training code.
Known: causal mask and the last token's hidden state are kept; up to 5 examples before a query, of
    the same set; template <instruct> <query> <response>; temperature 0.02; hard negatives; LoRA;
    batches of one set, and no in-batch negatives in classification and clustering.
Assumed: LoRA rank 64, alpha 32, dropout 0.1; learning rate 1e-4, 100 steps of warm-up; batch 512;
    3,000 steps; 7 hard negatives; 2,048 tokens a query with its examples, 512 a passage; the sets
    of nv_embed_v2.py. The tags are ordinary pieces of Mistral's tokenizer, not three new tokens,
    and a reranker's scores are not distilled (`stage1.loss.distill_scores`, for data with scores).
Hardware: 8 x H100 80 GB, 23 h; 8 x A100 80 GB, 73 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 71.67 with examples (71.24 without, second-hand).

    nvembed train --config configs/bge_en_icl.py:MINED --workdir run

MINED: as in nv_embed_v2.py, which must stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")
SYMMETRIC = ("snli", "mnli", "sts12", "stsb", "synthetic")


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "bge_en_icl"
    config.model.named = "bge_en_icl"
    config.trainable.full = ()
    config.trainable.lora.rank = 64
    config.stages = ("stage1",)
    retrieval, config.stage1.sources = config.stage1.sources, config.stage2.sources
    del config.stage2
    for name, source in config.stage1.sources.items():
        source.shots = 5
        source.in_batch = name in retrieval or name in SYMMETRIC
    stage = config.stage1
    stage.update({"steps": 3000, "batch_size": 512, "batching": "homogeneous", "chunk_size": 32})
    stage.query_length = 2048
    stage.optimizer.update({"learning_rate": 1e-4, "warmup_steps": 100, "weight_decay": 0.0})
    return config
