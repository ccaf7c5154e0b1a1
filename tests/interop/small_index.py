"""A tiny model with the packaged tokenizer on disk, an index folder and a store made with it."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import jax

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import save_model
from nvembed_jax.config import tiny
from nvembed_jax.data.records import Record
from nvembed_jax.model import init_params
from nvembed_jax.search.index import IndexRequest, SearchIndex, build_index
from nvembed_jax.search.stores import StoreSchema, make_store

TASK = "Given a question, retrieve passages that answer it"
QUESTION = "what do dogs do at night?"
TEXTS = {
    "cats": "the cat sat on the mat",
    "dogs": "dogs bark at night",
    "descent": "gradient descent finds a minimum",
    "bread": "bread is baked at 220 degrees",
    "moon": "the moon moves the tides",
}


def write_model(folder: Path, seed: int = 0) -> Path:
    """One layer, instructions as NV-Embed has them."""
    config = tiny(vocab_size=8192)
    config = replace(config, backbone=replace(config.backbone, num_layers=1))
    with resources.as_file(resources.files("nvembed_jax.text") / "data") as tokenizer:
        params = init_params(config, jax.random.key(seed))
        save_model(folder, config, params, src_folder=tokenizer)
    return folder


def write_index(folder: Path, model: Embedder) -> SearchIndex:
    """The index of `TEXTS`."""
    request = IndexRequest(
        records=lambda: (Record(id_, text) for id_, text in TEXTS.items()),
        digest="made",
        model=model,
        model_name="tiny",
        encoding={"show_progress_bar": False},
    )
    return build_index(folder, request)


def write_store(folder: Path, model: Embedder) -> Path:
    """A store of `TEXTS`, a chunk each, with the lengths of the texts as payload."""
    schema = StoreSchema(
        model_name="tiny",
        fingerprint=model.fingerprint,
        dim=model.embed_dim,
        fields={"length": "int"},
    )
    with make_store(folder, schema) as store:
        store.add(
            [f"{name}#0" for name in TEXTS],
            model.encode_document(list(TEXTS.values())),
            texts=list(TEXTS.values()),
            payloads=[{"document": name, "length": len(text)} for name, text in TEXTS.items()],
        )
    return folder
