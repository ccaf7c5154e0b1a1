"""What an embedding must not depend on: batch mates, order, bucket, devices; a very long text."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import jax
import numpy as np
import pytest
from parameter_tree import reference_embeddings
from published_checkpoint import random_checkpoint
from tokenizers import Tokenizer
from torch_nvembed import NVEmbed, Sizes

from nvembed_jax import Embedder
from nvembed_jax.batch import TokenBatch
from nvembed_jax.model import embed
from nvembed_jax.sharding import make_mesh

INSTRUCTION = "Instruct: Given a question, find the documentation that answers it\nQuery: "


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, NVEmbed]:
    folder = tmp_path_factory.mktemp("published")
    return folder, random_checkpoint(folder, Sizes(layers=2), seed=2)


@pytest.fixture(scope="module")
def embedder(published) -> Embedder:
    return Embedder.from_pretrained(published[0], dtype="float32")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Of mixed lengths; few of them share a bucket, and each bucket is one compilation a test."""
    page = topics["with"]
    return [page[i : i + n] for i, n in enumerate([0, 1, 9, 140, 3, 150, 160, 900])]


@pytest.fixture(scope="module")
def alone(embedder, texts) -> np.ndarray:
    """Each text encoded by itself."""
    return np.stack([embedder.encode(text, prompt=INSTRUCTION) for text in texts])


def worst(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_embedding_does_not_depend_on_batch_mates(embedder, texts, alone):
    together = embedder.encode(texts, prompt=INSTRUCTION)
    assert worst(together, alone) <= 1e-6
    assert np.linalg.norm(together, axis=-1) == pytest.approx(1, abs=1e-6)


def test_embedding_does_not_depend_on_order(embedder, texts, alone):
    order = np.random.default_rng(3).permutation(len(texts))
    shuffled = embedder.encode([texts[i] for i in order], prompt=INSTRUCTION)
    assert worst(shuffled, alone[order]) <= 1e-6


@pytest.mark.parametrize("batch_tokens", [64, 1024])
def test_embedding_does_not_depend_on_batch_size(embedder, texts, alone, batch_tokens):
    options = {"prompt": INSTRUCTION, "batch_tokens": batch_tokens}
    assert worst(embedder.encode(texts, **options), alone) <= 1e-6


def test_embedding_does_not_depend_on_repeated_texts(embedder, texts, alone):
    repeated = embedder.encode([texts[3]] * 5 + [texts[7]], prompt=INSTRUCTION)
    assert worst(repeated[:5], alone[3]) <= 1e-6
    assert worst(repeated[5], alone[7]) <= 1e-6


def test_embedding_does_not_depend_on_bucket(published, texts, alone):
    """A smaller maximum makes another bucket length, and cuts nothing of this text."""
    tokenizer = Tokenizer.from_file(str(published[0] / "tokenizer.json"))
    length = len(tokenizer.encode(INSTRUCTION + texts[5] + "</s>").ids)
    other = Embedder.from_pretrained(published[0], dtype="float32", max_length=length)
    assert worst(other.encode(texts[5], prompt=INSTRUCTION), alone[5]) <= 1e-6


def test_bfloat16_embedding_stays_at_cosine_0_999(published, texts):
    half = Embedder.from_pretrained(published[0], dtype="bfloat16")
    together = half.encode(texts, prompt=INSTRUCTION)
    single = np.stack([half.encode(text, prompt=INSTRUCTION) for text in texts])
    assert (together * single).sum(-1).min() >= 0.999


@pytest.mark.parametrize("pooling", ["latent", "latent folded", "eos"])
def test_eight_devices_equal_one(published, texts, alone, embedder, pooling):
    """Four parts of the batch by two parts of every weight."""
    pooling, _, folded = pooling.partition(" ")
    options = {"dtype": "float32", "pooling": pooling, "fold_latents": bool(folded)}
    mesh = make_mesh(data=4, tensor=2)
    sharded = Embedder.from_pretrained(published[0], mesh=mesh, **options)
    weight = sharded.params["backbone"]["layers"]["mlp"]["up_proj"]["weight"]
    assert weight.addressable_shards[0].data.size * 2 == weight.size
    if pooling == "eos":
        alone = Embedder.from_pretrained(published[0], **options).encode(texts, prompt=INSTRUCTION)
    assert worst(sharded.encode(texts, prompt=INSTRUCTION), alone) <= 1e-5


@pytest.mark.parametrize(
    "attention", ["bidirectional", pytest.param("causal", marks=pytest.mark.slow)]
)
def test_text_of_32768_tokens_equals_pytorch(tmp_path, attention):
    """The whole context in one row, longer text cut; one narrow layer keeps it short."""
    sizes = Sizes(width=16, mlp=16, layers=1, heads=1, kv_heads=1, head=16, window=4096, mult=1)
    reference = random_checkpoint(tmp_path, sizes)
    options = {"dtype": "float32", "attention": attention, "pooling": "eos"}
    ours = Embedder.from_pretrained(tmp_path, **options)
    assert ours.max_length == 32768
    text = " ".join(topics[name] for name in sorted(topics))[:150_000]
    ids = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids
    assert len(ids) > 32768
    kept = [[*ids[:32767], 2]]
    expected = reference_embeddings(reference, kept, [0], "eos", attention)
    np.testing.assert_allclose(ours.encode(text), expected[0], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_text_of_32768_tokens_encodes_on_the_tiny_config(tiny_config, tiny_params):
    """Three layers of four heads: 13 billion scores."""
    ids = np.random.default_rng(0).integers(3, 512, (1, 32768), np.int32)
    mask = np.ones_like(ids, bool)
    out = jax.jit(embed, static_argnums=0)(tiny_config, tiny_params, TokenBatch(ids, mask, mask))
    assert np.linalg.norm(out) == pytest.approx(1, abs=1e-5)
