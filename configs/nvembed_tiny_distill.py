"""nvembed-tiny, first part: a small NV-Embed learns the embeddings of all-MiniLM-L6-v2.

Source: ours. The start, a token table made from the teacher under blocks that are the identity, is
    of nvembed_jax/compress/static_start.py; the losses are those of arXiv 2412.19048 (stella).
Known: the teacher, all-MiniLM-L6-v2, turned to its principal axes, so that its leading values are
    a target for short embeddings.
Assumed: every number: 26,624 word pieces, 256 wide, 2 decoder layers and a latent block, 9.1 M
    parameters; weights 1 and 10 of the two losses; batch 128; 9,000 steps; learning rate 2e-3.
Hardware: 2 CPU cores, 1.5 h (an estimate); the labels, which experiments/016 makes before, 25 min.
Expected: no published score; experiments/016_nvembed_tiny has ours.

    nvembed train --config configs/nvembed_tiny_distill.py:PAIRS --workdir run_distill \\
        --config.model.path=start --config.teacher=teacher

experiments/016_nvembed_tiny/build.py makes PAIRS, start and teacher, and runs this. Without
":PAIRS" the sets are read as built (tfds:NAME).
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from nvembed_jax.text.instructions import MTEB_INSTRUCTIONS
from nvembed_jax.train.config_file import weighted_sources

WIDTHS = (64, 128, 256)
# Share of the batches: thousands of examples, capped. Sets whose licence lets a model be shared.
WEIGHTS = {
    "arxiv_title_abstract": 35, "msdocs_sections": 35, "wordnet_definitions": 40, "open_trivia": 25,
    "squad_sentences": 20, "openstax": 19, "medquad": 16, "fever": 13, "tldr": 12, "disfl_qa": 8,
    "mnli_triples": 7, "snli_triples": 7, "powershell_cmdlets": 6, "policy_qa": 6, "python_peps": 6,
    "squad_paragraphs": 5, "php_functions": 4, "scitldr": 4, "qnli": 3, "til": 2,
}  # fmt: skip
LABELLED = {"banking77": 8, "hwu64": 8, "snips": 8}
# Every second row has an instruction. The teacher takes none, so the student learns that what is
# asked for changes little, however it is worded. On both sides where both are short.
TASKS = tuple(sorted({task.instruction for task in MTEB_INSTRUCTIONS.values()}))
TASKS = ("",) * len(TASKS) + TASKS
BOTH_SIDES = (
    "open_trivia", "wordnet_definitions", "squad_sentences", "fever", "tldr", "disfl_qa",
    "mnli_triples", "snli_triples",
)  # fmt: skip


def get_config(pairs: str = "") -> ConfigDict:
    """The recipe; `pairs`: folder of NAME.jsonl.gz."""
    config = ConfigDict()
    config.name = "nvembed_tiny_distill"
    config.seed = 0
    config.model = ConfigDict(
        {
            "path": "start",
            "named": "tiny",
            "tokenizer": "",
            "overrides": {
                "name": "nvembed-tiny",
                "backbone": {
                    "vocab_size": 26_624,
                    "embed_dim": 256,
                    "mlp_dim": 768,
                    "num_layers": 2,
                    "num_heads": 4,
                    "num_kv_heads": 2,
                    "head_dim": 64,
                },
                "latent": {
                    "num_latents": 64,
                    "latent_dim": 256,
                    "num_cross_heads": 4,
                    "cross_head_dim": 64,
                    "mlp_multiplier": 2,
                },
                "text": {"max_length": 512, "default_task": None},
                "matryoshka_dims": WIDTHS,
            },
        }
    )
    config.teacher = "teacher"
    config.teacher_length = 64
    config.compute = ConfigDict({"dtype": ""})
    config.checkpoint_every = 500
    config.keep = 2
    config.log_every = 50
    config.stages = ("stage1",)
    config.stage1 = ConfigDict(
        {
            "data": "",
            "sources": _sources(pairs),
            "steps": 9000,
            "batch_size": 128,
            "negatives": 0,
            "query_length": 48,
            "passage_length": 64,
            "loss": {
                "contrastive": 0.0,
                "in_batch": False,
                "distill_cosine": 1.0,
                "distill_similarity": 10.0,
                "matryoshka_dims": WIDTHS,
            },
            "optimizer": {
                "learning_rate": 2e-3,
                "warmup_steps": 200,
                "schedule": "cosine",
                "final_fraction": 0.02,
            },
        }
    )
    return config


def _sources(pairs: str) -> dict[str, dict[str, Any]]:
    sources = weighted_sources(WEIGHTS | LABELLED, pairs)
    for name, source in sources.items():
        source |= {"tasks": TASKS, "symmetric": name in BOTH_SIDES or name in LABELLED}
    return sources
