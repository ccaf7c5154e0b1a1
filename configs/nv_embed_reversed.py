"""NV-Embed with its stages in the other order: the blend first, retrieval second (ablation).

Source: arXiv 2405.17428 (NV-Embed, v3), the table of training stages.
Known: the stages of nv_embed_v2.py in reversed order.
Assumed: steps and learning rate stay with their stage; the rest as nv_embed_v2.py.
Hardware: 8 x H100 80 GB, 59 h; 8 x A100 80 GB, 187 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 71.85, retrieval 61.91 (the paper's row "two stages reversed").

    nvembed train --config configs/nv_embed_reversed.py:MINED --workdir run

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
    config.name = "nv_embed_reversed"
    config.stages = ("stage2", "stage1")
    return config
