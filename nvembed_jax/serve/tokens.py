"""The texts of a request to token ids, cut or refused as the request says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nvembed_jax.serve.errors import ServeError, bad_request
from nvembed_jax.serve.models import ServedModel
from nvembed_jax.text.tokenizer import Encoded
from nvembed_jax.text.tokenizer_files import surrounding_ids

TRUNCATIONS = ("NONE", "START", "END")
_COUNTED_CHARS = 200_000  # of a longer text only a lower bound of its tokens is told
_CHARS_PER_TOKEN = 24


def tokenize(
    model: ServedModel, texts: Sequence[str], affixes: tuple[str, str], truncate: str
) -> list[Encoded]:
    """Tokenises the texts of one request.

    Args:
        affixes: prefix and suffix of every text.
        truncate: "NONE" refuses a text that is too long, "END" loses the end of its text, "START"
            its beginning; prefix and special tokens stay.

    Raises:
        ServeError: 400: too long, no tokens, or a prefix that leaves no room.
    """
    embedder, (prefix, suffix) = model.embedder, affixes
    how = embedder.truncation if truncate == "END" else "keep_eos"
    try:
        encoded = embedder.tokenizer.encode(
            texts, prefix=prefix, suffix=suffix, max_length=embedder.max_length, truncation=how
        )
    except ValueError as error:  # of the prefix and the limit; texts are valid Unicode by now
        raise bad_request(str(error)) from None
    for i, item in enumerate(encoded):
        if not len(item.input_ids):
            raise bad_request(
                f"input[{i}] has no tokens in this model; leave it away", param=f"input[{i}]"
            )
        if item.truncated and truncate == "NONE":
            raise _too_long(model, texts[i], affixes, item, i)
        if item.truncated and truncate == "START":
            encoded[i] = _cut_start(model, texts[i], affixes)
    return encoded


def count_tokens(
    model: ServedModel, texts: Sequence[str], affixes: tuple[str, str]
) -> list[Encoded]:
    """All tokens of every text, however long."""
    prefix, suffix = affixes
    return model.embedder.tokenizer.encode(texts, prefix=prefix, suffix=suffix, truncation="none")


def _too_long(
    model: ServedModel, text: str, affixes: tuple[str, str], found: Encoded, index: int
) -> ServeError:
    length = found.full_length
    if len(text) <= _COUNTED_CHARS:
        length = count_tokens(model, [text], affixes)[0].full_length
    # Other systems look for this very sentence.
    return bad_request(
        f"Input length {length} exceeds maximum allowed token size {model.embedder.max_length}",
        param=f"input[{index}]",
        code="context_length_exceeded",
    )


def _cut_start(model: ServedModel, text: str, affixes: tuple[str, str]) -> Encoded:
    """Prefix and end of a text, `max_length` tokens together."""
    embedder, limit = model.embedder, model.embedder.max_length
    window = _CHARS_PER_TOKEN * limit
    # The cut can spoil the tokens next to it only, and those are not kept.
    (found,) = count_tokens(model, [text[-window:]], affixes)
    if len(found.input_ids) <= limit:
        (found,) = count_tokens(model, [text], affixes)
    prefix = affixes[0].lower() if embedder.config.text.lowercase else affixes[0]
    backend = embedder.tokenizer.backend
    opening = len(surrounding_ids(backend)[0])
    head = opening + len(backend.encode(prefix, add_special_tokens=False).ids)
    ids = found.input_ids
    if head >= limit:
        raise bad_request(f"the prefix takes {head} of {limit} tokens: no room for a text")
    kept = np.concatenate([ids[:head], ids[len(ids) - (limit - head) :]])
    return Encoded(kept, min(found.pool_start, limit - 1), len(ids))
