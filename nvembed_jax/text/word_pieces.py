"""A smaller vocabulary cut out of a BERT tokenizer, for models that learn from a BERT teacher."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def prune_word_pieces(
    backend: Tokenizer, counts: Int[np.ndarray, " V"], vocab_size: int
) -> dict[str, bytes]:
    """The special tokens, all characters and the most frequent pieces, in their old order.

    A word whose piece is gone is written in smaller ones. Nothing opens or closes a text: EOS,
    [SEP], is the `TextConfig`'s business.

    Args:
        backend: of a WordPiece model.
        counts: how often each piece stands in some corpus (`compress.static_start.piece_counts`).
        vocab_size: pieces kept.

    Returns:
        File name -> content, as `checkpoint.store.save_model` takes them.

    Raises:
        ValueError: not WordPiece, or `vocab_size` is not between the pieces that must stay and
            those that are there.
    """
    data = json.loads(backend.to_str())
    if data["model"]["type"] != "WordPiece":
        raise ValueError(f"a WordPiece tokenizer is needed; this is {data['model']['type']}")
    vocab: dict[str, int] = data["model"]["vocab"]
    prefix: str = data["model"]["continuing_subword_prefix"]
    specials = [name for name in SPECIALS.values() if name in vocab]
    must = {*specials, *(piece for piece in vocab if _is_character(piece, prefix))}
    if not len(must) <= vocab_size <= len(vocab):
        raise ValueError(
            f"vocab_size must be {len(must)} (special tokens and characters) to {len(vocab)}; "
            f"got {vocab_size}"
        )
    others = sorted(vocab.keys() - must, key=lambda piece: (-counts[vocab[piece]], vocab[piece]))
    kept = must | set(others[: vocab_size - len(must)])
    pieces = sorted(kept, key=lambda piece: vocab[piece])
    data["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    data["added_tokens"] = [
        token | {"id": data["model"]["vocab"][token["content"]]}
        for token in data["added_tokens"]
        if token["content"] in kept
    ]
    data |= {"post_processor": None, "truncation": None, "padding": None}
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
    facts |= {key: name for key, name in SPECIALS.items() if name in kept}
    return {
        "tokenizer.json": json.dumps(data, ensure_ascii=False).encode(),
        "tokenizer_config.json": (json.dumps(facts, indent=2) + "\n").encode(),
    }


def _is_character(piece: str, prefix: str) -> bool:
    """One letter, digit or mark, alone or within a word. An ideograph never stands within one."""
    character = piece.removeprefix(prefix)
    if len(character) != 1:
        return False
    return character == piece or not unicodedata.name(character, "").startswith("CJK")
