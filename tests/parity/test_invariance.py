"""What an embedding must not depend on: batch mates, order, bucket, devices; and very long texts."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import jax
import numpy as np
import pytest
from parameter_tree import assert_close, reference_embeddings
from published_checkpoint import random_checkpoint
from tokenizers import Tokenizer
from torch_nvembed import NVEmbed, Sizes

from nvembed_jax import Embedder
from nvembed_jax.sharding import make_mesh

INSTRUCTION = "Instruct: Given a question, find the documentation that answers it\nQuery: "


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, NVEmbed]:
    folder = tmp_path_factory.mktemp("published")
    return folder, random_checkpoint(folder, Sizes(), seed=2)


@pytest.fixture(scope="module")
def embedder(published) -> Embedder:
    return Embedder.from_pretrained(published[0], dtype="float32")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """From one character to a page."""
    page = topics["with"]
    return [page[i : i + n] for i, n in enumerate([1, 4, 9, 20, 50, 51, 90, 200, 420, 900])]


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


@pytest.mark.parametrize("batch_tokens", [64, 700, 20000])
def test_embedding_does_not_depend_on_batch_size(embedder, texts, alone, batch_tokens):
    options = {"prompt": INSTRUCTION, "batch_tokens": batch_tokens}
    assert worst(embedder.encode(texts, **options), alone) <= 1e-6


def test_embedding_does_not_depend_on_repeated_texts(embedder, texts, alone):
    repeated = embedder.encode([texts[3]] * 7 + [texts[9]], prompt=INSTRUCTION)
    assert worst(repeated[:7], alone[3]) <= 1e-6
    assert worst(repeated[7], alone[9]) <= 1e-6


def test_embedding_does_not_depend_on_bucket(published, texts, alone):
    """A smaller maximum makes other bucket lengths, and cuts none of these texts."""
    ids = Tokenizer.from_file(str(published[0] / "tokenizer.json")).encode(INSTRUCTION + texts[7])
    other = Embedder.from_pretrained(published[0], dtype="float32", max_length=len(ids.ids) + 1)
    assert worst(other.encode(texts[:8], prompt=INSTRUCTION), alone[:8]) <= 1e-6


def test_bfloat16_embedding_stays_at_cosine_0_999(published, texts):
    half = Embedder.from_pretrained(published[0], dtype="bfloat16")
    together = half.encode(texts, prompt=INSTRUCTION)
    single = np.stack([half.encode(text, prompt=INSTRUCTION) for text in texts])
    assert (together * single).sum(-1).min() >= 0.999


@pytest.mark.parametrize("pooling", ["latent", "eos"])
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "plain"])
def test_eight_devices_equal_one(published, texts, alone, pooling, fold):
    """Four parts of the batch by two parts of every weight."""
    if len(jax.devices()) != 8:
        pytest.fail(f"conftest.py makes 8 simulated devices; JAX has {len(jax.devices())}")
    options = {"dtype": "float32", "pooling": pooling, "fold_latents": fold}
    mesh = make_mesh(data=4, tensor=2)
    sharded = Embedder.from_pretrained(published[0], mesh=mesh, **options)
    weight = sharded.params["backbone"]["layers"]["mlp"]["up_proj"]["weight"]
    assert weight.addressable_shards[0].data.size * 2 == weight.size
    one = Embedder.from_pretrained(published[0], **options).encode(texts, prompt=INSTRUCTION)
    assert worst(sharded.encode(texts, prompt=INSTRUCTION), one) <= 1e-5


def test_text_of_32768_tokens_equals_pytorch(tmp_path):
    """The whole context in one row; one narrow layer keeps the reference's score matrix at 8 GB."""
    sizes = Sizes(width=16, mlp=16, layers=1, heads=1, kv_heads=1, head=16, mult=1)
    reference = random_checkpoint(tmp_path, sizes)
    ours = Embedder.from_pretrained(tmp_path, dtype="float32")
    text = " ".join(topics[name] for name in sorted(topics))[:200000]
    ids = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids
    assert len(ids) > 32768
