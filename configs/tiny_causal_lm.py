"""A small causal decoder, pretrained to predict the next token: the start of tiny_two_stage.py.

Source: arXiv 2405.17428 (NV-Embed, v3), section 3.1, whose removal of the causal mask presumes a
    decoder that was pretrained with it; Mistral-7B's place, in miniature.
Known: next-token prediction under a causal mask, Mistral's blocks.
Assumed: every number: 6 layers, 256 wide, 4.4 M parameters beside the table of 8,192 tokens, whose
    transpose gives the logits; rows of 256 tokens packed from all texts of the training data.
Hardware: 2 CPU cores, HOURS
Expected: LOSS

    nvembed train --config configs/tiny_causal_lm.py --workdir run_lm \\
        --config.stage1.data=pairs.jsonl
"""

from __future__ import annotations

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One stage; `data` names the examples whose texts are read (JSONL, a folder, a pattern)."""
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
                    "mlp_dim": 704,
                    "num_layers": 6,
                    "num_heads": 4,
                    "num_kv_heads": 2,
                    "head_dim": 64,
                },
                "text": {"max_length": 512},
            },
        }
    )
    config.compute = ConfigDict({"dtype": "", "unroll": 1})
    config.checkpoint_every = 200
    config.keep = 2
    config.log_every = 20
    config.stages = ("stage1",)
    config.stage1 = ConfigDict(
        {
            "objective": "causal_lm",
            "data": "",
            "sources": {},
            "steps": 1500,
            "batch_size": 32,
            "negatives": 1,
            "query_length": 256,
            "passage_length": 256,
            "optimizer": {
                "learning_rate": 2e-3,
                "warmup_steps": 100,
                "schedule": "cosine",
                "final_fraction": 0.1,
                "beta2": 0.95,
                "weight_decay": 0.1,
            },
        }
    )
    return config
