"""A long document in, overlapping chunks of so many tokens out, as character spans."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nvembed_jax.text.tokenizer import Tokenizer, check_texts


class Chunk(NamedTuple):
    """A part of a document: `text` is document[start:end] (characters)."""

    text: str
    start: int
    end: int


def chunk_tokens(
    tokenizer: Tokenizer, text: str, chunk_tokens: int, overlap: int = 0
) -> list[Chunk]:
    """Cuts `text` into chunks of `chunk_tokens` tokens, each sharing `overlap` with the one before.

    Together the chunks cover every character. Tokens are counted in the document, without special
    ones; a chunk by itself can take a few more, where the cut parted a word.

    Args:
        chunk_tokens: tokens a chunk, at least 1.
        overlap: tokens shared by neighbours, 0 <= overlap < chunk_tokens.

    Returns:
        Chunks in order; an empty text gives one empty chunk.

    Raises:
        ValueError: sizes out of range, or a text that is no valid Unicode string.
    """
    if chunk_tokens < 1 or not 0 <= overlap < chunk_tokens:
        raise ValueError(
            "expected chunk_tokens >= 1 and 0 <= overlap < chunk_tokens; "
            f"got chunk_tokens={chunk_tokens}, overlap={overlap}"
        )
    check_texts([text])
    starts = _token_starts(tokenizer, text)
    step = chunk_tokens - overlap
    # The last chunk is the first that reaches the end: no chunk lies within the one before it.
    count = 1 + max(0, -(-(len(starts) - chunk_tokens) // step))
    edges = np.append(starts, len(text))
    chunks: list[Chunk] = []
    for first in range(0, count * step, step):
        start = 0 if first == 0 else int(edges[first])
        end = int(edges[min(first + chunk_tokens, len(starts))])
        chunk = Chunk(text[start:end], start, end)
        # Several byte tokens share a character, so a window can lie within the one before.
        if chunks and start == chunks[-1].start:
            chunks[-1] = chunk
        elif not chunks or end > chunks[-1].end:
            chunks.append(chunk)
    return chunks


def _token_starts(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """First character of every token, rising; several byte tokens share their character."""
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    starts = np.fromiter((start for start, _ in encoding.offsets), np.int64, len(encoding.offsets))
    return np.maximum.accumulate(starts)
