"""Published folder -> converter -> Embedder -> embeddings, against the PyTorch reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from parameter_tree import assert_close, reference_embeddings
from published_checkpoint import random_checkpoint
from tokenizers import Tokenizer
from torch_nvembed import NVEmbed, Sizes

from nvembed_jax import Embedder, convert_checkpoint

ATTENTIONS = ["bidirectional", "causal"]
INSTRUCTION = "Instruct: Given a question, find the documentation that answers it\nQuery: "
INPUTS = [
    "How do I open a file?",
    "The with statement wraps the execution of a block with methods defined by a context manager.",
    "x",
    "",
    "naïve café, 漢字 and\ttabs\nlines",
    "An assertion is a convenient way to insert debugging checks into a program. " * 4,
]


def expected_ids(folder: Path, instruction: str) -> tuple[list[list[int]], list[int]]:
    """What the published code feeds, and how many of its tokens are not pooled."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    unpooled = len(tokenizer.encode(instruction, add_special_tokens=False).ids)
    ids = [tokenizer.encode(instruction + text + "</s>").ids for text in INPUTS]
    return ids, [unpooled if instruction else 0] * len(ids)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, NVEmbed]:
    folder = tmp_path_factory.mktemp("published")
    return folder, random_checkpoint(folder, Sizes(rope_theta=5000.0), seed=1)


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert_checkpoint(published[0], folder)
    return folder


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "plain"])
@pytest.mark.parametrize("pooling", ["latent", "mean", "eos"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_converted_folder_encodes_as_pytorch(published, converted, attention, pooling, fold):
    folder, reference = published
    options = {"attention": attention, "pooling": pooling, "fold_latents": fold}
    ours = Embedder.from_pretrained(converted, dtype="float32", **options)
    for instruction in ("", INSTRUCTION):
        ids, unpooled = expected_ids(folder, instruction)
        expected = reference_embeddings(reference, ids, unpooled, pooling, attention)
        assert_close(ours.encode(INPUTS, prompt=instruction or None), expected)


def test_published_folder_encodes_as_its_conversion(published, converted):
    direct = Embedder.from_pretrained(published[0], dtype="float32").encode(INPUTS)
    through = Embedder.from_pretrained(converted, dtype="float32").encode(INPUTS)
    np.testing.assert_array_equal(direct, through)


def test_encode_query_puts_the_task_into_the_template(published, converted):
    folder, reference = published
    ours = Embedder.from_pretrained(converted, dtype="float32")
    task = "Given a question, find the documentation that answers it"
    ids, unpooled = expected_ids(folder, INSTRUCTION)
    expected = reference_embeddings(reference, ids, unpooled, "latent", "bidirectional")
    assert_close(ours.encode_query(INPUTS, task=task), expected)
    ids, unpooled = expected_ids(folder, "")
    expected = reference_embeddings(reference, ids, unpooled, "latent", "bidirectional")
    assert_close(ours.encode_document(INPUTS), expected)
