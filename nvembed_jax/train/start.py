"""What a run starts from: a checkpoint's weights and random ones, each born with its sharding."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from nvembed_jax.checkpoint import store
from nvembed_jax.checkpoint.model_folder import open_model
from nvembed_jax.config import BertConfig, ModelConfig, to_dict
from nvembed_jax.model import abstract_params, init_params
from nvembed_jax.model.lora import LoraConfig, init_adapters
from nvembed_jax.sharding import param_shardings
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.train.recipe import Recipe
from nvembed_jax.train.trainable import init_trainable, split_params


class Start(NamedTuple):
    """The model before the first step.

    Attributes:
        trainable: float32; frozen: in `frozen_dtype`. fingerprint: of the weights.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    trainable: Any
    frozen: Any
    fingerprint: str


def resolve_config(recipe: Recipe) -> tuple[ModelConfig, Path | None]:
    """The model's config and the folder of its checkpoint, if it starts from one."""
    if not recipe.model.path:
        return recipe.model.resolve(), None
    path = recipe.model.path
    folder = store.resolve_model(path)
    return recipe.model.resolve(store.load_config(folder)), folder


def abstract_start(recipe: Recipe, config: ModelConfig) -> tuple[Any, Any]:
    """(trainable, frozen) as shapes, nothing allocated."""
    params = abstract_params(config)
    compute = recipe.compute.resolve()
    trainable = jax.eval_shape(
        partial(init_trainable, recipe.trainable, key=jax.random.key(0)), params
    )
    _, frozen = split_params(recipe.trainable, params)
    kind = jnp.dtype(recipe.compute.frozen_dtype or compute.dtype)
    return trainable, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, kind), frozen)


def load_start(recipe: Recipe, mesh: Any) -> Start:
    """Loads or draws the weights, cut into what is trained and what is not.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or one that does not fit; a tokenizer
            with more tokens than the model has embeddings.
    """
    config, folder = resolve_config(recipe)
    tokenizer = _tokenizer(recipe, config, folder)
    key = jax.random.key(recipe.seed)
    params = _params(config, folder, mesh, key)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    kinds = [jnp.float32, recipe.compute.frozen_dtype or recipe.compute.resolve().dtype]
    # Cast one leaf at a time, each freed before the next: the peak is one leaf above the result.
    parts = [flatten_dict(part, sep=".") for part in split_params(recipe.trainable, params)]
    del params
    full, frozen = (_cast(part, jnp.dtype(kind)) for part, kind in zip(parts, kinds, strict=True))
    trainable = {"full": full}
    if recipe.trainable.lora is not None:
        trainable["lora"] = _adapters(
            recipe.trainable.lora, mesh, shapes, jax.random.fold_in(key, 1)
        )
    facts = {
        "config": to_dict(config),
        "seed": recipe.seed,
        "weights": store.weights_fingerprint(folder) if folder else "random",
        "tokenizer": tokenizer.fingerprint,
    }
    fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Start(config, tokenizer, trainable, frozen, fingerprint)


def _params(config: ModelConfig, folder: Path | None, mesh: Any, key: Any) -> dict[str, Any]:
    """All parameters: the checkpoint's where it has them, random ones elsewhere."""
    shapes = abstract_params(config)
    places = param_shardings(mesh, shapes)
    if folder is None:
        return jax.jit(partial(init_params, config), out_shardings=places)(key)
    wanted, found = flatten_dict(shapes, sep="."), open_model(folder).parts
    missing = {name for name in wanted if name not in found}
    if lacking := [name for name in missing if name.startswith("backbone.")]:
        raise ValueError(f"{folder} lacks {', '.join(sorted(lacking)[:3])}: not the same backbone")
    if not missing:
        return store.load_params(folder, config, shardings=places)
    fresh = flatten_dict(places, sep=".")

    def draw(key: Any) -> dict[str, Any]:
        flat = flatten_dict(init_params(config, key), sep=".")
        return {name: flat[name] for name in missing}

    drawn = jax.jit(draw, out_shardings={name: fresh[name] for name in missing})(key)
    known = _config_without(config, missing)
    kept = unflatten_dict({n: p for n, p in fresh.items() if n not in missing}, sep=".")
    loaded = store.load_params(folder, known, shardings=kept)
    return unflatten_dict({**flatten_dict(loaded, sep="."), **drawn}, sep=".")


def _config_without(config: ModelConfig, missing: set[str]) -> ModelConfig:
    """The config whose parameters are those that the checkpoint has."""
    if any(name.startswith("projections.") for name in missing):
        config = dataclasses.replace(config, projections=())
    if any(name.startswith("pooling.") for name in missing):
        config = dataclasses.replace(config, pooling="mean")
    return config


def _cast(flat: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """The leaves in `dtype`, where they lie; `flat` is emptied."""
    out = {}
    for name in list(flat):
        leaf = flat.pop(name)
        same = leaf.dtype == dtype
        cast = jax.jit(lambda x: x.astype(dtype), out_shardings=leaf.sharding)
        out[name] = leaf if same else jax.block_until_ready(cast(leaf))
    return unflatten_dict(out, sep=".")


def _adapters(config: LoraConfig, mesh: Any, shapes: Any, key: Any) -> Any:
    def draw(key: Any) -> Any:
        return init_adapters(config, shapes, key)

    places = param_shardings(mesh, jax.eval_shape(draw, key))
    return jax.jit(draw, out_shardings=places)(key)


def _tokenizer(recipe: Recipe, config: ModelConfig, folder: Path | None) -> Tokenizer:
    where = recipe.model.tokenizer or ("" if folder is None else str(folder))
    if not where:
        raise ValueError(
            "model.tokenizer: give a folder, or 'packaged', for a model without a path"
        )
    if where == "packaged":
        tokenizer = Tokenizer.packaged(config.text)
    else:
        tokenizer = Tokenizer.from_folder(store.resolve_model(where), config.text)
    if tokenizer.vocab_size > config.backbone.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model's table only "
            f"{config.backbone.vocab_size}; set model.overrides.backbone.vocab_size"
        )
    longest = max(max(stage.query_length, stage.passage_length) for stage in recipe.stages.values())
    limit = config.backbone.max_positions
    if longest > limit:
        kind = "BERT" if isinstance(config.backbone, BertConfig) else "decoder"
        raise ValueError(f"texts of {longest} tokens exceed the {kind}'s {limit} positions")
    return tokenizer
