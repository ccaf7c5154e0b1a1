"""A tokenizer learned from texts: lower-cased byte-level BPE, for models trained from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterable

SPECIALS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
PAD = "</s>"  # as in the published decoders; never attended to


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> dict[str, bytes]:
    """Learns a vocabulary; the same texts in the same order give the same bytes.

    Case and accents are dropped, so that more words fit the vocabulary; any text can be written in
    it, since its alphabet is the 256 bytes. Nothing opens or closes a text: EOS is the
    `TextConfig`'s business.

    Args:
        texts: read once, in a stream.
        vocab_size: pieces, specials and bytes included; at least 259.

    Returns:
        File name -> content, as `checkpoint.store.save_model` takes them.

    Raises:
        ValueError: the vocabulary is too small, or the texts do not fill it.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    least = 256 + len(SPECIALS)
    if vocab_size < least:
        raise ValueError(f"vocab_size {vocab_size} is too small: bytes and specials are {least}")
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    found = backend.get_vocab_size()
    if found < vocab_size:
        raise ValueError(
            f"the texts give {found} pieces, not {vocab_size}; give more texts or a smaller "
            "vocab_size"
        )
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIALS, "pad_token": PAD}
    facts |= {"add_bos_token": False, "add_eos_token": False, "clean_up_tokenization_spaces": False}
    return {
        "tokenizer.json": backend.to_str().encode(),
        "tokenizer_config.json": (json.dumps(facts, indent=2) + "\n").encode(),
    }
