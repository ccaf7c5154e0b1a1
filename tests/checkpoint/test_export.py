from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest
from random_folders import TOKENIZER, all_files, bert_folder, nvembed_folder, random_params

from nvembed_jax.checkpoint import (
    convert_checkpoint,
    export_checkpoint,
    load_config,
    load_params,
    save_model,
)
from nvembed_jax.checkpoint.safetensors_io import SafetensorsFolder
from nvembed_jax.config import (
    BertConfig,
    ModelConfig,
    ProjectionConfig,
    TextConfig,
    e5_mistral_7b,
    nv_embedqa_e5_v5,
    tiny,
)

FILES = {name: text.encode() for name, text in TOKENIZER.items()}


def small(config: ModelConfig, **changes: Any) -> ModelConfig:
    """The same kind of model at tiny size."""
    if isinstance(config.backbone, BertConfig):
        backbone: Any = dataclasses.replace(
            config.backbone, vocab_size=40, embed_dim=16, mlp_dim=24, num_layers=2, num_heads=4
        )
    else:
        backbone = dataclasses.replace(tiny().backbone, sliding_window=4096)
        backbone = dataclasses.replace(backbone, **changes.pop("backbone", {}))
    return dataclasses.replace(config, backbone=backbone, **changes)


QWEN2 = {"qkv_bias": True, "rope_theta": 1e6, "norm_eps": 1e-6, "sliding_window": None}
GEMMA2 = {
    "activation": "gelu_tanh", "window_every": 2, "norm_offset": 1.0, "post_norms": True,
    "scale_embeddings": True, "attention_softcap": 50.0, "query_scale": 224**-0.5,
}  # fmt: skip
CONFIGS = {
    "nvembed": tiny(),
    "nvembed causal": dataclasses.replace(tiny(), attention="causal", matryoshka_dims=(16, 32)),
    "nvembed mean": tiny("mean"),
    "nvembed eos causal": tiny("eos", "causal"),
    "mistral": small(e5_mistral_7b()),
    "qwen2 with dense": small(
        e5_mistral_7b(),
        family="qwen2",
        attention="bidirectional",
        pooling="mean",
        backbone=QWEN2,
        projections=(
            ProjectionConfig(in_dim=64, out_dim=24),
            ProjectionConfig(in_dim=24, out_dim=8, use_bias=False, activation="tanh"),
        ),
    ),
    "gemma2": small(e5_mistral_7b(), family="gemma2", backbone=GEMMA2),
    "e5": small(nv_embedqa_e5_v5()),
    "bert cls": small(
        nv_embedqa_e5_v5(), pooling="cls", name="", text=TextConfig(max_length=99, lowercase=True)
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_trained_model_exports_to_a_folder_that_reads_back_equal(tmp_path, kind):
    config = CONFIGS[kind]
    params = random_params(config)
    save_model(tmp_path / "ours", config, params, tokenizer_files=FILES)
    export_checkpoint(tmp_path / "ours", tmp_path / "published", shard_bytes=100_000)
    assert load_config(tmp_path / "published") == config
    loaded = load_params(tmp_path / "published", config)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    convert_checkpoint(tmp_path / "published", tmp_path / "again")
    export_checkpoint(tmp_path / "again", tmp_path / "twice")
    assert all_files(tmp_path / "twice") == all_files(tmp_path / "published")


def test_trained_nvembed_exports_in_the_published_form(tmp_path):
    save_model(tmp_path / "ours", tiny(), random_params(tiny()))
    export_checkpoint(tmp_path / "ours", tmp_path / "published", shard_bytes=100_000)
    config = json.loads((tmp_path / "published" / "config.json").read_text())
    assert config["model_type"] == "nvembed"
    assert config["text_config"]["num_hidden_layers"] == 3
    assert config["latent_attention_config"]["cross_dim_head"] == 32
    names = set(SafetensorsFolder(tmp_path / "published"))
    assert "embedding_model.layers.2.self_attn.o_proj.weight" in names
    assert "latent_attention_model.cross_attend_blocks.1.fn.net.2.bias" in names
    assert (tmp_path / "published" / "model.safetensors.index.json").is_file()


def test_model_without_a_published_form_is_refused(tmp_path):
    config = tiny("self_attention")
    save_model(tmp_path / "ours", config, random_params(config))
    with pytest.raises(ValueError, match=r"self_attention.* published"):
        export_checkpoint(tmp_path / "ours", tmp_path / "x")
    odd = dataclasses.replace(
        tiny("mean"), backbone=dataclasses.replace(tiny().backbone, norm_offset=1.0)
    )
    save_model(tmp_path / "odd", odd, random_params(odd))
    with pytest.raises(ValueError, match="cannot hold this model: backbone would be lost"):
        export_checkpoint(tmp_path / "odd", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_export_of_a_converted_folder_whose_config_was_changed_is_refused(tmp_path):
    nvembed_folder(tmp_path / "src")
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    path = tmp_path / "ours" / "config.json"
    data = json.loads(path.read_text())
    data["model"]["attention"] = "causal"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"attention of config\.json differs"):
        export_checkpoint(tmp_path / "ours", tmp_path / "back")


def test_export_reports_its_progress(tmp_path):
    bert_folder(tmp_path / "src")
    convert_checkpoint(tmp_path / "src", tmp_path / "ours")
    calls = []
    export_checkpoint(tmp_path / "ours", tmp_path / "back", progress=lambda *c: calls.append(c))
    assert calls[-1][0] == calls[-1][1]
