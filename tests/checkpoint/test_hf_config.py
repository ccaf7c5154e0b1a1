from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from random_folders import BERT, GEMMA2, MISTRAL, NVEMBED, QWEN2, TOKENIZER, add_sentence_files

from nvembed_jax.checkpoint import load_config
from nvembed_jax.config import (
    DEFAULT_TASK,
    LatentConfig,
    ProjectionConfig,
    mistral_7b,
    nv_embed_v2,
    nv_embedqa_e5_v5,
)

FULL_TEXT = {
    "model_type": "bidir_mistral", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 32000, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
    "max_position_embeddings": 32768, "hidden_act": "silu",
}  # fmt: skip
PUBLISHED = NVEMBED | {
    "text_config": FULL_TEXT,
    "latent_attention_config": {"model_type": "latent_attention"},
}


def folder_with(path: Path, config: dict[str, Any], tokenizer: dict[str, str] = TOKENIZER) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    for name, text in tokenizer.items():
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize("extra", [{}, {"hidden_size": 4096}], ids=["v1", "v2"])
def test_published_nvembed_config_gives_the_named_one(tmp_path, extra):
    folder = folder_with(tmp_path / "NV-Embed-v2", PUBLISHED | extra)
    assert load_config(folder) == nv_embed_v2()


def test_nvembed_text_config_may_leave_out_what_mistral_defaults_to(tmp_path):
    text = {"rms_norm_eps": 1e-5, "max_position_embeddings": 32768}
    folder = folder_with(tmp_path / "m", PUBLISHED | {"text_config": text})
    assert load_config(folder).backbone == mistral_7b()


def test_nvembed_explicit_latent_keys_win(tmp_path):
    config = load_config(folder_with(tmp_path / "m", NVEMBED))
    assert config.latent == LatentConfig(
        num_latents=6, num_cross_heads=2, latent_dim=12, cross_head_dim=5, mlp_multiplier=3
    )


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"mask_type": "c"}, "attention", "causal"),
        ({"is_mask_instruction": False}, "text.mask_instruction", False),
        ({"add_eos": False}, "text.add_eos", False),
    ],
)
def test_nvembed_switches_are_read(tmp_path, change, field, value):
    found: Any = load_config(folder_with(tmp_path / "m", NVEMBED | change))
    for part in field.split("."):
        found = getattr(found, part)
    assert found == value


def test_mistral_defaults_to_causal_eos_pooling_with_instructions(tmp_path):
    config = load_config(folder_with(tmp_path / "e5-mistral", MISTRAL))
    assert (config.family, config.attention, config.pooling) == ("mistral", "causal", "eos")
    assert config.text.query_template == "Instruct: {task}\nQuery: "
    assert config.text.add_eos
    assert config.text.default_task == DEFAULT_TASK
    assert config.text.max_length == 128  # the tokenizer's
    assert config.backbone.sliding_window == 4096
    assert config.backbone.head_dim == 4
    assert config.name == "e5-mistral"


@pytest.mark.parametrize(
    ("value", "pooling"), [("avg", "mean"), ("mean", "mean"), ("last", "eos"), ("cls", "cls")]
)
def test_pooling_key_of_a_folder_without_modules_is_read(tmp_path, value, pooling):
    config = load_config(folder_with(tmp_path / "m", MISTRAL | {"pooling": value}))
    assert config.pooling == pooling


@pytest.mark.parametrize(
    "change",
    [
        {"is_causal": False},
        {"mask_type": "b"},
        {"model_type": "bidir_mistral"},
        {"use_bidirectional_attention": True},
    ],
)
def test_mistral_spellings_of_bidirectional_are_read(tmp_path, change):
    assert load_config(folder_with(tmp_path / "m", MISTRAL | change)).attention == "bidirectional"


def test_qwen2_has_biases_and_no_window_unless_switched_on(tmp_path):
    config = load_config(folder_with(tmp_path / "a", QWEN2))
    assert config.backbone.qkv_bias
    assert config.backbone.sliding_window is None
    assert config.backbone.rope_theta == 1e6
    assert config.attention == "bidirectional"
    windowed = QWEN2 | {"use_sliding_window": True, "max_window_layers": 0}
    assert load_config(folder_with(tmp_path / "b", windowed)).backbone.sliding_window == 4096


def test_gemma2_switches_are_read(tmp_path):
    backbone = load_config(folder_with(tmp_path / "m", GEMMA2)).backbone
    assert backbone.head_dim == 8
    assert backbone.rope_theta == 5000.0
    assert backbone.query_scale == 224**-0.5
    assert backbone.attention_softcap == 50.0
    assert backbone.norm_offset == 1.0
    assert backbone.window_every == 2
    assert backbone.post_norms
    assert backbone.scale_embeddings
    assert backbone.activation == "gelu_tanh"


def test_rope_and_dtype_spellings_of_transformers_4_and_5_mean_the_same(tmp_path):
    new = {k: v for k, v in MISTRAL.items() if k not in ("rope_theta", "torch_dtype")}
    new |= {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "dtype": "bfloat16"}
    old = MISTRAL | {"rope_scaling": None}
    found = [load_config(folder_with(tmp_path / k / "m", c)) for k, c in (("a", old), ("b", new))]
    assert found[0] == found[1]


def test_tag_tokens_give_the_templates_of_the_bge_models(tmp_path):
    tags = TOKENIZER | {"added_tokens.json": json.dumps({"<instruct>": 32000})}
    icl = load_config(folder_with(tmp_path / "bge-en-icl", MISTRAL, tags)).text
    assert icl.query_template == "<instruct>{task}\n<query>"
    assert icl.example_template == "<instruct>{task}\n<query>{query}\n<response>{passage}"
    assert icl.query_suffix == "\n<response>"
    gemma = load_config(folder_with(tmp_path / "bge-multilingual-gemma2", GEMMA2, tags)).text
    assert gemma.query_template == "<instruct>{task}\n<query>"
    assert gemma.example_template is None
    assert gemma.query_suffix == ""


@pytest.mark.parametrize(
    ("pooling_file", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}, "mean"),
        ({"pooling_mode_lasttoken": True}, "eos"),
        ({"pooling_mode": "lasttoken"}, "eos"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_sentence_folder_pooling_is_read_in_both_spellings(tmp_path, pooling_file, pooling):
    folder = add_sentence_files(folder_with(tmp_path / "m", MISTRAL), pooling_file)
    assert load_config(folder).pooling == pooling


def test_sentence_folder_prompts_lengths_and_dense_layers_are_read(tmp_path):
    query = "Instruct: Find the answer\nQuery: "
    folder = add_sentence_files(
        folder_with(tmp_path / "m", QWEN2),
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
        dense={
            "in_features": 16,
            "out_features": 8,
            "bias": False,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
        prompts={"prompts": {"query": query, "document": "doc: "}, "default_prompt_name": "query"},
        lengths={"max_seq_length": 77, "do_lower_case": True},
    )
    config = load_config(folder)
    assert config.projections == (
        ProjectionConfig(in_dim=16, out_dim=8, use_bias=False, activation="tanh"),
    )
    assert config.text == dataclasses.replace(
        config.text,
        max_length=77,
        lowercase=True,
        mask_instruction=True,
        prompts=(("query", query), ("document", "doc: ")),
        query_prompt=query,
        passage_prompt="doc: ",
        default_prompt=query,
        default_task="Find the answer",
    )


def test_bert_defaults_to_mean_pooling_without_prefixes(tmp_path):
    config = load_config(folder_with(tmp_path / "some-bert", BERT))
    assert (config.pooling, config.attention, config.text.max_length) == (
        "mean",
        "bidirectional",
        64,
    )
    assert config.text.prompts == ()
    assert config.text.query_template is None


@pytest.mark.parametrize("name", ["e5-large-v2", "nv-embedqa-e5-v5", "multilingual-e5-small"])
def test_bert_e5_folders_get_their_prefixes_by_name(tmp_path, name):
    text = load_config(folder_with(tmp_path / name, BERT)).text
    expected = nv_embedqa_e5_v5().text
    assert (text.query_prompt, text.passage_prompt, text.prompts) == (
        expected.query_prompt,
        expected.passage_prompt,
        expected.prompts,
    )


@pytest.mark.parametrize("name", ["made5-model", "type5", "gte5x-small"])
def test_bert_names_that_only_look_like_e5_get_no_prefixes(tmp_path, name):
    assert load_config(folder_with(tmp_path / name, BERT)).text.query_prompt == ""


def test_bert_prompts_of_the_folder_win_over_the_name(tmp_path):
    prompts = {"prompts": {"query": "Q: ", "passage": "P: "}}
    folder = folder_with(tmp_path / "e5-small", BERT)
    add_sentence_files(folder, {"pooling_mode_mean_tokens": True}, prompts=prompts)
    text = load_config(folder).text
    assert (text.query_prompt, text.passage_prompt) == ("Q: ", "P: ")


def test_name_comes_from_the_hub_cache_or_the_origin_where_the_folder_is_generic(tmp_path):
    snapshot = tmp_path / "models--intfloat--e5-small" / "snapshots" / ("0123456789" * 4)
    assert load_config(folder_with(snapshot, BERT)).name == "e5-small"
    assert load_config(snapshot).text.query_prompt == "query: "
    named = MISTRAL | {"_name_or_path": "nvidia/Great"}
    assert load_config(folder_with(tmp_path / "model", named)).name == "Great"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MISTRAL | {"model_type": "llama"}, "'llama' .* supported families: nvembed, mistral"),
        ({"architectures": ["T5"]}, "model_type None"),
        (MISTRAL | {"rope_scaling": {"type": "yarn", "factor": 4}}, "rope type 'yarn'"),
        (MISTRAL | {"rope_parameters": {"rope_type": "llama3"}}, "rope type 'llama3'"),
        (MISTRAL | {"rope_parameters": {"full_attention": {}}}, "by layer type"),
        (MISTRAL | {"hidden_act": "relu"}, "hidden_act 'relu'"),
        (MISTRAL | {"attention_bias": True}, "attention_bias"),
        (MISTRAL | {"pooling": "max"}, "pooling 'max'"),
        (MISTRAL | {"quantization_config": {"bits": 4}}, "quantised weights"),
        ({k: v for k, v in MISTRAL.items() if k != "hidden_size"}, "'hidden_size' is missing"),
        (QWEN2 | {"use_sliding_window": True}, "max_window_layers 2"),
        (GEMMA2 | {"layer_types": ["full_attention"] * 3}, "layer_types must alternate"),
        (BERT | {"position_embedding_type": "relative_key"}, "relative_key"),
        (BERT | {"is_decoder": True}, "causal BERT"),
        (BERT | {"hidden_act": "silu"}, "hidden_act 'silu'"),
        (NVEMBED | {"mask_type": "x"}, "mask_type must be 'b'"),
        (NVEMBED | {"hidden_size": 32}, "hidden_size 32 differs"),
        (NVEMBED | {"latent_attention_config": {"hidden_dim": 32}}, "hidden_dim 32 differs"),
    ],
)
def test_config_that_we_cannot_run_is_refused_by_name(tmp_path, config, message):
    folder = folder_with(tmp_path / "m", config)
    with pytest.raises(ValueError, match=message) as error:
        load_config(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("pooling_file", "dense", "message"),
    [
        ({"pooling_mode_max_tokens": True}, None, r"pooling \['max'\] is not supported"),
        ({"pooling_mode": ["mean", "cls"]}, None, "is not supported"),
        ({}, None, r"pooling \[\] is not supported"),
        (
            {"pooling_mode": "mean"},
            {"in_features": 16, "out_features": 8, "activation_function": "torch.nn.GELU"},
            "activation 'GELU' is not supported",
        ),
    ],
)
def test_sentence_folder_that_we_cannot_run_is_refused(tmp_path, pooling_file, dense, message):
    folder = add_sentence_files(folder_with(tmp_path / "m", BERT), pooling_file, dense=dense)
    with pytest.raises(ValueError, match=message):
        load_config(folder)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["Transformer", "LSTM"], "module 'LSTM' is not supported"),
        (["Transformer", "Dense", "Pooling"], "Dense must come after Pooling"),
        (["Transformer", "Transformer"], "Transformer stands twice"),
    ],
)
def test_modules_that_we_cannot_run_are_refused(tmp_path, kinds, message):
    folder = folder_with(tmp_path / "m", BERT)
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": ""} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=message):
        load_config(folder)


def test_missing_or_broken_config_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder at"):
        load_config(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        load_config(tmp_path)


def test_our_format_of_a_later_version_is_refused(tmp_path):
    data = {"model_type": "nvembed_jax", "format_version": 99}
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"format_version 99 .* upgrade"):
        load_config(tmp_path)
