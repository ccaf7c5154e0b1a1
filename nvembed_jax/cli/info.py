"""`nvembed info`: what a model is, from its configuration and the headers of its weights."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

NAME = "info"
HELP = """Show what a model is: sizes, parameters, pooling, prompts, memory.

Reads the configuration and the headers of the weights, not the weights.

\b
Examples:
  nvembed info
  nvembed info nvidia/NV-Embed-v2
  nvembed info ./my-model --json
"""

_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


def command(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Model folder or name. Default: the bundled model."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """See `HELP`."""
    facts = model_facts(model)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else _as_text(facts))


def model_facts(model: str | None) -> dict[str, Any]:
    """Everything that `info` shows, in plain types; sizes of weights in bytes."""
    from nvembed_jax.checkpoint.model_folder import open_model
    from nvembed_jax.checkpoint.store import resolve_model

    opened = open_model(resolve_model(model))
    config = opened.config
    parameters = sum(math.prod(parts.shape) for parts in opened.parts.values())
    dtypes = {entry.dtype.name for parts in opened.parts.values() for entry in parts.entries}
    folded = parameters - _folded_away(config)
    facts = {
        "name": config.name,
        "folder": str(opened.folder),
        "layout": "nvembed_jax" if opened.is_own else "Hugging Face",
        "family": config.family,
        "embed_dim": config.embed_dim,
        **_sizes(config.backbone),
        "max_length": config.text.max_length,
        "attention": config.attention,
        "pooling": config.pooling,
        "matryoshka_dims": list(config.matryoshka_dims),
        "parameters": parameters,
        "dtype": ", ".join(sorted(dtypes)),
        "text": _text_facts(config.text),
        "weights_bytes": {name: parameters * size for name, size in _BYTES.items()},
    }
    if folded != parameters:
        facts["parameters_folded"] = folded
        facts["weights_bytes_folded"] = {name: folded * size for name, size in _BYTES.items()}
    return facts


def _sizes(backbone: Any) -> dict[str, int]:
    names = (
        "num_layers",
        "num_heads",
        "num_kv_heads",
        "head_dim",
        "mlp_dim",
        "vocab_size",
        "max_positions",
    )
    there = {name: getattr(backbone, name) for name in names if hasattr(backbone, name)}
    return {"hidden_size": backbone.embed_dim, **there}


def _text_facts(text: Any) -> dict[str, Any]:
    """What texts are wrapped in; only what the model has."""
    facts = {
        "query_template": text.query_template,
        "default_task": text.default_task,
        "query_prompt": text.query_prompt,
        "passage_prompt": text.passage_prompt,
        "default_prompt": text.default_prompt,
        "prompts": dict(text.prompts),
        "mask_instruction": text.mask_instruction,
        "add_eos": text.add_eos,
    }
    return {name: value for name, value in facts.items() if value}


def _folded_away(config: Any) -> int:
    """Parameters fewer once the latent block is folded (0 without one): see `model.latent_fold`."""
    if config.pooling != "latent":
        return 0
    width, c = config.backbone.embed_dim, config.latent
    inner, latents = c.num_cross_heads * c.cross_head_dim, c.num_cross_heads * c.num_latents
    cross = inner * width + 2 * inner * c.latent_dim + width * inner + c.num_latents * c.latent_dim
    norms = (
        2 * width + 2 * c.latent_dim + 2 * width
    )  # of queries, context and the feed-forward block
    return cross + norms - (2 * latents * width + latents)


def _as_text(facts: dict[str, Any]) -> str:
    """The facts as aligned lines, sizes readable."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if name.startswith("weights_bytes"):
            label = "memory" + name.removeprefix("weights_bytes").replace("_", " ")
            rows.append(
                (label, ", ".join(f"{size} as {kind}" for kind, size in _readable(value).items()))
            )
        elif name == "text":
            rows += [(key.replace("_", " "), _inline(item)) for key, item in value.items()]
        elif value != [] and value != "":
            rows.append(
                (
                    name.replace("_", " "),
                    f"{value:,}" if name.startswith("parameters") else str(value),
                )
            )
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def _readable(sizes: dict[str, int]) -> dict[str, str]:
    return {
        kind: f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
        for kind, size in sizes.items()
    }


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item!r}" for key, item in value.items())
    return repr(value) if isinstance(value, str) else "yes"
