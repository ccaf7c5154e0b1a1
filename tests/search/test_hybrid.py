"""BM25 and its fusion with embeddings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nvembed_jax.search.hybrid import Bm25, fuse, words


def test_words_are_lower_case_singular_and_single_ideographs():
    assert words("Two Cats' queries, 2-fold: naïve_x") == [
        "two",
        "cat",
        "query",
        "2",
        "fold",
        "naïve_x",
    ]
    assert words("boxes classes buses series bus glass is ties") == [
        "box", "class", "bus", "sery", "bus", "glass", "is", "tie",
    ]  # fmt: skip
    assert words("数据 and カナ9") == ["数", "据", "and", "カ", "ナ", "9"]
    assert words(" -- ") == []


def test_scores_are_bm25():
    """One word, worked out by hand: Lucene's formula with k1 = 1.5 and b = 0.75."""
    index = Bm25.build(["cat cat dog", "dog", "bird bird"])
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 2))
    scores = index.scores("Cats")
    assert scores[0] == pytest.approx(expected, rel=1e-6)
    assert scores[1:].tolist() == [0, 0]
    np.testing.assert_allclose(index.scores("cat dog"), scores + index.scores("dog"), rtol=1e-6)


def test_unknown_words_and_corpora_without_words_score_zero():
    assert Bm25.build(["cat", ""]).scores("zebra").tolist() == [0, 0]
    assert Bm25.build(["", "--"]).scores("zebra").tolist() == [0, 0]
    assert Bm25.build(["cat"]).scores("").tolist() == [0]


def test_saved_index_scores_the_same(tmp_path):
    texts = ["the cat sat", "a dog", "", "cats and dogs"]
    index = Bm25.build(texts)
    index.save(tmp_path / "bm25")
    loaded = Bm25.load(tmp_path / "bm25", len(texts))
    np.testing.assert_array_equal(loaded.scores("cat dog"), index.scores("cat dog"))
    assert [path.name for path in tmp_path.iterdir()] == ["bm25"]


def test_fusion_standardises_both_sides():
    dense = np.array([0.9, 0.8, 0.1], np.float32)
    lexical = np.array([0.0, 6.0, 3.0], np.float32)
    standard = lambda x: (x - x.mean()) / x.std()  # noqa: E731
    expected = 0.6 * standard(dense) + 0.4 * standard(lexical)
    np.testing.assert_allclose(fuse(dense, lexical), expected, rtol=1e-5)
    # The scale of either side does not matter.
    np.testing.assert_allclose(fuse(dense * 3 - 1, lexical * 10), expected, rtol=1e-4)


def test_fusion_looks_at_the_best_only():
    dense = np.r_[[0.9, 0.8, 0.7], np.zeros(50)].astype(np.float32)
    lexical = np.r_[[0, 1, 2], np.zeros(50)].astype(np.float32)
    np.testing.assert_allclose(
        fuse(dense, lexical, depth=3)[:3], fuse(dense[:3], lexical[:3]), rtol=1e-5
    )


def test_fusion_with_silent_bm25_keeps_the_order_of_the_embeddings():
    dense = np.random.default_rng(0).normal(size=30).astype(np.float32)
    fused = fuse(dense, np.zeros(30, np.float32))
    np.testing.assert_array_equal(np.argsort(fused), np.argsort(dense))
    assert np.isfinite(fuse(np.ones(1, np.float32), np.ones(1, np.float32))).all()


def test_fusion_of_different_corpora_is_refused():
    with pytest.raises(ValueError, match="same passages"):
        fuse(np.ones(3, np.float32), np.ones(4, np.float32))
