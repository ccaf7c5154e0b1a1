"""When two texts count as the same: letters of one case and one form, runs of white space as one
space.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b


def normalized(text: str) -> str:
    """`text` in Unicode's compatibility form (NFKC), case folded, white space reduced."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def text_key(text: str) -> bytes:
    """16 bytes that are equal for texts that count as the same."""
    return blake2b(normalized(text).encode(), digest_size=16).digest()
