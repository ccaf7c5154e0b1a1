"""GTE: contrastive training in two stages, with all four blocks of similarities in the loss.

Source: arXiv 2308.03281 (Towards General Text Embeddings with Multi-stage Contrastive Learning);
    the model card of gte-Qwen2-7B-instruct for the larger model.
Known: stage 1 on pairs found on the web, without hard negatives, stage 2 on labelled triples; the
    loss compares queries with passages, queries with queries and passages with passages. gte-base:
    BERT-base, 110 M parameters, mean pooling. gte-Qwen2-7B-instruct: Qwen2-7B, bidirectional, last
    token, instructions on the query side.
Assumed: temperature 0.01. gte-base: batch 16,384 of 128 tokens, 50,000 steps, learning rate 2e-4;
    then batch 128 of 512 tokens, 15 hard negatives, 23,000 steps, 2e-5. The larger: batch 1,024,
    10,000 steps, 2e-5; then batch 128, 7 hard negatives, 10,000 steps, 1e-5. Public sets in place
    of 800 M pairs; all weights trained.
Hardware: 8 x H100 80 GB, 29 h, or 11 h for gte-base; 8 x A100 80 GB, 93 h, or 33 h (estimates:
    docs/recipes.md).
Expected: MTEB-56 average 70.24 (gte-Qwen2-7B-instruct), 62.39 (gte-base, second-hand).

    nvembed train --config configs/gte.py:qwen2_7b,MINED --workdir run
    nvembed train --config configs/gte.py:base,MINED --workdir run

MINED: as in nv_embed_v2.py, which must stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")
PAIRS = ("stackexchange", "paq", "msmarco", "nq", "snli", "mnli", "arxiv_title_abstract")
LARGE = {
    "path": "Qwen/Qwen2-7B",
    "named": "gte_qwen2_7b",
    "stage1": {"batch_size": 1024, "steps": 10_000, "chunk_size": 128},
    "stage2": {"batch_size": 128, "steps": 10_000, "chunk_size": 64, "negatives": 7},
    "rates": (2e-5, 1e-5),
}
BASE_SIZE = {
    "path": "google-bert/bert-base-uncased",
    "named": "gte_base",
    "stage1": {"batch_size": 16_384, "steps": 50_000, "chunk_size": 2048},
    "stage2": {"batch_size": 128, "steps": 23_000, "chunk_size": 512, "negatives": 15},
    "rates": (2e-4, 2e-5),
}


def get_config(argument: str = "qwen2_7b") -> ConfigDict:
    """The recipe; `argument`: "qwen2_7b" or "base", then perhaps a comma and a folder.

    Raises:
        ValueError: it begins otherwise.
    """
    size, _, mined = argument.partition(",")
    if size not in ("qwen2_7b", "base"):
        raise ValueError(f"expected gte.py:qwen2_7b or gte.py:base, got {argument!r}")
    chosen = LARGE if size == "qwen2_7b" else BASE_SIZE
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = f"gte_{size}"
    config.model.update({"path": chosen["path"], "named": chosen["named"]})
    config.trainable = ConfigDict({"full": (".*",), "frozen": ()})
    config.mesh.fsdp = 8 if size == "qwen2_7b" else 1
    config.stage1.sources = {name: {"data": f"tfds:{name}", "weight": 0.0} for name in PAIRS}
    config.stage1.update({"negatives": 0, "query_length": 128, "passage_length": 128})
    config.stage2.update({"in_batch": True, "accumulate": 1})
    for name, rate in zip(("stage1", "stage2"), chosen["rates"], strict=True):
        stage = config[name]
        stage.update(chosen[name])
        stage.loss.update({"temperature": 0.01, "in_batch": True, "gte": True})
        stage.optimizer.update({"learning_rate": rate, "warmup_steps": 1000})
    return config
