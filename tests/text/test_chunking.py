"""Chunks of long documents."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_nvembed import MINILM

from nvembed_jax.config import TextConfig, minilm_l6
from nvembed_jax.text.chunking import chunk_tokens
from nvembed_jax.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizers():
    return {
        "packaged": Tokenizer.packaged(TextConfig()),
        "bert": Tokenizer.from_folder(MINILM, minilm_l6().text),
    }


def test_words_are_cut_by_tokens_with_overlap(tokenizers):
    chunks = chunk_tokens(tokenizers["bert"], "one two three four five six", 3, 1)
    assert [tuple(chunk) for chunk in chunks] == [
        ("one two three ", 0, 14),
        ("three four five ", 8, 24),
        ("five six", 19, 27),
    ]


def test_short_text_is_one_chunk(tokenizers):
    assert chunk_tokens(tokenizers["bert"], "one two", 3, 1) == [("one two", 0, 7)]
    assert chunk_tokens(tokenizers["bert"], "one two three", 3, 1) == [("one two three", 0, 13)]


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_text_without_tokens_is_one_chunk(tokenizers, text):
    assert chunk_tokens(tokenizers["bert"], text, 3) == [(text, 0, len(text))]


@pytest.mark.parametrize("name", ["packaged", "bert"])
@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    words=st.lists(
        st.sampled_from(["alpha", " ", "  ", "日本語", "😀", "\n", "x" * 20, "e\u0301"])
    ),
    size=st.integers(1, 9),
    overlap=st.integers(0, 8),
)
def test_chunks_cover_the_text_in_order(tokenizers, name, words, size, overlap):
    text = "".join(words)
    chunks = chunk_tokens(tokenizers[name], text, size, min(overlap, size - 1))
    assert (chunks[0].start, chunks[-1].end) == (0, len(text))
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
    for before, after in pairwise(chunks):
        assert before.start < after.start <= before.end < after.end


def test_chunks_are_as_long_as_asked(tokenizers):
    tokenizer = tokenizers["bert"]
    text = "word " * 1000
    chunks = chunk_tokens(tokenizer, text, 100, 20)
    counts = [len(e.input_ids) - 2 for e in tokenizer.encode([c.text for c in chunks])]
    assert counts[:-1] == [100] * (len(chunks) - 1)
    assert len(chunks) == 13  # 100 + 12 * 80 >= 1000 > 100 + 11 * 80


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (4, 4), (4, 5), (4, -1)])
def test_sizes_out_of_range_are_errors(tokenizers, size, overlap):
    with pytest.raises(ValueError, match=f"chunk_tokens={size}, overlap={overlap}"):
        chunk_tokens(tokenizers["bert"], "text", size, overlap)


def test_lone_surrogate_is_an_error(tokenizers):
    with pytest.raises(ValueError, match="lone surrogate"):
        chunk_tokens(tokenizers["bert"], "a\ud800", 4)
