"""NV-Embed-v1: the first NV-Embed, on fewer sets than v2 and without synthetic examples.

Source: arXiv 2405.17428 (NV-Embed, v1), section 4.
Known: architecture, stages and losses as nv_embed_v2.py; the sets below; hard negatives.
    Classes are described by their label texts ("label-based"), not by examples as in v2.
Assumed: every hyperparameter as nv_embed_v2.py; AmazonReviews, whose labels are bare numbers, is
    described by examples.
Hardware: 8 x H100 80 GB, 59 h; 8 x A100 80 GB, 187 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 69.32, retrieval 59.36.

    nvembed train --config configs/nv_embed_v1.py:MINED --workdir run

MINED: as in nv_embed_v2.py, which must stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")
ADDED_IN_V2 = (
    "hover", "scifact", "nfcorpus", "miracl_en", "mr_tydi_english", "amazon_polarity",
    "mtop_domain", "massive_scenario", "massive_intent", "reddit_s2s", "reddit_p2p",
    "stackexchange_s2s", "stackexchange_p2p", "synthetic",
)  # fmt: skip


BY_LABEL = (
    "toxic_conversations", "imdb", "tweet_sentiment_extraction", "emotion", "mtop_intent",
    "banking77", "amazon_counterfactual", "arxiv_s2s", "arxiv_p2p", "biorxiv_s2s", "biorxiv_p2p",
    "medrxiv_s2s", "medrxiv_p2p", "twenty_newsgroups",
)  # fmt: skip


def get_config(mined: str = "") -> ConfigDict:
    """The recipe; `mined`: folder of examples with hard negatives."""
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = "nv_embed_v1"
    config.model.named = "nv_embed_v1"
    for stage in (config.stage1, config.stage2):
        stage.sources = {
            name: source for name, source in stage.sources.items() if name not in ADDED_IN_V2
        }
    for name in BY_LABEL:
        config.stage2.sources[name].labels = "texts"
    return config
