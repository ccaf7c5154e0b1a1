"""The two stages of NV-Embed on the small decoder of tiny_causal_lm.py, its causal mask removed.

Source: arXiv 2405.17428 (NV-Embed, v3), sections 3 and 4, in miniature.
Known: a causal start whose mask is removed; latent attention; stage 1 on retrieval sets with
    in-batch and hard negatives; stage 2 on a blend with classification, clustering and STS sets,
    without in-batch negatives.
Assumed: every number; all weights are trained, without LoRA; temperature 0.05, since 0.02 makes
    small models collapse early; sets that fit one machine.
Hardware: 2 CPU cores, 12 min in bfloat16 (experiments/007_two_stage).
Expected: no published score; experiments/007_two_stage has ours before and after each stage.

    nvembed train --config configs/tiny_two_stage.py:FOLDER --workdir run \\
        --config.model.path=run_lm/model

run_lm is the workdir of tiny_causal_lm.py, which must stand beside this file; FOLDER is as there.
Stage 2 learns nothing from sets without negatives: add them with `nvembed mine`, as
FOLDER/NAME.jsonl.gz.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("tiny_causal_lm.py")
# Share of the batches: thousands of examples, capped.
NON_RETRIEVAL = {
    "banking77": 10, "hwu64": 10, "snips": 10, "ag_news": 4, "newsgroups20": 4, "trec_qc": 5,
    "sst2": 6, "tweet_sentiment": 6, "quora": 8, "stsb_train_dev": 3,
}  # fmt: skip


def get_config(folder: str = "") -> ConfigDict:
    """The recipe; `folder`: where the sets are."""
    config = load_config(f"{BASE}:{folder}" if folder else BASE)
    config.name = "tiny_two_stage"
    config.model.path = "run_lm/model"
    config.model.overrides.update(
        {
            "name": "tiny_two_stage",
            "attention": "bidirectional",
            "pooling": "latent",
            "latent": {
                "num_latents": 64,
                "latent_dim": 256,
                "num_cross_heads": 4,
                "cross_head_dim": 64,
            },
        }
    )
    config.save_stages = True
    config.stages = ("stage1", "stage2")
    retrieval = config.stage1.sources.to_dict()
    place = f"{folder}/{{}}" if folder else "tfds:{}"
    others = {
        name: {"data": place.format(name), "weight": float(weight)}
        for name, weight in NON_RETRIEVAL.items()
    }
    config.stage1 = _stage(retrieval, steps=300, batch=48, negatives=1, length=96, rate=1e-3)
    config.stage2 = _stage(
        retrieval | others, steps=150, batch=32, negatives=2, length=64, rate=5e-4
    )
    config.stage2.in_batch = config.stage2.loss.in_batch = False
    return config


def _stage(
    sources: dict[str, dict], *, steps: int, batch: int, negatives: int, length: int, rate: float
) -> ConfigDict:
    return ConfigDict(
        {
            "data": "",
            "sources": sources,
            "steps": steps,
            "batch_size": batch,
            "negatives": negatives,
            "query_length": 48,
            "passage_length": length,
            "in_batch": True,
            "loss": {"temperature": 0.05, "in_batch": True},
            "optimizer": {"learning_rate": rate, "warmup_steps": 40, "weight_decay": 0.01},
        }
    )
