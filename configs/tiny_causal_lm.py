"""A small causal decoder, pretrained to predict the next token: the start of tiny_two_stage.py.

Source: arXiv 2405.17428 (NV-Embed, v3), section 3.1: removing the causal mask presumes a decoder
    that was pretrained with it. This one stands for Mistral-7B.
Known: next-token prediction under a causal mask, Mistral's blocks.
Assumed: every number: 4 layers, 256 wide, 3.1 M parameters beside the table of 8,192 tokens, whose
    transpose gives the logits; rows of 256 tokens packed from all texts of the training data.
Hardware: 2 CPU cores, 5 min in bfloat16 (experiments/007_two_stage).
Expected: the loss falls from 9.1 to 4.8 (measured).

    nvembed train --config configs/tiny_causal_lm.py:FOLDER --workdir run_lm

FOLDER holds the sets below, each a folder in the task layout (docs/data.md) or a NAME.jsonl.gz.
Without ":FOLDER" they are read as built (tfds:NAME); --config.stage1.data=FILE.jsonl reads a file.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import weighted_sources

# Share of the texts: thousands of examples, capped.
WEIGHTS = {
    "arxiv_title_abstract": 15, "open_trivia": 12, "squad_sentences": 12, "msdocs_sections": 10,
    "fever": 10, "openstax": 10, "medquad": 10, "tldr": 8, "disfl_qa": 8, "policy_qa": 6,
    "snli_triples": 6, "mnli_triples": 6, "python_peps": 5, "squad_paragraphs": 4, "scitldr": 4,
    "qnli": 2, "til": 1,
}  # fmt: skip


def get_config(folder: str = "") -> ConfigDict:
    """One stage; `folder`: where the sets are."""
    config = ConfigDict()
    config.name = "tiny_causal_lm"
    config.seed = 0
    config.model = ConfigDict(
        {
            "named": "tiny",
            "tokenizer": "packaged",
            "overrides": {
                "name": "tiny_causal_lm",
                "attention": "causal",
                "pooling": "eos",
                "backbone": {
                    "vocab_size": 8192,
                    "embed_dim": 256,
                    "mlp_dim": 768,
                    "num_layers": 4,
                    "num_heads": 4,
                    "num_kv_heads": 2,
                    "head_dim": 64,
                },
                "text": {"max_length": 512},
            },
        }
    )
    config.checkpoint_every = 200
    config.keep = 2
    config.log_every = 20
    config.stages = ("stage1",)
    config.stage1 = ConfigDict(
        {
            "objective": "causal_lm",
            "data": "",
            "sources": weighted_sources(WEIGHTS, folder),
            "steps": 300,
            "batch_size": 32,
            "negatives": 1,
            "query_length": 256,
            "passage_length": 256,
            "optimizer": {
                "learning_rate": 2e-3,
                "warmup_steps": 50,
                "schedule": "cosine",
                "final_fraction": 0.1,
                "beta2": 0.95,
                "weight_decay": 0.1,
            },
        }
    )
    return config
