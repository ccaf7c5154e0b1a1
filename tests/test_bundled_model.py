"""nvembed-tiny, the model that comes with the package."""

from __future__ import annotations

import numpy as np
import pytest

from nvembed_jax import Embedder
from nvembed_jax.checkpoint import resolve_model
from nvembed_jax.config import DecoderConfig

PAIRS = (
    ("how do I get my money back?", "Refunds are paid within ten days of a return."),
    ("which planet is the largest?", "Jupiter is more than twice as massive as all others."),
    ("how are files listed in a shell?", "The command ls shows what a directory contains."),
    ("what causes a fever?", "Infections by bacteria or viruses raise the body's temperature."),
    ("who wrote Hamlet?", "Shakespeare's tragedies were first played in London."),
    ("best way to cook pasta", "Boil spaghetti in salted water until it is firm to the bite."),
)


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder.from_pretrained()


def test_it_is_a_small_nvembed(model):
    config, folder = model.config, resolve_model()
    assert isinstance(config.backbone, DecoderConfig)
    assert config.backbone.num_layers >= 2
    assert (config.name, config.family, config.pooling) == ("nvembed-tiny", "nvembed", "latent")
    assert config.attention == "bidirectional"
    assert config.matryoshka_dims == (64, 128, 256)
    assert (folder / "README.md").is_file()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6


@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("task", [None, "Given a question, retrieve passages that answer it"])
def test_every_question_finds_its_passage(model, width, task):
    queries, passages = zip(*PAIRS, strict=True)
    scores = model.similarity(
        model.encode_query(list(queries), task=task, truncate_dim=width),
        model.encode_document(list(passages), truncate_dim=width),
    )
    assert list(np.argmax(scores, axis=1)) == list(range(len(PAIRS)))


def test_paraphrases_are_closer_than_other_sentences(model):
    near = model.encode(["A man is playing a guitar.", "Someone plays the guitar."])
    far = model.encode(["A man is playing a guitar.", "The bank raised its interest rates."])
    assert near[0] @ near[1] > 0.6 > 0.3 > far[0] @ far[1]
