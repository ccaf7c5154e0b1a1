"""Published tensor names: one table a family, our name on the left, the published one on the right.

`{layer}` marks a tensor that is stored once a layer there and stacked [L, ...] here. Backbone names
may carry a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nvembed_jax.checkpoint.safetensors_io import TensorEntry
from nvembed_jax.checkpoint.shapes import expected_shapes
from nvembed_jax.config import BertConfig, ModelConfig

_LATENT_BLOCK = "latent_attention_model.cross_attend_blocks"
_DECODER_LAYER = (
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    "pre_feedforward_layernorm.weight",
    "post_feedforward_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "self_attn.q_proj.bias",
    "self_attn.k_proj.bias",
    "self_attn.v_proj.bias",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
)


@dataclass(frozen=True)
class KeyTable:
    """One family's names.

    Attributes:
        prefixes: what may stand before backbone names; the first is the published one.
        backbone: ours (without "backbone.") -> published (without prefix).
        unused: patterns of tensors that published files hold and embeddings do not need.
    """

    prefixes: tuple[str, ...]
    backbone: Mapping[str, str]
    unused: tuple[str, ...]


DECODER_KEYS = KeyTable(
    prefixes=("", "model.", "embedding_model."),
    backbone={
        "embed_tokens.weight": "embed_tokens.weight",
        "norm.weight": "norm.weight",
        **{f"layers.{name}": f"layers.{{layer}}.{name}" for name in _DECODER_LAYER},
    },
    unused=(r"lm_head\.weight", r"(.*\.)?rotary_emb\.inv_freq"),
)
NVEMBED_KEYS = KeyTable(
    prefixes=("embedding_model.",), backbone=DECODER_KEYS.backbone, unused=DECODER_KEYS.unused
)


def _both(ours: str, published: str) -> dict[str, str]:
    return {f"{ours}.{kind}": f"{published}.{kind}" for kind in ("weight", "bias")}


BERT_KEYS = KeyTable(
    prefixes=("", "bert."),
    backbone={
        "embeddings.word_embeddings.weight": "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight": "embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight": "embeddings.token_type_embeddings.weight",
        **_both("embeddings.norm", "embeddings.LayerNorm"),
        **_both("layers.self_attn.q_proj", "encoder.layer.{layer}.attention.self.query"),
        **_both("layers.self_attn.k_proj", "encoder.layer.{layer}.attention.self.key"),
        **_both("layers.self_attn.v_proj", "encoder.layer.{layer}.attention.self.value"),
        **_both("layers.self_attn.o_proj", "encoder.layer.{layer}.attention.output.dense"),
        **_both("layers.attention_layernorm", "encoder.layer.{layer}.attention.output.LayerNorm"),
        **_both("layers.mlp.up_proj", "encoder.layer.{layer}.intermediate.dense"),
        **_both("layers.mlp.down_proj", "encoder.layer.{layer}.output.dense"),
        **_both("layers.output_layernorm", "encoder.layer.{layer}.output.LayerNorm"),
    },
    unused=(
        r"(bert\.)?embeddings\.position_ids",
        r"(bert\.)?pooler\.dense\.(weight|bias)",
        r"cls\..*",
    ),
)
LATENT_KEYS = {
    "pooling.latents": "latent_attention_model.latents",
    **_both("pooling.cross_attn.norm", f"{_LATENT_BLOCK}.0.norm"),
    **_both("pooling.cross_attn.norm_context", f"{_LATENT_BLOCK}.0.norm_context"),
    "pooling.cross_attn.to_q.weight": f"{_LATENT_BLOCK}.0.fn.to_q.weight",
    "pooling.cross_attn.to_kv.weight": f"{_LATENT_BLOCK}.0.fn.to_kv.weight",
    "pooling.cross_attn.to_out.weight": f"{_LATENT_BLOCK}.0.fn.to_out.weight",
    **_both("pooling.feed_forward.norm", f"{_LATENT_BLOCK}.1.norm"),
    **_both("pooling.feed_forward.up", f"{_LATENT_BLOCK}.1.fn.net.0"),
    **_both("pooling.feed_forward.down", f"{_LATENT_BLOCK}.1.fn.net.2"),
}


def key_table(config: ModelConfig) -> KeyTable:
    """The table of the model's family."""
    if isinstance(config.backbone, BertConfig):
        return BERT_KEYS
    return NVEMBED_KEYS if config.pooling == "latent" else DECODER_KEYS


def published_names(
    config: ModelConfig, prefix: str, dense_folders: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Our flat name -> its published names: one, or one a layer for stacked tensors.

    Names of projections carry their folder ("2_Dense/linear.weight").
    """
    table, out = key_table(config), {}
    for name in expected_shapes(config):
        area, _, rest = name.partition(".")
        if area == "backbone":
            published = prefix + table.backbone[rest]
        elif area == "projections":
            number, _, kind = rest.partition(".")
            published = f"{dense_folders[int(number)]}/linear.{kind}"
        elif name in LATENT_KEYS:
            published = LATENT_KEYS[name]
        else:
            raise ValueError(
                f"{name} (pooling {config.pooling!r}) has no published name; "
                "only our own format holds it"
            )
        layers = range(config.backbone.num_layers) if "{layer}" in published else (0,)
        out[name] = tuple(published.format(layer=i) for i in layers)
    return out


@dataclass(frozen=True)
class Parts:
    """One of our tensors and the entries that make it: itself, or a layer each when `stacked`."""

    name: str
    shape: tuple[int, ...]
    entries: tuple[TensorEntry, ...]
    stacked: bool


def match_published(
    tensors: Mapping[str, TensorEntry], config: ModelConfig, dense_folders: Sequence[str] = ()
) -> tuple[dict[str, Parts], list[str]]:
    """Maps published tensors to ours.

    Returns:
        Our flat name -> `Parts`, and the names of known tensors that embeddings do not need.

    Raises:
        ValueError: a tensor is missing, unknown or misshapen; the message names it.
    """
    table = key_table(config)
    candidates = [published_names(config, prefix, dense_folders) for prefix in table.prefixes]
    names = max(candidates, key=lambda c: sum(n in tensors for group in c.values() for n in group))
    expected = {}
    for ours, shape in expected_shapes(config).items():
        each = shape[1:] if _is_stacked(ours) else shape
        expected |= dict.fromkeys(names[ours], each)
    unused = [n for n in tensors if n not in expected and _matches(n, table.unused)]
    check_tensors(tensors, expected, config, ignore=unused)
    parts = {
        ours: Parts(ours, shape, tuple(tensors[n] for n in names[ours]), _is_stacked(ours))
        for ours, shape in expected_shapes(config).items()
    }
    return parts, unused


def match_own(tensors: Mapping[str, TensorEntry], config: ModelConfig) -> dict[str, Parts]:
    """The tensors of one of our own folders, checked like published ones."""
    shapes = expected_shapes(config)
    check_tensors(tensors, shapes, config)
    return {name: Parts(name, shape, (tensors[name],), False) for name, shape in shapes.items()}


def check_tensors(
    tensors: Mapping[str, object],
    expected: Mapping[str, tuple[int, ...]],
    config: ModelConfig,
    ignore: Iterable[str] = (),
) -> None:
    """Raises ValueError naming every (at most five) missing, unknown or misshapen tensor."""
    problems = []
    for name, shape in expected.items():
        if name not in tensors:
            problems.append(f"tensor {name!r} is missing (expected shape {list(shape)})")
            continue
        found = tuple(tensors[name].shape)  # type: ignore[attr-defined]
        if found != tuple(shape):
            problems.append(f"tensor {name!r} has shape {list(found)}, expected {list(shape)}")
    for name in sorted(tensors.keys() - expected.keys() - set(ignore)):
        shape = list(tensors[name].shape)  # type: ignore[attr-defined]
        problems.append(
            f"tensor {name!r} (shape {shape}) is unknown to the family {config.family!r}"
        )
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            "; ".join(problems[:5]) + more + ". Do the config and the weights belong together?"
        )


def _is_stacked(name: str) -> bool:
    return name.startswith("backbone.layers.")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
