"""`ModelConfig` -> the configuration files of a published folder; they read back equal.

What the published form has no word for (name, templates) goes under one key of config.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nvembed_jax.checkpoint.hf_config import EXTRAS_KEY, read_published
from nvembed_jax.checkpoint.sentence_layout import (
    LENGTH_FILE,
    MODULES_FILE,
    PROMPTS_FILE,
    read_json,
)
from nvembed_jax.config import (
    BertConfig,
    DecoderConfig,
    LatentConfig,
    ModelConfig,
    TextConfig,
    to_dict,
)
from nvembed_jax.text.instructions import passage_prefix, query_prefix
from nvembed_jax.text.tokenizer_files import MODEL_FILES, load_folder

_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
_DENSE_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
}
_POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "eos": "pooling_mode_lasttoken",
}
_ARCHITECTURES = {"mistral": "MistralModel", "qwen2": "Qwen2Model", "gemma2": "Gemma2Model"}
_SAID_BY_EXTRAS = (
    "name",
    "family",
    "text",
    "matryoshka_dims",
    "latent",
    "self_attention_pooling",
)


def dense_folders(config: ModelConfig) -> tuple[str, ...]:
    """Folders of the projections, as sentence-transformers numbers its modules."""
    return tuple(f"{number}_Dense" for number in range(2, 2 + len(config.projections)))


def write_published_config(folder: Path, config: ModelConfig, dtype: str) -> None:
    """Writes config.json, and for other models than NV-Embed the sentence-transformers files.

    The tokenizer's files must lie in `folder` already, as they are read for the query template.

    Raises:
        ValueError: the published form cannot hold this model.
    """
    data = _config_json(config) | {"torch_dtype": dtype}
    _write(folder / "config.json", data)
    if config.pooling != "latent":
        _write_sentence_files(folder, config)
        if isinstance(config.backbone, DecoderConfig):
            _write_whole_tokenizer(folder, config.text.add_eos)
    found, wanted = to_dict(read_published(folder)[0]), to_dict(config)
    changed = {key: wanted[key] for key in wanted if wanted[key] != found[key]}
    odd = sorted(changed.keys() - set(_SAID_BY_EXTRAS))
    if odd or ("latent" in changed and config.pooling == "latent"):
        raise ValueError(
            f"a {data['model_type']!r} folder cannot hold this model: "
            f"{', '.join(odd or ['latent'])} would be lost; keep it in our own format"
        )
    if changed:
        _write(folder / "config.json", data | {EXTRAS_KEY: changed})


def sentence_transformers_limits(config: ModelConfig) -> tuple[str, ...]:
    """What of a model sentence-transformers cannot do with its published form; () of all is well.

    Each is a sentence for people.
    """
    if config.pooling in ("latent", "self_attention"):
        return (
            f"sentence-transformers has no class for {config.pooling} pooling: load this model "
            f"with nvembed_jax, or with the published model's own PyTorch code",
        )
    limits = []
    if config.text.query_suffix:
        limits.append(
            f"sentence-transformers closes no query with {config.text.query_suffix!r}: append it "
            f"to the texts"
        )
    if config.text.mask_instruction and config.pooling == "mean":
        limits.append(
            "sentence-transformers leaves one token more of an instruction out of the mean, its "
            "last: embeddings of queries differ a little"
        )
    if config.attention == "bidirectional" and isinstance(config.backbone, DecoderConfig):
        limits.append(
            "bidirectional attention needs a transformers that heeds `is_causal` in config.json "
            "(5.23 does): older ones run the model causally without a word"
        )
    return tuple(limits)


def _config_json(config: ModelConfig) -> dict[str, Any]:
    backbone, bidirectional = config.backbone, config.attention == "bidirectional"
    if isinstance(backbone, BertConfig):
        return _bert_json(backbone)
    if config.pooling == "latent" and config.latent is not None:
        return _nvembed_json(config, backbone, config.latent)
    if config.pooling not in _POOLING_FLAGS:
        raise ValueError(
            f"pooling {config.pooling!r} has no published form; keep the model in our own format"
        )
    kind = config.family if config.family in _ARCHITECTURES else "mistral"
    data = {"architectures": [_ARCHITECTURES[kind]], "model_type": kind}
    data |= _decoder_json(backbone)
    if kind == "qwen2":
        windowed = backbone.sliding_window is not None
        data |= {"use_sliding_window": windowed}
        data |= {"max_window_layers": 0} if windowed else {}
    if kind == "gemma2":
        data |= _gemma2_json(backbone)
    return data | ({"is_causal": False} if bidirectional else {})


def _decoder_json(c: DecoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.embed_dim,
        "intermediate_size": c.mlp_dim,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "max_position_embeddings": c.max_positions,
        "rope_theta": c.rope_theta,
        "rms_norm_eps": c.norm_eps,
        "hidden_act": _ACTIVATIONS[c.activation],
        "sliding_window": c.sliding_window,
    }


def _gemma2_json(c: DecoderConfig) -> dict[str, Any]:
    scale = (c.head_dim**-0.5 if c.query_scale is None else c.query_scale) ** -2
    return {
        "hidden_activation": _ACTIVATIONS[c.activation],
        "attn_logit_softcapping": c.attention_softcap,
        "final_logit_softcapping": None,
        # A whole number in every published config; the power leaves the last bit off.
        "query_pre_attn_scalar": round(scale) if abs(scale - round(scale)) < 1e-6 else scale,
    }


def _nvembed_json(config: ModelConfig, c: DecoderConfig, latent: LatentConfig) -> dict[str, Any]:
    return {
        "architectures": ["NVEmbedModel"],
        "model_type": "nvembed",
        "hidden_size": c.embed_dim,
        "padding_side": config.text.padding_side,
        "add_eos": config.text.add_eos,
        "add_pad_token": True,
        "is_mask_instruction": config.text.mask_instruction,
        "mask_type": "b" if config.attention == "bidirectional" else "c",
        "latent_attention_config": {
            "model_type": "latent_attention",
            "num_latents_value": latent.num_latents,
            "num_cross_heads": latent.num_cross_heads,
            "hidden_dim": c.embed_dim,
            "latent_dim": latent.latent_dim,
            "cross_dim_head": latent.cross_head_dim,
            "mult": latent.mlp_multiplier,
            "output_normalize": True,
        },
        "text_config": {
            "architectures": ["MistralModel"],
            "model_type": "bidir_mistral",
            **_decoder_json(c),
        },
    }


def _bert_json(c: BertConfig) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": c.vocab_size,
        "hidden_size": c.embed_dim,
        "intermediate_size": c.mlp_dim,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "max_position_embeddings": c.max_positions,
        "type_vocab_size": c.num_token_types,
        "layer_norm_eps": c.norm_eps,
        "hidden_act": _ACTIVATIONS[c.activation],
        "position_embedding_type": "absolute",
    }


def _write_sentence_files(folder: Path, config: ModelConfig) -> None:
    text, width = config.text, config.backbone.embed_dim
    kinds = ["", "1_Pooling", *dense_folders(config)]
    kinds.append(f"{len(kinds)}_Normalize")
    names = ["Transformer", "Pooling", *["Dense"] * len(config.projections), "Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(zip(kinds, names, strict=True))
    ]
    _write(folder / MODULES_FILE, modules)
    flags = {flag: mode == config.pooling for mode, flag in _POOLING_FLAGS.items()}
    prompt = {"include_prompt": not text.mask_instruction}
    _write(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width} | flags | prompt
    )
    for path, projection in zip(dense_folders(config), config.projections, strict=True):
        dense = {
            "in_features": projection.in_dim,
            "out_features": projection.out_dim,
            "bias": projection.use_bias,
            "activation_function": _DENSE_ACTIVATIONS[projection.activation],
        }
        _write(folder / path / "config.json", dense)
    prompts, default = _prompts(text)
    named = {"prompts": prompts, "default_prompt_name": default, "similarity_fn_name": "cosine"}
    _write(folder / PROMPTS_FILE, named)
    lengths = {"max_seq_length": text.max_length, "do_lower_case": text.lowercase}
    _write(folder / LENGTH_FILE, lengths)


def _prompts(text: TextConfig) -> tuple[dict[str, str], str | None]:
    """The named prompts and the default's name. Its `encode_query` and `encode_document` take what
    is named query and document: the template with the default task, and the passage prefix.
    """
    prompts = dict(text.prompts)
    for name, prompt in (("query", query_prefix(text)), ("document", passage_prefix(text))):
        if prompt or name in prompts:
            prompts[name] = prompt
    if not text.default_prompt:
        return prompts, None
    known = (name for name, prompt in prompts.items() if prompt == text.default_prompt)
    name = next(known, "default")
    return prompts | {name: text.default_prompt}, name


def _write_whole_tokenizer(folder: Path, add_eos: bool) -> None:
    """Makes tokenizer.json say all: other libraries add no EOS for these models, and rebuild the
    tokenizer by the rules of the class that tokenizer_config.json names, if that is a known one.
    """
    path, side = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not any((folder / name).is_file() for name in MODEL_FILES):
        return  # a model that was saved without its tokenizer
    if path.is_file() and "model" not in read_json(path):
        return  # nobody can read it: copied as it is
    changes = {"tokenizer_class": "PreTrainedTokenizerFast"}
    changes |= {"add_eos_token": True} if add_eos else {}
    _write(side, read_json(side) | changes)
    load_folder(folder).backend.save(str(path))


def _write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
