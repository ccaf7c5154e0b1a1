"""Frozen model configurations: what a model *is* (sizes, attention, pooling, templates), never how
it is run.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Attention: TypeAlias = str
Pooling: TypeAlias = str
ATTENTIONS = ("bidirectional", "causal")
POOLINGS = ("latent", "mean", "eos", "cls", "self_attention")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A Mistral-style decoder; Qwen2 and Gemma 2 are the same one with other switches."""

    vocab_size: int
    embed_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int = 32768
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    activation: Literal["silu", "gelu_tanh", "gelu"] = "silu"
    sliding_window: int | None = None  # applied to the causal mask only
    window_every: int = 1  # 1: every layer is windowed; 2: layers 0, 2, 4, ... (Gemma 2)
    qkv_bias: bool = False  # Qwen2
    norm_offset: float = 0.0  # Gemma: weights are stored less one
    post_norms: bool = False  # Gemma 2: norms also behind attention and MLP
    scale_embeddings: bool = False  # Gemma: times sqrt(embed_dim)
    attention_softcap: float | None = None  # Gemma 2
    query_scale: float | None = None  # None: head_dim ** -0.5


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """A BERT encoder (E5, MiniLM): post-LayerNorm, absolute positions, token types."""

    vocab_size: int
    embed_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    max_positions: int = 512
    num_token_types: int = 2
    norm_eps: float = 1e-12
    activation: Literal["gelu", "gelu_tanh"] = "gelu"


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """The latent-attention block; the defaults are those of the published code (paper, section
    3.1)."""

    num_latents: int = 512
    latent_dim: int = 4096
    num_cross_heads: int = 8
    cross_head_dim: int = 4096
    mlp_multiplier: int = 4


@dataclass(frozen=True, kw_only=True)
class SelfAttentionPoolingConfig:
    """The ablation's self-attention pooling: one pre-norm attention layer and a GEGLU block
    before the mean."""

    num_heads: int = 8
    mlp_multiplier: int = 4


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """One dense layer behind the pooling (stella, and the `Dense` modules of
    sentence-transformers)."""

    in_dim: int
    out_dim: int
    use_bias: bool = True
    activation: Literal["identity", "tanh"] = "identity"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How texts become tokens: template, prompts, EOS, truncation, and what of a text is pooled."""

    max_length: int = 512
    add_eos: bool = False  # the EOS token closes every text
    padding_side: Literal["right"] = "right"
    mask_instruction: bool = False  # instruction tokens are attended to but not pooled
    query_template: str | None = (
        None  # with a "{task}" slot; None: the model knows no task descriptions
    )
    default_task: str | None = None
    example_template: str | None = (
        None  # slots {task} {query} {passage}: in-context examples (bge-en-icl)
    )
    query_suffix: str = ""  # closes a query when the model's template says so (bge-en-icl)
    prompts: tuple[
        tuple[str, str], ...
    ] = ()  # named raw prefixes, as sentence-transformers has them
    query_prompt: str = ""  # raw prefix of queries when there is no task
    passage_prompt: str = ""
    default_prompt: str = ""  # raw prefix of plain `encode`
    lowercase: bool = False  # on top of what the tokenizer's own normaliser does


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One embedding model: backbone, pooling, projections and text handling."""

    family: str
    backbone: DecoderConfig | BertConfig
    attention: Attention = "bidirectional"
    pooling: Pooling = "mean"
    latent: LatentConfig | None = None
    self_attention_pooling: SelfAttentionPoolingConfig | None = None
    projections: tuple[ProjectionConfig, ...] = ()
    text: TextConfig = TextConfig()
    matryoshka_dims: tuple[int, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        for field, value, allowed in (
            ("attention", self.attention, ATTENTIONS),
            ("pooling", self.pooling, POOLINGS),
        ):
            if value not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}; got {value!r}")
        if isinstance(self.backbone, BertConfig) and self.attention == "causal":
            raise ValueError("a BERT encoder has no causal mode; use attention='bidirectional'")
        if self.pooling == "latent" and self.latent is None:
            raise ValueError(
                "pooling 'latent' needs a LatentConfig; this model has no latent block"
            )
        if self.pooling == "self_attention" and self.self_attention_pooling is None:
            raise ValueError(
                "pooling 'self_attention' needs a SelfAttentionPoolingConfig; this model has none"
            )

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings that come out."""
        return self.projections[-1].out_dim if self.projections else self.backbone.embed_dim


def to_dict(config: Any) -> dict[str, Any]:
    """`config` as plain JSON-ready types; `from_dict` is its inverse."""
    out = dataclasses.asdict(config)
    if isinstance(config, ModelConfig):
        out["backbone"]["type"] = "bert" if isinstance(config.backbone, BertConfig) else "decoder"
    return out


def from_dict(data: dict[str, Any], cls: type = ModelConfig) -> Any:
    """Builds `cls` from plain types; unknown keys raise with the nearest known name."""
    data = dict(data)
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}
    for key in data.keys() - known:
        near = difflib.get_close_matches(key, known, n=1)
        mend = (
            f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"
        )
        raise ValueError(f"unknown key {key!r} in {cls.__name__}{mend}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in data
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{cls.__name__} lacks {', '.join(missing)}")
    return cls(**{key: _from_plain(hints[key], value, key) for key, value in data.items()})


def _from_plain(hint: Any, value: Any, key: str) -> Any:
    if key == "backbone":
        value = dict(value)
        kind = value.pop("type", None)
        if kind not in ("decoder", "bert"):
            raise ValueError(f"backbone.type must be 'decoder' or 'bert'; got {kind!r}")
        return from_dict(value, DecoderConfig if kind == "decoder" else BertConfig)
    options = (
        typing.get_args(hint)
        if typing.get_origin(hint) in (typing.Union, types.UnionType)
        else (hint,)
    )
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return from_dict(value, option)  # type: ignore[arg-type]
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(inner):
            return tuple(from_dict(item, inner) for item in value)  # type: ignore[arg-type]
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    return value
