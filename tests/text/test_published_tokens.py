"""Ids and masks equal those of the published NV-Embed code, run with transformers."""

from __future__ import annotations

import random

import numpy as np
import pytest
from published_nvembed import MINILM, published_batch
from tokenizers import Tokenizer as Backend
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from nvembed_jax.config import minilm_l6
from nvembed_jax.text.packing import pad
from nvembed_jax.text.tokenizer import Tokenizer

INSTRUCTION = "Instruct: Given a question, retrieve passages that answer the question\nQuery: "
TEXTS = [
    "", " ", "  ", "\n", "\t x", "a", "b  c", "  two leading", "trailing  ", "日本語", "😀 :)",
    "e\u0301tude", "a</s>b", "</s>", "<s>", "Instruct: x\nQuery: y", "x" * 300, "word " * 200,
    "\u00a0nbsp", "{task}", "\\n", "100,000.50 €",
]  # fmt: skip


@pytest.fixture(scope="module")
def mistral(mistral_tokenizer):
    published = PreTrainedTokenizerFast(
        tokenizer_object=Backend.from_str(mistral_tokenizer.backend.to_str()),
        bos_token="<s>", eos_token="</s>", pad_token="</s>",
    )  # fmt: skip
    return mistral_tokenizer, published


def texts() -> list[str]:
    rng = random.Random(0)
    words = ["alpha", "Beta", "gamma,", "42", "délta", "\n", " ", "中文", "(x)", "</s>"]
    return TEXTS + [" ".join(rng.choices(words, k=rng.randint(1, 60))) for _ in range(40)]


@pytest.mark.parametrize("max_length", [512, 40, 17])
@pytest.mark.parametrize("instruction", ["", INSTRUCTION, "Instruct: short\nQuery:"])
def test_ids_and_masks_equal_the_published_code(mistral, instruction, max_length):
    tokenizer, published = mistral
    ids, attention, pool = published_batch(published, texts(), instruction, max_length)
    encoded = tokenizer.encode(
        texts(), prefix=instruction, max_length=max_length, truncation="published"
    )
    ours = pad(encoded, ids.shape[1], len(encoded), tokenizer.pad_id)
    np.testing.assert_array_equal(ours.input_ids, ids)
    np.testing.assert_array_equal(ours.attention_mask, attention)
    # The published code divides by zero where nothing is left to pool; ours pools the last token.
    left = pool.any(axis=1)
    np.testing.assert_array_equal(ours.pool_mask[left], pool[left])
    np.testing.assert_array_equal(ours.pool_mask[~left].sum(axis=1), 1)


def test_instruction_takes_bos_and_its_words_but_not_the_last_space(mistral):
    tokenizer, _ = mistral
    [encoded] = tokenizer.encode(["summit"], prefix="Instruct: x\nQuery: ", max_length=64)
    tokens = [tokenizer.backend.id_to_token(i) for i in encoded.input_ids]
    assert tokens[: encoded.pool_start][-2:] == ["Query", ":"]
    assert tokens[encoded.pool_start :] == ["▁summit", "</s>"]


def test_published_truncation_loses_eos_and_ours_keeps_it(mistral):
    tokenizer, _ = mistral
    text = ["word " * 50]
    [published] = tokenizer.encode(text, max_length=20, truncation="published")
    [kept] = tokenizer.encode(text, max_length=20, truncation="keep_eos")
    assert published.input_ids[-1] != tokenizer.eos_id
    assert kept.input_ids[-1] == tokenizer.eos_id
    np.testing.assert_array_equal(published.input_ids[:-1], kept.input_ids[:-1])


@pytest.mark.parametrize("truncation", ["keep_eos", "published"])
@pytest.mark.parametrize("max_length", [256, 16, 4])
def test_bert_ids_equal_transformers(truncation, max_length):
    tokenizer = Tokenizer.from_folder(MINILM, minilm_l6().text)
    reference = BertTokenizerFast.from_pretrained(MINILM)
    expected = reference(texts(), max_length=max_length, truncation=True)["input_ids"]
    encoded = tokenizer.encode(texts(), max_length=max_length, truncation=truncation)
    assert [item.input_ids.tolist() for item in encoded] == expected
