"""Configs round-trip, refuse unknown keys, and have the published sizes."""

from __future__ import annotations

import dataclasses
import json

import jax
import pytest

from nvembed_jax import config as configs
from nvembed_jax.checkpoint import expected_shapes
from nvembed_jax.checkpoint.tree import flatten
from nvembed_jax.model import abstract_params


@pytest.mark.parametrize("name", sorted(configs.NAMED_CONFIGS))
def test_config_survives_json(name: str):
    config = configs.NAMED_CONFIGS[name]()
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config


def test_unknown_key_names_the_nearest():
    data = configs.to_dict(configs.tiny())
    data["poling"] = data.pop("pooling")
    with pytest.raises(ValueError, match=r"'poling' in ModelConfig; did you mean 'pooling'\?"):
        configs.from_dict(data)


def test_missing_key_is_named():
    data = configs.to_dict(configs.tiny())
    del data["backbone"]["mlp_dim"]
    with pytest.raises(ValueError, match="DecoderConfig lacks mlp_dim"):
        configs.from_dict(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": "diagonal"}, "attention must be one of bidirectional, causal"),
        ({"pooling": "max"}, "pooling must be one of"),
        ({"pooling": "latent", "latent": None}, "needs a LatentConfig"),
        ({"pooling": "self_attention", "self_attention_pooling": None}, "needs a SelfAttention"),
    ],
)
def test_contradictions_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(configs.tiny(), **change)


def test_bert_has_no_causal_mode():
    with pytest.raises(ValueError, match="no causal mode"):
        dataclasses.replace(configs.minilm_l6(), attention="causal")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("nv_embed_v2", 7_851_016_192),
        ("e5_mistral_7b", 7_110_660_096),
        ("nv_embedqa_e5_v5", 334_092_288),
        ("minilm_l6", 22_565_376),
    ],
)
def test_parameter_count_is_the_published_one(name: str, count: int):
    params = abstract_params(configs.NAMED_CONFIGS[name]())
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("name", sorted(configs.NAMED_CONFIGS))
@pytest.mark.parametrize("pooling", ["mean", "latent", "self_attention"])
def test_checkpoint_and_model_agree_on_shapes(name: str, pooling: str):
    config = configs.NAMED_CONFIGS[name]()
    if pooling != "mean" and (config.latent is None or config.self_attention_pooling is None):
        config = dataclasses.replace(
            config,
            latent=configs.LatentConfig(latent_dim=config.backbone.embed_dim),
            self_attention_pooling=configs.SelfAttentionPoolingConfig(),
        )
    config = dataclasses.replace(config, pooling=pooling)
    shapes = {key: leaf.shape for key, leaf in flatten(abstract_params(config)).items()}
    assert shapes == expected_shapes(config)
