"""nvembed-tiny, before its blocks: the token table alone learns the teacher's embeddings.

Source: ours. A model without layers, whose embedding is the mean of its tokens' vectors (as
    model2vec and the static models of sentence-transformers have it), learns some ten times faster
    than one with layers: its table is where nvembed_tiny_distill.py begins.
Known: a static embedder made from a teacher's token embeddings is usable before any training.
Assumed: every number: batch 256, 6,000 steps, learning rate 5e-3.
Hardware: 2 CPU cores, 11 min.
Expected: no published score; experiments/016_nvembed_tiny has ours.

    nvembed train --config configs/nvembed_tiny_static.py:PAIRS --workdir run_static \\
        --config.model.path=static --config.teacher=teacher

PAIRS, static and teacher: experiments/016_nvembed_tiny/build.py makes them, and runs this.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nvembed_tiny_distill.py")


def get_config(pairs: str = "") -> ConfigDict:
    """The recipe; `pairs`: folder of NAME.jsonl.gz."""
    config = load_config(f"{BASE}:{pairs}" if pairs else BASE)
    config.name = "nvembed_tiny_static"
    config.model.path = "static"
    config.model.overrides.name = "nvembed-tiny-static"
    config.model.overrides.pooling = "mean"
    config.model.overrides.backbone.num_layers = 0
    config.checkpoint_every = 1000
    for source in config.stage1.sources.values():
        source.tasks = ()  # a mean without layers cannot see them
    config.stage1.query_length = 32
    config.stage1.steps = 6000
    config.stage1.batch_size = 256
    config.stage1.optimizer.learning_rate = 5e-3
    return config
