"""A published folder's config.json and side files -> `ModelConfig`: a small function a family."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvembed_jax.checkpoint.hf_text import (
    bert_text,
    instruct_text,
    model_name,
)
from nvembed_jax.checkpoint.sentence_layout import SentenceLayout, read_json, read_layout
from nvembed_jax.config import (
    Attention,
    BertConfig,
    DecoderConfig,
    LatentConfig,
    ModelConfig,
    Pooling,
    from_dict,
    to_dict,
)

EXTRAS_KEY = "nvembed_jax"  # in a config.json that we exported: what the published form cannot say
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_POOLING_KEYS: dict[str, Pooling] = {
    "avg": "mean",
    "mean": "mean",
    "last": "eos",
    "lasttoken": "eos",
    "eos": "eos",
    "cls": "cls",
}
# What MistralConfig assumes of a nested text_config that leaves a key out.
_MISTRAL_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
}


@dataclass(frozen=True)
class Published:
    """A published folder: its config.json and side files, read once."""

    folder: Path
    raw: dict[str, Any]
    layout: SentenceLayout
    name: str


def read_published(folder: Path) -> tuple[ModelConfig, SentenceLayout]:
    """The configuration of a Hugging Face or sentence-transformers folder.

    Raises:
        FileNotFoundError: no config.json.
        ValueError: an unsupported family or feature; the message names it.
    """
    layout = read_layout(folder)
    path = folder / layout.transformer / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no config.json in {path.parent}: this is not a model folder")
    raw = read_json(path)
    kind = raw.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"{path}: model_type {kind!r} (architectures {raw.get('architectures')}) is not "
            f"supported; supported families: {', '.join(FAMILIES)}"
        )
    if raw.get("quantization_config"):
        raise ValueError(
            f"{path}: quantised weights are not supported; use the unquantised checkpoint"
        )
    name = model_name(folder, raw, layout.is_sentence_folder)
    try:
        config = FAMILIES[kind](Published(folder, raw, layout, name))
        if EXTRAS_KEY in raw:
            config = from_dict({**to_dict(config), **raw[EXTRAS_KEY]})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config, layout


def _nvembed(source: Published) -> ModelConfig:
    raw = source.raw
    text = raw.get("text_config") or {}
    backbone = _decoder({**_MISTRAL_DEFAULTS, **text})
    if raw.get("hidden_size", backbone.embed_dim) != backbone.embed_dim:
        raise ValueError(
            f"hidden_size {raw['hidden_size']} differs from text_config's {backbone.embed_dim}"
        )
    mask = raw.get("mask_type", "b")
    if mask not in ("b", "c"):
        raise ValueError(f"mask_type must be 'b' (bidirectional) or 'c' (causal); got {mask!r}")
    return ModelConfig(
        name=source.name,
        family="nvembed",
        backbone=backbone,
        attention="bidirectional" if mask == "b" else "causal",
        pooling="latent",
        latent=_latent(raw.get("latent_attention_config") or {}, backbone.embed_dim),
        text=instruct_text(
            source.folder,
            source.layout,
            add_eos=bool(raw.get("add_eos", True)),
            mask_instruction=bool(raw.get("is_mask_instruction", True)),
            # The published code cuts at the backbone's positions, not at the side file's length.
            max_length=backbone.max_positions,
            family="nvembed",
        ),
    )


def _latent(raw: dict[str, Any], width: int) -> LatentConfig:
    """The published file names only the model type: every size has the published code's default."""
    if raw.get("hidden_dim", width) != width:
        raise ValueError(
            f"latent_attention_config.hidden_dim {raw['hidden_dim']} differs from the "
            f"backbone's {width}"
        )
    default = LatentConfig()
    return LatentConfig(
        num_latents=raw.get("num_latents_value", default.num_latents),
        latent_dim=raw.get("latent_dim", default.latent_dim),
        num_cross_heads=raw.get("num_cross_heads", default.num_cross_heads),
        cross_head_dim=raw.get("cross_dim_head", default.cross_head_dim),
        mlp_multiplier=raw.get("mult", default.mlp_multiplier),
    )


def _mistral(source: Published) -> ModelConfig:
    return _embedder(source, "mistral", _decoder(source.raw))


def _qwen2(source: Published) -> ModelConfig:
    raw = source.raw
    window, layers = None, _need(raw, "num_hidden_layers")
    full = raw.get("max_window_layers", layers)  # so many first layers are not windowed
    if raw.get("use_sliding_window") and full < layers:
        if full > 0:
            raise ValueError(
                f"max_window_layers {full}: a window on the last layers only is not supported"
            )
        window = raw.get("sliding_window")
    return _embedder(source, "qwen2", _decoder(raw, qkv_bias=True, sliding_window=window))


def _gemma2(source: Published) -> ModelConfig:
    raw = source.raw
    layers = _need(raw, "num_hidden_layers")
    types = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    if raw.get("layer_types") not in (None, types):
        raise ValueError("layer_types must alternate, sliding_attention first")
    backbone = _decoder(
        raw,
        activation=_activation(raw, "hidden_activation", "hidden_act"),
        window_every=2,
        norm_offset=1.0,
        post_norms=True,
        scale_embeddings=True,
        attention_softcap=raw.get("attn_logit_softcapping", 50.0),
        query_scale=raw.get("query_pre_attn_scalar", 256) ** -0.5,
    )
    return _embedder(source, "gemma2", backbone)


def _embedder(source: Published, family: str, backbone: DecoderConfig) -> ModelConfig:
    raw, layout = source.raw, source.layout
    pooling = layout.pooling or _pooling_key(raw, "eos")
    limit = layout.max_length or _tokenizer_limit(source) or backbone.max_positions
    add_eos = raw.get("add_eos")
    if add_eos is None and pooling != "eos":
        add_eos = _tokenizer_config(source).get("add_eos_token")
    return ModelConfig(
        name=source.name,
        family=family,
        backbone=backbone,
        attention=_attention(raw),
        pooling=pooling,
        projections=layout.projections,
        text=instruct_text(
            source.folder,
            layout,
            # EOS pooling needs the EOS: published code adds it where the tokenizer does not.
            add_eos=True if add_eos is None else bool(add_eos),
            mask_instruction=not layout.include_prompt,
            max_length=min(limit, backbone.max_positions),
            family=family,
        ),
    )


def _bert(source: Published) -> ModelConfig:
    raw, layout = source.raw, source.layout
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"position_embedding_type {raw['position_embedding_type']!r} is not supported"
        )
    if raw.get("is_decoder"):
        raise ValueError("is_decoder: a causal BERT is not supported")
    backbone = BertConfig(
        vocab_size=_need(raw, "vocab_size"),
        embed_dim=_need(raw, "hidden_size"),
        mlp_dim=_need(raw, "intermediate_size"),
        num_layers=_need(raw, "num_hidden_layers"),
        num_heads=_need(raw, "num_attention_heads"),
        max_positions=raw.get("max_position_embeddings", 512),
        num_token_types=raw.get("type_vocab_size", 2),
        norm_eps=raw.get("layer_norm_eps", 1e-12),
        activation=_activation(raw, "hidden_act", allowed=("gelu", "gelu_tanh")),
    )
    limit = layout.max_length or _tokenizer_limit(source) or backbone.max_positions
    return ModelConfig(
        name=source.name,
        family="bert",
        backbone=backbone,
        attention="bidirectional",
        pooling=layout.pooling or _pooling_key(raw, "mean"),
        projections=layout.projections,
        text=bert_text(source.folder, raw, layout, min(limit, backbone.max_positions)),
    )


FAMILIES: dict[str, Callable[[Published], ModelConfig]] = {
    "nvembed": _nvembed,
    "mistral": _mistral,
    "bidir_mistral": _mistral,
    "qwen2": _qwen2,
    "gemma2": _gemma2,
    "bert": _bert,
}


def _decoder(raw: dict[str, Any], **changes: Any) -> DecoderConfig:
    for key in ("attention_bias", "mlp_bias"):
        if raw.get(key):
            raise ValueError(f"{key} is not supported")
    heads, width = _need(raw, "num_attention_heads"), _need(raw, "hidden_size")
    fields = {
        "vocab_size": _need(raw, "vocab_size"),
        "embed_dim": width,
        "mlp_dim": _need(raw, "intermediate_size"),
        "num_layers": _need(raw, "num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": raw.get("num_key_value_heads") or heads,
        "head_dim": raw.get("head_dim") or width // heads,
        "max_positions": raw.get("max_position_embeddings", 32768),
        "rope_theta": _rope_theta(raw),
        "norm_eps": raw.get("rms_norm_eps", 1e-6),
        "sliding_window": raw.get("sliding_window"),
    }
    if "activation" not in changes:
        fields["activation"] = _activation(raw, "hidden_act", default="silu")
    return DecoderConfig(**{**fields, **changes})


def _rope_theta(raw: dict[str, Any]) -> float:
    """From `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5)."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = raw.get(key) or {}
        if any(isinstance(value, dict) for value in rope.values()):
            raise ValueError(f"{key} by layer type is not supported")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ValueError(f"{key}: rope type {kind!r} is not supported; only 'default' is")
    if raw.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("partial_rotary_factor is not supported")
    theta = (raw.get("rope_parameters") or {}).get("rope_theta", raw.get("rope_theta"))
    return float(10000.0 if theta is None else theta)


def _attention(raw: dict[str, Any]) -> Attention:
    bidirectional = (
        raw.get("is_causal") is False
        or bool(raw.get("use_bidirectional_attention"))
        or raw.get("mask_type") == "b"
        or re.search("bidir", str(raw["model_type"])) is not None
    )
    return "bidirectional" if bidirectional else "causal"


def _pooling_key(raw: dict[str, Any], default: Pooling) -> Pooling:
    """`pooling` of a config.json without sentence-transformers files beside it."""
    value = raw.get("pooling")
    if value is None:
        return default
    if value not in _POOLING_KEYS:
        raise ValueError(f"pooling {value!r} is not supported; known: {', '.join(_POOLING_KEYS)}")
    return _POOLING_KEYS[value]


def _activation(
    raw: dict[str, Any], *keys: str, default: str | None = None, allowed: tuple[str, ...] = ()
) -> Any:
    value = next((raw[key] for key in keys if raw.get(key)), default)
    name = _ACTIVATIONS.get(str(value))
    if name is None or (allowed and name not in allowed):
        raise ValueError(f"{keys[0]} {value!r} is not supported; known: {', '.join(_ACTIVATIONS)}")
    return name


def _need(raw: dict[str, Any], key: str) -> Any:
    if raw.get(key) is None:
        raise ValueError(f"{key!r} is missing")
    return raw[key]


def _tokenizer_config(source: Published) -> dict[str, Any]:
    return read_json(source.folder / source.layout.transformer / "tokenizer_config.json")


def _tokenizer_limit(source: Published) -> int | None:
    """model_max_length, unless it is the "no limit" number that transformers writes."""
    limit = _tokenizer_config(source).get("model_max_length")
    return int(limit) if isinstance(limit, int | float) and limit < 1e6 else None
