"""The converted SentencePiece file gives SentencePiece's own ids."""

from __future__ import annotations

import random

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from published_nvembed import MISTRAL

from nvembed_jax.text import sentencepiece_bpe

SPECIAL = ("<unk>", "<s>", "</s>")
ODD = [
    "", " ", "  ", "b  c", "b   c    d", " lead", "trail ", "\n", "\t\t a", "a\r\nb", "▁", "a▁b",
    "😀", "日本語のテキスト", "é e\u0301", "\x00\x07", "<0x0A>", "0001 1000", "ababababa",
    "==== === --", "\u200b\ufeff", "🏳️‍🌈 x", "ﷺ", "a" * 300,
]  # fmt: skip
PIECES = [
    "a",
    "b",
    "ab",
    " ",
    "  ",
    "=",
    "-",
    "0",
    "1",
    "\n",
    "\t",
    "the",
    "in",
    "日",
    "😀",
    "é",
    "▁",
]


@pytest.fixture(scope="module")
def mistral(mistral_tokenizer):
    return (
        sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL)),
        mistral_tokenizer.backend,
    )


def ids(backend, text: str) -> list[int]:
    return backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ODD)
def test_odd_text_has_the_ids_of_sentencepiece(mistral, text):
    reference, backend = mistral
    assert ids(backend, text) == reference.encode(text)


def test_repeated_spaces_are_pieces_of_their_own(mistral):
    reference, backend = mistral
    tokens = backend.encode("b  c", add_special_tokens=False).tokens
    assert tokens == ["▁b", "▁", "▁c"] == reference.encode("b  c", out_type=str)


def test_runs_of_spaces_have_the_ids_of_sentencepiece(mistral):
    reference, backend = mistral
    for text in ("{}", "a{}", "{}a", "a{}b"):
        for run in range(70):
            filled = text.format(" " * run)
            assert ids(backend, filled) == reference.encode(filled), run


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_unicode_has_the_ids_of_sentencepiece(mistral, text):
    reference, backend = mistral
    if not any(name in text for name in SPECIAL):
        assert ids(backend, text) == reference.encode(text)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_periodic_text_has_the_ids_of_sentencepiece(mistral, pieces):
    reference, backend = mistral
    text = "".join(pieces)
    assert ids(backend, text) == reference.encode(text)


def test_special_token_written_in_a_text_is_the_special_token(mistral):
    reference, backend = mistral
    assert ids(backend, "a</s>") == [*reference.encode("a"), 2]
    assert 2 not in reference.encode("a</s>")


def test_bos_comes_first_and_decoding_gives_the_text_back(mistral):
    _, backend = mistral
    encoding = backend.encode("  two spaces, 日本語 and \U0001f600")
    assert encoding.ids[0] == 1
    assert backend.decode(encoding.ids) == "  two spaces, 日本語 and \U0001f600"


@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("trim", [True, False])
def test_other_bpe_models_have_the_ids_of_sentencepiece(tmp_path, byte_fallback, trim):
    path = train_model(
        tmp_path, model_type="bpe", byte_fallback=byte_fallback,
        remove_extra_whitespaces=trim, add_dummy_prefix=trim,
    )  # fmt: skip
    reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
    backend, _ = sentencepiece_bpe.convert(path)
    for text in [*ODD, *made_texts(50, seed=1)]:
        assert ids(backend, text) == reference.encode(text), repr(text)


def test_unigram_model_is_refused_by_name(tmp_path):
    path = train_model(tmp_path, model_type="unigram")
    with pytest.raises(ValueError, match=r"no BPE model.*tokenizer\.json"):
        sentencepiece_bpe.convert(path)


def test_character_map_is_refused_by_name(tmp_path):
    path = train_model(tmp_path, model_type="bpe", normalization_rule_name="nmt_nfkc")
    with pytest.raises(ValueError, match="character map"):
        sentencepiece_bpe.convert(path)


def test_user_defined_pieces_with_a_dummy_prefix_are_refused(tmp_path):
    path = train_model(tmp_path, model_type="bpe", user_defined_symbols=["[X]"])
    with pytest.raises(ValueError, match="user-defined"):
        sentencepiece_bpe.convert(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x0a\xff\xff"])
def test_broken_file_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.model is not a SentencePiece model"):
        sentencepiece_bpe.convert(path)


def test_truncated_file_is_an_error(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(MISTRAL.read_bytes()[:200_000])
    with pytest.raises(ValueError, match="truncated"):
        sentencepiece_bpe.convert(path)


def made_texts(count: int, seed: int) -> list[str]:
    """Sentences of made words, with numbers, punctuation, and now and then two spaces."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdeorst", k=rng.randint(1, 7))) for _ in range(200)]
    words += ["1234", "x,y", "(z)", "日本", "naïve"]
    ends = [" ", " ", " ", "  ", ". ", "\n"]
    lines = []
    for _ in range(count):
        chosen = rng.choices(words, k=12)
        lines.append("".join(word + rng.choice(ends) for word in chosen))
    return lines


def train_model(folder, **options):
    """A small SentencePiece model trained on made text."""
    path = folder / "made"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(made_texts(400, seed=0)), model_prefix=str(path), vocab_size=420,
        minloglevel=2, num_threads=1, hard_vocab_limit=False,
        **{"normalization_rule_name": "identity", **options},
    )  # fmt: skip
    return path.with_suffix(".model")
