"""e5-mistral-7b-instruct: causal Mistral-7B, last-token pooling, one epoch with synthetic data.

Source: arXiv 2401.00368 (Improving Text Embeddings with Large Language Models).
Known: LoRA rank 16; causal mask, hidden state of the closing EOS; instructions on the query side;
    in-batch and hard negatives; 1.8 M examples of 13 public sets and synthetic ones, 1 epoch.
    Second-hand: batch 2,048; learning rate 1e-4, linear decay; weight decay 0.1; 512 tokens.
Assumed: temperature 0.02; LoRA alpha 32, dropout 0.1; 100 steps of warm-up; 1 hard negative;
    weights of the sets (their sizes, capped); English only. ELI5, TriviaQA, DuReader and
    T2Ranking are missing: no builders.
Hardware: 8 x H100 80 GB, 7 h; 8 x A100 80 GB, 22 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 66.63, retrieval 56.9.

    nvembed train --config configs/e5_mistral_7b.py:MINED --workdir run

MINED: as in nv_embed_v2.py, which must stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")
SETS = (
    "msmarco", "hotpotqa", "fever_beir", "nq", "squad", "snli", "mnli", "miracl_en",
    "mr_tydi_english", "synthetic",
)  # fmt: skip


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "e5_mistral_7b"
    config.model.named = "e5_mistral_7b"
    config.trainable.full = ()
    config.stages = ("stage1",)
    known = config.stage2.sources
    del config.stage2
    sources = {name: known[name] for name in SETS if name in known}
    sources["quora"] = {
        "data": f"{mined}/quora.jsonl.gz" if mined else "tfds:quora",
        "weight": 100.0,
    }
    if mined:
        sources["synthetic"].weight = 500.0
    config.stage1.sources = sources
    config.stage1.update({"steps": 880, "batch_size": 2048, "negatives": 1})
    config.stage1.optimizer.update(
        {"learning_rate": 1e-4, "warmup_steps": 100, "weight_decay": 0.1}
    )
    return config
