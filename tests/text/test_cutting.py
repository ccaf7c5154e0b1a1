"""Very long texts: only their beginning is tokenised, and the ids are those of the whole."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_nvembed import MINILM
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from nvembed_jax.config import TextConfig, minilm_l6, nv_embed_v2
from nvembed_jax.text.cutting import SafeCuts
from nvembed_jax.text.tokenizer import Tokenizer

WORDS = [
    "alpha",
    "beta,",
    "日本語",
    "\n",
    "x" * 30,
    "😀",
    "(a)",
    " ",
    "  ",
    "e\u0301",
    "</s>",
    "[SEP]",
    "中b",
]


@pytest.fixture(scope="module")
def tokenizers(mistral_tokenizer):
    return {
        "mistral": mistral_tokenizer,
        "packaged": Tokenizer.packaged(nv_embed_v2().text),
        "bert": Tokenizer.from_folder(MINILM, minilm_l6().text),
    }


@pytest.fixture(scope="module")
def cuts(tokenizers):
    return {name: SafeCuts(tokenizer.backend) for name, tokenizer in tokenizers.items()}


def made_text(seed: int, joiner: str, words: int) -> str:
    rng = random.Random(seed)
    return joiner.join(rng.choices(WORDS, k=words))


@pytest.mark.parametrize("joiner", [" ", ""])
@pytest.mark.parametrize("name", ["mistral", "packaged", "bert"])
def test_ids_of_a_long_text_are_those_of_the_whole(tokenizers, name, joiner):
    tokenizer = tokenizers[name]
    for seed in range(8):
        text = made_text(seed, joiner, 4000)
        for prefix in ("", "Instruct: find\nQuery: "):
            [whole] = tokenizer.encode([text], prefix=prefix, truncation="none")
            [cut] = tokenizer.encode([text], prefix=prefix, max_length=60)
            last = len(whole.input_ids) - 1
            assert cut.input_ids[:59].tolist() == whole.input_ids[:59].tolist()
            assert cut.input_ids[59] == whole.input_ids[last]
            assert cut.pool_start == whole.pool_start
            assert 60 < cut.full_length <= whole.full_length


@pytest.mark.parametrize("name", ["mistral", "packaged", "bert"])
@settings(deadline=None, max_examples=60, derandomize=True)
@given(words=st.lists(st.sampled_from(WORDS), min_size=5, max_size=60), limit=st.integers(2, 80))
def test_ids_before_a_cut_begin_the_ids_of_the_text(tokenizers, cuts, name, words, limit):
    backend = tokenizers[name].backend
    text = "".join(words)
    cut = cuts[name].before(text, limit)
    before = backend.encode(text[:cut], add_special_tokens=False).ids
    assert backend.encode(text, add_special_tokens=False).ids[: len(before)] == before


def test_cuts_are_found_near_the_limit(cuts):
    for name, finder in cuts.items():
        assert 1000 < finder.before("hello world " * 1000, 2000) <= 2000, name
        assert 1000 < finder.before("日本語の中" * 1000, 2000) <= 2000, name


def test_text_without_a_safe_cut_is_tokenised_whole(cuts):
    assert cuts["mistral"].before("a" * 5000, 100) == 5000


def test_text_whose_beginning_has_few_tokens_grows_until_it_is_full(tokenizers):
    text = " " * 3000 + "word " * 3000
    [cut] = tokenizers["bert"].encode([text], max_length=40)
    [whole] = tokenizers["bert"].encode([text], truncation="none")
    assert cut.input_ids[:39].tolist() == whole.input_ids[:39].tolist()
    assert len(cut.input_ids) == 40


def test_byte_level_tokenizer_is_cut_before_spaces():
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    backend.train_from_iterator(["hello world, 12 words"] * 5, trainer)
    text = "hello 12, world  words\n" * 100
    cut = SafeCuts(backend).before(text, 200)
    assert 100 <= cut <= 200
    before = backend.encode(text[:cut]).ids
    assert backend.encode(text).ids[: len(before)] == before


def test_ten_megabytes_cost_no_more_than_their_beginning(tokenizers):
    texts = ["hello world " * 900_000, "日本語の中" * 2_000_000]
    for tokenizer in tokenizers.values():
        for encoded in tokenizer.encode(texts, max_length=512):
            assert len(encoded.input_ids) == 512
            assert encoded.full_length < 50_000  # of millions: no more was tokenised


def test_lowercase_applies_before_the_cut():
    rules = TextConfig(max_length=20, lowercase=True, add_eos=True)
    tokenizer = Tokenizer.packaged(rules)
    plain = Tokenizer.packaged(dataclasses.replace(rules, lowercase=False))
    text = "SHOUT Loud " * 1000
    cut, whole = tokenizer.encode([text])[0], plain.encode([text.lower()])[0]
    assert cut.input_ids.tolist() == whole.input_ids.tolist()


def test_space_inside_pieces_forbids_cuts_at_spaces():
    backend = Backend.from_str(Tokenizer.packaged(TextConfig()).backend.to_str())
    backend.add_tokens(["of the"])
    text = "of the " * 500
    cut = SafeCuts(backend).before(text, 300)
    before = backend.encode(text[:cut]).ids
    assert backend.encode(text).ids[: len(before)] == before
