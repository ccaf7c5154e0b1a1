"""SFR-Embedding-Mistral: e5-mistral-7b-instruct tuned further on many tasks, a task a batch.

Source: the authors' report "SFR-Embedding-Mistral: Enhance Text Retrieval with Transfer Learning".
Known: starts from e5-mistral-7b-instruct; batch 2,048; learning rate 1e-5, 100 steps of warm-up,
    linear decay; 7 hard negatives; 128 tokens a query, 256 a passage; LoRA rank 8 on all linear
    layers; every batch of one task; no in-batch negatives in classification and clustering, whose
    labels are the passages; the sets below; 15 hours on 8 A100.
Assumed: 1,000 steps; temperature 0.02; LoRA alpha 16, no dropout; no weight decay; weights of the
    sets (their sizes, capped); AmazonReviews, whose labels are bare numbers, is described by
    examples. DBPedia, SciDocs and StackOverflowDupQuestions are missing: no builders.
Hardware: 8 x H100 80 GB, 11 h; 8 x A100 80 GB, 35 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 67.6, retrieval 59.0.

    nvembed train --config configs/sfr_embedding_mistral.py:MINED --workdir run

MINED: as in nv_embed_v2.py, which must stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")
RETRIEVAL = (
    "msmarco", "nq", "fiqa", "scifact", "nfcorpus", "fever_beir", "hotpotqa", "snli", "mnli",
    "sts12", "stsb",
)  # fmt: skip
BY_LABEL = (
    "arxiv_s2s", "arxiv_p2p", "biorxiv_s2s", "biorxiv_p2p", "medrxiv_s2s", "medrxiv_p2p",
    "emotion", "mtop_intent", "toxic_conversations", "tweet_sentiment_extraction",
)  # fmt: skip


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "sfr_embedding_mistral"
    config.model.update({"path": "intfloat/e5-mistral-7b-instruct", "named": "e5_mistral_7b"})
    config.trainable.full = ()
    config.trainable.lora.update({"rank": 8, "alpha": 16.0, "dropout": 0.0})
    config.stages = ("stage1",)
    known = config.stage2.sources
    del config.stage2
    sources = {name: known[name] for name in (*RETRIEVAL, *BY_LABEL, "amazon_reviews")}
    for name in BY_LABEL:
        sources[name].update({"in_batch": False, "labels": "texts"})
    sources["amazon_reviews"].in_batch = False
    sources["quora"] = {
        "data": f"{mined}/quora.jsonl.gz" if mined else "tfds:quora",
        "weight": 100.0,
    }
    stage = config.stage1
    stage.sources = sources
    stage.update({"steps": 1000, "batch_size": 2048, "batching": "homogeneous", "chunk_size": 256})
    stage.update({"query_length": 128, "passage_length": 256})
    stage.optimizer.update({"learning_rate": 1e-5, "warmup_steps": 100, "weight_decay": 0.0})
    return config
