"""Published folder -> converter -> Embedder -> embeddings, against the PyTorch reference."""

from __future__ import annotations

import functools
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from parameter_tree import assert_close, reference_embeddings
from published_checkpoint import random_checkpoint
from tokenizers import Tokenizer
from torch_nvembed import NVEmbed, Sizes

from nvembed_jax import Embedder, convert_checkpoint

ATTENTIONS = ["bidirectional", "causal"]
INSTRUCTION = "Instruct: Given a question, find the documentation that answers it\nQuery: "
PAGE = topics["assert"].split("\n\n", 1)[1]
# Of mixed lengths, but in few length buckets: every bucket is one compilation a test.
INPUTS = ["", PAGE[:230], "é 漢\n", "x", PAGE[40:250], " a  b "]


def expected_ids(folder: Path, instruction: str) -> tuple[list[list[int]], list[int]]:
    """What the published code feeds, and how many of its tokens are not pooled."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    unpooled = len(tokenizer.encode(instruction, add_special_tokens=False).ids)
    ids = [tokenizer.encode(instruction + text + "</s>").ids for text in INPUTS]
    return ids, [unpooled if instruction else 0] * len(ids)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, NVEmbed]:
    folder = tmp_path_factory.mktemp("published")
    return folder, random_checkpoint(folder, Sizes(layers=2), seed=1)


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert_checkpoint(published[0], folder)
    return folder


@pytest.fixture(scope="module")
def load(converted):
    """Models of the converted folder by (attention, pooling, fold), each compiled once."""

    @functools.cache
    def loaded(attention: str, pooling: str, fold: bool) -> Embedder:
        options = {"attention": attention, "pooling": pooling, "fold_latents": fold}
        return Embedder.from_pretrained(converted, dtype="float32", **options)

    return loaded


@pytest.mark.parametrize("pooling", ["latent", "latent folded", "mean", "eos"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_converted_folder_encodes_as_pytorch(published, load, attention, pooling):
    folder, reference = published
    pooling, _, folded = pooling.partition(" ")
    ids, unpooled = expected_ids(folder, INSTRUCTION)
    expected = reference_embeddings(reference, ids, unpooled, pooling, attention)
    ours = load(attention, pooling, bool(folded)).encode(INPUTS, prompt=INSTRUCTION)
    assert_close(ours, expected)


def test_queries_take_the_template_and_documents_none(published, load):
    folder, reference = published
    ours = load("bidirectional", "latent", True)
    task = "Given a question, find the documentation that answers it"
    for instruction, embeddings in (
        (INSTRUCTION, ours.encode_query(INPUTS, task=task)),
        (INSTRUCTION, ours.encode(INPUTS, task=task)),
        ("", ours.encode_document(INPUTS)),
        ("", ours.encode(INPUTS)),
    ):
        ids, unpooled = expected_ids(folder, instruction)
        expected = reference_embeddings(reference, ids, unpooled, "latent", "bidirectional")
        assert_close(embeddings, expected)


def test_published_folder_encodes_as_its_conversion(published, load):
    direct = Embedder.from_pretrained(published[0], dtype="float32").encode(INPUTS)
    np.testing.assert_array_equal(direct, load("bidirectional", "latent", True).encode(INPUTS))
