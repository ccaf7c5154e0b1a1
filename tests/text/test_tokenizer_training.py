from __future__ import annotations

from pathlib import Path

import pytest

from nvembed_jax.config import TextConfig
from nvembed_jax.text.tokenizer import Tokenizer
from nvembed_jax.text.tokenizer_training import train_tokenizer

TEXTS = [
    f"The {who} {does}s near a {which} river"
    for who in ("old", "young", "quick")
    for does in ("walk", "sing")
    for which in ("wide", "narrow", "frozen")
]


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def test_same_texts_give_the_same_bytes_and_the_size_asked_for(tmp_path: Path):
    files = train_tokenizer(iter(TEXTS), 280)
    assert files == train_tokenizer(TEXTS, 280)
    tokenizer = Tokenizer.from_folder(folder(tmp_path, files), TextConfig(add_eos=True))
    assert tokenizer.vocab_size == 280
    assert tokenizer.eos_id == 2


def test_any_text_can_be_written_without_case_and_accents(tmp_path: Path):
    tokenizer = Tokenizer.from_folder(folder(tmp_path, train_tokenizer(TEXTS, 280)), TextConfig())
    plain, loud, other = tokenizer.encode(
        ["the old cafe sings", "THE OLD Café Sings", "河 \U0001f600"]
    )
    assert plain.input_ids.tolist() == loud.input_ids.tolist()
    assert len(plain.input_ids) < len("the old cafe sings") - 4
    assert tokenizer.backend.decode(other.input_ids.tolist()).strip() == "河 \U0001f600"


@pytest.mark.parametrize(("size", "said"), [(200, "too small"), (5000, "give more texts")])
def test_sizes_that_cannot_be_are_refused(size: int, said: str):
    with pytest.raises(ValueError, match=said):
        train_tokenizer(TEXTS, size)
