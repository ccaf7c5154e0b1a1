"""When two texts count as the same: letters of one case and one form, runs of white space as one
space. And what counts as their words.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


def normalized(text: str) -> str:
    """`text` in Unicode's compatibility form (NFKC), case folded, white space reduced."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def text_key(text: str) -> bytes:
    """16 bytes that are equal for texts that count as the same."""
    return blake2b(normalized(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def words(text: str) -> list[str]:
    """The words of the normalised text; Chinese characters and kana are words of their own."""
    return _WORD.findall(normalized(text))
