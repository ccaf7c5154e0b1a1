"""A student follows a teacher: embeddings of the teacher reach the loss row by row."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
import runs

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import save_model
from nvembed_jax.config import from_dict, tiny, to_dict
from nvembed_jax.data.blend import Blend
from nvembed_jax.data.collate import Collator
from nvembed_jax.model import init_params
from nvembed_jax.sharding import make_mesh
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.train import trainer
from nvembed_jax.train.feed import Feed
from nvembed_jax.train.recipe import parse_recipe
from nvembed_jax.train.teacher import Teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A folder with a random model of the student's sizes, mean pooling."""
    plain = to_dict(tiny("mean"))
    backbone = runs.plain_recipe(tmp_path_factory.mktemp("x"))["model"]["overrides"]["backbone"]
    plain["backbone"] |= backbone
    config = dataclasses.replace(from_dict(plain), latent=None, self_attention_pooling=None)
    params = jax.jit(partial(init_params, config))(jax.random.key(9))
    files = Tokenizer.packaged(config.text).files
    folder = tmp_path_factory.mktemp("teacher") / "model"
    contents = {path.name: path.read_bytes() for path in files}
    save_model(folder, config, params, tokenizer_files=contents)
    return folder


def test_teacher_vectors_stand_in_their_slots(teacher, tmp_path):
    data = runs.write_pairs(tmp_path / "pairs.jsonl", 16)
    stage = runs.recipe(data).stages["stage1"]
    blend = Blend(stage, 0)
    collator = Collator(stage, Tokenizer.packaged(tiny().text))
    mesh = make_mesh(devices=jax.devices()[:1])
    feed = Feed(blend, collator, mesh, Teacher(str(teacher)))
    collated = feed.collated(0)
    batch = feed.place(collated).batch
    model = Embedder.from_pretrained(teacher)
    texts = [passage for item in collated.texts for passage in item.passages]
    expected = model.encode_document(texts)
    np.testing.assert_allclose(batch.teacher_passages, expected, atol=1e-5)
    queries = model.encode_query([item.query for item in collated.texts])
    np.testing.assert_allclose(batch.teacher_queries, queries, atol=1e-5)


def test_distillation_brings_the_student_closer(teacher, tmp_path):
    data = runs.write_pairs(tmp_path / "pairs.jsonl", 32)
    plain = runs.plain_recipe(data, teacher=str(teacher))
    plain["stage1"] |= {
        "steps": 12,
        "loss": {"contrastive": 0.0, "distill_cosine": 1.0, "distill_similarity": 1.0},
        "optimizer": {"learning_rate": 3e-3, "warmup_steps": 0, "schedule": "constant"},
    }
    plain["stage2"]["steps"] = 0
    recipe = parse_recipe(plain)
    trainer.train(recipe, tmp_path / "run", devices=jax.devices()[:1], say=lambda line: None)
    lines = trainer.read_metrics(tmp_path / "run")
    assert lines[-1]["distill_cosine"] < lines[0]["distill_cosine"] - 0.1


def test_a_stage_that_distils_without_a_teacher_is_refused(tmp_path):
    data = runs.write_pairs(tmp_path / "pairs.jsonl", 16)
    plain = runs.plain_recipe(data)
    plain["stage1"]["loss"] = {"distill_cosine": 1.0}
    with pytest.raises(ValueError, match=r"give config\.teacher"):
        trainer.train(
            parse_recipe(plain), tmp_path / "run", devices=jax.devices()[:1], say=lambda line: None
        )
