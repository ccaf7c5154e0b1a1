"""NV-Embed-v2: a bidirectional Mistral-7B with latent attention, tuned in two stages.

Source: arXiv 2405.17428 (NV-Embed, v3), section 4; arXiv 2407.15831 for the hard negatives.
Known: stage 1 on retrieval sets with in-batch and hard negatives, stage 2 on a blend of all sets
    without in-batch negatives; no causal mask; LoRA on the backbone, the latent block trained in
    full. Second-hand: LoRA rank 16, alpha 32, dropout 0.1; batch 128; 7 hard negatives; learning
    rates 2e-5 and 1.5e-5; 512 tokens; Adam, 500 steps of warm-up, bf16.
Assumed: temperature 0.02; 20,000 and 18,000 steps; weight decay 0.03; linear decay; weights of the
    sets (their sizes, capped); the English parts of MIRACL and Mr.TyDi; synthetic examples in stage
    2 only. ArguAna and STS22 are missing: no training rows of them are public in a known form.
Hardware: 8 x H100 80 GB, 59 h; 8 x A100 80 GB, 187 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 72.31, retrieval 62.65 (the paper's row "two stages").

    nvembed train --config configs/nv_embed_v2.py:MINED --workdir run

MINED is a folder with a NAME.jsonl.gz of every retrieval and STS set below, with negatives from
`nvembed mine`, and synthetic.jsonl.gz from `nvembed synthesize`. Labelled sets are read as they are
built (tfds:NAME): they draw their negatives from other classes. Without ":MINED" all sets are read
as built, most of the others without negatives: enough for a trial of stage 1 only.
"""

from __future__ import annotations

from ml_collections import ConfigDict

# Share of the batches: thousands of examples.
RETRIEVAL = {
    "msmarco": 500, "paq": 500, "hotpotqa": 170, "fever_beir": 140, "snli": 135, "mnli": 135,
    "nq": 100, "stackexchange": 100, "squad": 87, "hover": 18, "fiqa": 5.5, "nfcorpus": 3.6,
    "mr_tydi_english": 3.5, "miracl_en": 2.9, "bioasq": 2.4, "scifact": 0.8,
}  # fmt: skip
LABELLED = {
    "amazon_reviews": 50, "amazon_polarity": 50, "toxic_conversations": 50, "imdb": 25,
    "tweet_sentiment_extraction": 27, "emotion": 16, "mtop_domain": 16, "mtop_intent": 16,
    "massive_scenario": 12, "massive_intent": 12, "banking77": 10, "amazon_counterfactual": 4,
    "arxiv_s2s": 35, "arxiv_p2p": 35, "biorxiv_s2s": 4, "biorxiv_p2p": 4, "medrxiv_s2s": 1,
    "medrxiv_p2p": 1, "twenty_newsgroups": 11, "reddit_s2s": 50, "reddit_p2p": 50,
    "stackexchange_s2s": 50, "stackexchange_p2p": 50,
}  # fmt: skip
STS = {"sts12": 2, "stsb": 3}
SYNTHETIC = {"synthetic": 120}


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    blend = RETRIEVAL | LABELLED | STS | (SYNTHETIC if mined else {})
    config = ConfigDict()
    config.name = "nv_embed_v2"
    config.seed = 0
    config.model = ConfigDict(
        {
            "path": "mistralai/Mistral-7B-v0.1",
            "named": "nv_embed_v2",
            "tokenizer": "",
            "overrides": {},
        }
    )
    config.teacher = ""
    config.trainable = ConfigDict(
        {
            "full": (r"pooling\..*",),
            "frozen": (),
            "lora": {"rank": 16, "alpha": 32.0, "dropout": 0.1},
        }
    )
    config.compute = ConfigDict(
        {"dtype": "bfloat16", "frozen_dtype": "bfloat16", "kernel": "auto", "remat": "dots"}
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 8, "tensor": 1})
    config.checkpoint_every = 500
    config.keep = 2
    config.save_stages = True
    config.log_every = 10
    config.tensorboard = False
    config.stages = ("stage1", "stage2")
    config.stage1 = stage(RETRIEVAL, mined, steps=20_000, in_batch=True, rate=2e-5)
    # Without in-batch negatives micro-batches change nothing, and cost a forward pass less than
    # GradCache.
    config.stage2 = stage(blend, mined, steps=18_000, in_batch=False, rate=1.5e-5)
    config.stage2.update({"chunk_size": 0, "accumulate": 8})
    return config


def stage(
    weights: dict[str, float], mined: str, *, steps: int, in_batch: bool, rate: float
) -> ConfigDict:
    """One stage; `data` replaces `sources` where it is given."""
    return ConfigDict(
        {
            "objective": "contrastive",
            "data": "",
            "sources": sources(weights, mined),
            "steps": steps,
            "batch_size": 128,
            "accumulate": 1,
            "chunk_size": 128,
            "negatives": 7,
            "batching": "blended",
            "query_length": 512,
            "passage_length": 512,
            "in_batch": in_batch,
            "loss": {"temperature": 0.02, "in_batch": in_batch},
            "optimizer": {
                "learning_rate": rate,
                "warmup_steps": 500,
                "schedule": "linear",
                "weight_decay": 0.03,
            },
        }
    )


def sources(weights: dict[str, float], mined: str = "") -> dict[str, dict]:
    """A source a set: as built, or MINED/NAME.jsonl.gz."""
    out = {}
    for name, weight in weights.items():
        out[name] = {"data": f"tfds:{name}", "weight": float(weight)}
        if mined and name not in LABELLED:
            # A file does not say that the instruction goes on both sides.
            out[name] |= {"data": f"{mined}/{name}.jsonl.gz", "symmetric": name in STS}
    return out
