"""Where a very long text can be cut so that the ids of what stands before the cut stay the same.

A text of millions of characters is not tokenised whole only to be truncated: its first part is
enough, if the cut falls where no token can ever stand across it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from nvembed_jax.text.sentencepiece_bpe import SPACE

_SAMPLES = ("a b", "1 b", ". b", "中 b", "a 1", "a .", "a 中")
_SCAN = 4096  # characters looked at one by one before a larger window is tried


class SafeCuts:
    """Finds exact cuts for one tokenizer; where there are none, a text is tokenised whole."""

    def __init__(self, backend: Any):
        self._backend = backend

    def before(self, text: str, limit: int) -> int:
        """A safe cut at about `limit` characters, never below its half; else len(text)."""
        while limit < len(text):
            cut = self._cut_at_space(text, limit) or self._cut_between(text, limit)
            if cut:
                return cut
            limit *= 4
        return len(text)

    def _cut_at_space(self, text: str, limit: int) -> int:
        if not (self._splits_at_spaces or self._space_opens_pieces):
            return 0
        return _last_word_boundary(text, limit, max(1, limit // 2))

    def _cut_between(self, text: str, limit: int) -> int:
        if not (self._is_bert or self._is_plain_bpe):
            return 0
        apart = self._apart_in_bert if self._is_bert else self._apart_in_bpe
        scanned = range(limit, max(limit // 2, limit - _SCAN), -1)
        return next((cut for cut in scanned if apart(text[cut - 1], text[cut])), 0)

    def _apart_in_bpe(self, left: str, right: str) -> bool:
        return (left + right).replace(" ", SPACE) not in self._pairs

    def _apart_in_bert(self, left: str, right: str) -> bool:
        if left + right in self._added_pairs:
            return False
        first, second = self._split(left), self._split(right)
        return bool(first and second) and self._split(left + right) == first + second

    @cached_property
    def _splits_at_spaces(self) -> bool:
        """The pre-tokenizer never puts what stands before a space together with it."""
        bridged = any(pair[1] == " " and pair[0] != " " for pair in self._added_pairs)
        if self._backend.pre_tokenizer is None or bridged:
            return False
        for sample in _SAMPLES:
            alone, together = self._split(sample[0]), self._split(sample)
            if len(together) <= len(alone) or together[: len(alone)] != alone:
                return False
        return True

    @cached_property
    def _space_opens_pieces(self) -> bool:
        """A BPE in which a space only ever stands first, or among other spaces, in a piece."""
        if self._model_type != "BPE" or self._normalised("a b").strip(SPACE) != f"a{SPACE}b":
            return False
        return not any(
            pair[1] in (SPACE, " ") and pair[0] not in (SPACE, " ") for pair in self._pairs
        )

    @cached_property
    def _is_plain_bpe(self) -> bool:
        """A BPE that sees the text as it is, spaces escaped: only pieces bridge characters.

        Pre-tokenizers that part it at single characters do no harm; a regular expression might.
        """
        if self._model_type != "BPE":
            return False
        state = json.loads(self._backend.to_str())
        steps = _steps(state["normalizer"], "normalizers")
        escapes = all(
            step["type"] == "Prepend"
            or (step["type"] == "Replace" and step["pattern"] == {"String": " "})
            for step in steps
        )
        return escapes and all(
            step["type"] in ("Digits", "Punctuation")
            or (step["type"] == "Split" and len(step["pattern"].get("String", "..")) == 1)
            for step in _steps(state["pre_tokenizer"], "pretokenizers")
        )

    @cached_property
    def _is_bert(self) -> bool:
        """BERT's normaliser and pre-tokenizer judge every character by its own class."""
        kinds = (
            type(self._backend.normalizer).__name__,
            type(self._backend.pre_tokenizer).__name__,
        )
        return kinds == ("BertNormalizer", "BertPreTokenizer")

    @cached_property
    def _pairs(self) -> set[str]:
        """All pairs of neighbouring characters within a piece or an added token."""
        return _neighbours(self._backend.get_vocab(with_added_tokens=False)) | self._added_pairs

    @cached_property
    def _added_pairs(self) -> set[str]:
        added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
        return _neighbours(added) | {pair.replace(" ", SPACE) for pair in _neighbours(added)}

    @cached_property
    def _model_type(self) -> str:
        return type(self._backend.model).__name__

    def _split(self, text: str) -> list[str]:
        pieces = self._backend.pre_tokenizer.pre_tokenize_str(self._normalised(text))
        return [piece for piece, _ in pieces]

    def _normalised(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return normalizer.normalize_str(text) if normalizer is not None else text


def _steps(state: dict[str, Any] | None, parts: str) -> list[dict[str, Any]]:
    """The parts of a serialised sequence; a single part, or none, as a list too."""
    return state.get(parts, [state]) if state else []


def _neighbours(words: Iterable[str]) -> set[str]:
    return {word[i : i + 2] for word in words for i in range(len(word) - 1)}


def _last_word_boundary(text: str, limit: int, start: int) -> int:
    """The last cut in [start, limit] before a lone space between two words; 0 if none."""
    cut = limit
    while cut >= start:
        cut = text.rfind(" ", start, cut + 1)
        if cut < 1:
            return 0
        after = text[cut + 1 : cut + 2]
        if not text[cut - 1].isspace() and after and not after.isspace():
            return cut
        cut -= 1
    return 0
