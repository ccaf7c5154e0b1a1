from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from nvembed_jax.compress.static_start import piece_counts, piece_texts
from nvembed_jax.config import TextConfig
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.text.word_pieces import prune_word_pieces

LETTERS = list("abcdefghijklmnopqrstuvwxyz河")
PIECES = [
    "[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS,
    *(f"##{c}" for c in LETTERS), "river", "sea", "##s", "##side", "the", "rare",
]  # fmt: skip
MUST = 4 + 27 + 26  # no ideograph stands within a word


@pytest.fixture
def whole(tmp_path: Path) -> Tokenizer:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(PIECES)))
    return Tokenizer.from_folder(folder, TextConfig())


def pruned(whole: Tokenizer, path: Path, vocab_size: int, texts: list[str]) -> Tokenizer:
    counts = piece_counts(whole, texts)
    path.mkdir(exist_ok=True)
    for name, content in prune_word_pieces(whole.backend, counts, vocab_size).items():
        (path / name).write_bytes(content)
    return Tokenizer.from_folder(path, TextConfig(add_eos=True))


def said(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.backend.id_to_token(int(i)) for i in tokenizer.encode([text])[0].input_ids]


def test_frequent_pieces_stay_and_others_are_spelt(whole: Tokenizer, tmp_path: Path):
    texts = ["the river", "the sea", "The SEA side", "seaside", "seaside"]
    small = pruned(whole, tmp_path / "small", MUST + 3, texts)
    assert small.vocab_size == MUST + 3
    assert said(small, "The séa") == ["the", "sea", "[SEP]"]
    assert said(small, "seaside") == ["sea", "##side", "[SEP]"]
    assert said(small, "rare 河") == ["r", "##a", "##r", "##e", "河", "[SEP]"]
    assert said(small, "\U0001f600") == ["[UNK]", "[SEP]"]
    assert said(small, "[MASK] [unused0]").count("[MASK]") == 0
    assert len(small.encode([""])[0].input_ids) == 1
    assert small.pad_id == 0


def test_with_all_pieces_texts_are_written_as_before(whole: Tokenizer, tmp_path: Path):
    size = whole.backend.get_vocab_size()
    small = pruned(whole, tmp_path / "small", size, ["sea"])
    for text in ("the riverside rivers", "sea, side", "rare 河"):
        assert said(small, text)[:-1] == said(whole, text)[1:-1]


def test_pieces_within_words_have_a_text(whole: Tokenizer):
    texts = piece_texts(whole)
    pieces = [whole.backend.id_to_token(i) for i in range(whole.vocab_size)]
    assert texts[pieces.index("##side")] == "side"
    assert texts[pieces.index("sea")] == "sea"
    assert texts[pieces.index("[CLS]")] == ""


def test_what_cannot_be_pruned_is_refused(whole: Tokenizer):
    size = whole.backend.get_vocab_size()
    for wrong in (MUST - 1, size + 1):
        with pytest.raises(ValueError, match=rf"{MUST} \(special tokens .*\) to {size}; got"):
            prune_word_pieces(whole.backend, np.zeros(size, np.int64), wrong)
    with pytest.raises(ValueError, match="this is BPE"):
        prune_word_pieces(Backend(models.BPE()), np.zeros(1, np.int64), 1)
