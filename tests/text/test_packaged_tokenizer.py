"""Our own small tokenizer, as it ships."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvembed_jax.config import TextConfig
from nvembed_jax.text.tokenizer import Tokenizer

BLOCK = "▁"  # stands for a space, as in SentencePiece


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.packaged(TextConfig())


def test_sizes_and_special_ids(tokenizer):
    assert tokenizer.vocab_size == 8192
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 2)
    assert tokenizer.backend.token_to_id("<unk>") == 0
    assert tokenizer.backend.id_to_token(3) == "<0x00>"
    assert sum(path.stat().st_size for path in tokenizer.files) < 700_000


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_any_unicode_comes_back_and_nothing_is_unknown(tokenizer, text):
    if BLOCK in text or any(name in text for name in ("<unk>", "<s>", "</s>")):
        return
    ids = tokenizer.encode([text], truncation="none")[0].input_ids.tolist()
    assert 0 not in ids
    assert tokenizer.backend.decode(ids) == text


@pytest.mark.parametrize("text", ["  b  c ", "\n\t", "日本語 😀 é", "<0x0A>", "\x00", "x" * 5000])
def test_odd_text_comes_back(tokenizer, text):
    ids = tokenizer.encode([text], truncation="none")[0].input_ids.tolist()
    assert tokenizer.backend.decode(ids) == text


def test_common_words_are_single_pieces(tokenizer):
    tokens = [
        tokenizer.backend.id_to_token(i) for i in tokenizer.encode(["what is the number"])[0][0]
    ]
    assert tokens == ["<s>", "▁what", "▁is", "▁the", "▁number"]


def test_digits_stand_alone(tokenizer):
    tokens = tokenizer.backend.encode("in 2024", add_special_tokens=False).tokens
    assert tokens == ["▁in", "▁", "2", "0", "2", "4"]
