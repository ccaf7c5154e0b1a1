"""What our configurations say about models that mteb knows by name, in mteb's words.

Knows the fields of mteb's `ModelMeta`, and imports nothing of it: see `mteb_encoder`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nvembed_jax import config as configs
from nvembed_jax.checkpoint import expected_shapes, load_config, resolve_model
from nvembed_jax.config import ModelConfig

ORGANIZATION = "nvembed-jax"
OWN_MODEL = f"{ORGANIZATION}/nvembed-tiny"
_CODE = "https://github.com/nvembed-jax/nvembed_jax"
OWN_FACTS = {
    "languages": ["eng-Latn"],
    "license": "apache-2.0",
    "open_weights": True,
    "public_training_code": _CODE,
    "public_training_data": _CODE,
    "reference": _CODE,
    "adapted_from": "sentence-transformers/all-MiniLM-L6-v2",
    # mteb's names of what the model was trained on, rows of their training splits.
    "training_datasets": {
        "Banking77Classification", "Banking77Classification.v2", "FEVER", "FEVERHardNegatives",
        "FEVERHardNegatives.v2", "NanoFEVERRetrieval",
    },
}  # fmt: skip


def known_models() -> tuple[str, ...]:
    """The names of which a configuration is on record: published models, and ours."""
    return tuple(_CONFIGS)


def config_of(name: str) -> ModelConfig:
    """The configuration of one of `known_models`.

    Raises:
        ValueError: an unknown name. FileNotFoundError: our own model is not installed.
    """
    if name in _CONFIGS:
        return _CONFIGS[name]()
    near = difflib.get_close_matches(name, _CONFIGS, n=1, cutoff=0.4)
    mend = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(_CONFIGS)}"
    raise ValueError(f"nothing is on record of the model {name!r}; {mend}")


def config_facts(config: ModelConfig) -> dict[str, Any]:
    """Sizes, length and use of instructions, as fields of a `ModelMeta`."""
    text, backbone = config.text, config.backbone
    return {
        "n_parameters": sum(math.prod(shape) for shape in expected_shapes(config).values()),
        "n_embedding_parameters": backbone.vocab_size * backbone.embed_dim,
        "embed_dim": [*config.matryoshka_dims] or config.embed_dim,
        "max_tokens": text.max_length,
        "use_instructions": bool(text.query_template or text.query_prompt or text.passage_prompt),
        "framework": ["JAX"],
        "similarity_fn_name": "cosine",
    }


def _own_config() -> ModelConfig:
    config = load_config(resolve_model(None))
    if config.name != OWN_MODEL.rpartition("/")[2]:
        raise FileNotFoundError(
            f"{OWN_MODEL} is not installed: the bundled model is {config.name}; pass a model to "
            f"MtebEncoder instead"
        )
    return config


def _e5_large() -> ModelConfig:
    return replace(configs.nv_embedqa_e5_v5(), name="e5-large-v2")  # the same sizes and prefixes


_CONFIGS: dict[str, Callable[[], ModelConfig]] = {
    "nvidia/NV-Embed-v1": configs.nv_embed_v1,
    "nvidia/NV-Embed-v2": configs.nv_embed_v2,
    "intfloat/e5-mistral-7b-instruct": configs.e5_mistral_7b,
    "intfloat/e5-large-v2": _e5_large,
    "sentence-transformers/all-MiniLM-L6-v2": configs.minilm_l6,
    OWN_MODEL: _own_config,
}
