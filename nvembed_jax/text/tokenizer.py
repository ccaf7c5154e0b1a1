"""Texts in, token ids out: prefix, BOS and EOS, truncation, and where pooling starts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from nvembed_jax.config import TextConfig
from nvembed_jax.text.cutting import SafeCuts
from nvembed_jax.text.tokenizer_files import LoadedTokenizer, load_folder

Truncation = Literal["keep_eos", "published", "none"]
TRUNCATIONS: tuple[str, ...] = get_args(Truncation)

_BLOCK = 1024  # texts a call of the backend: bounds what its encodings hold at a time
_CHARS_PER_TOKEN = (
    12  # first guess of what `max_length` tokens can span; grown when a text needs more
)


class Encoded(NamedTuple):
    """One tokenised text.

    Attributes:
        input_ids: int32 [T], BOS and EOS included.
        pool_start: positions before it are attended to but not pooled; always < T unless T is 0.
        full_length: tokens before truncation; only a lower bound for a text far over `max_length`,
            whose end is never looked at. Exact with truncation "none".
    """

    input_ids: np.ndarray
    pool_start: int
    full_length: int

    @property
    def truncated(self) -> bool:
        """Whether tokens were dropped."""
        return self.full_length > len(self.input_ids)


class Tokenizer:
    """The tokenizer of one model: a fast `tokenizers` backend and the rules of its `TextConfig`.

    Attributes:
        backend: `tokenizers.Tokenizer`, with truncation and padding off.
        vocab_size: number of ids, added tokens included.
        bos_id, eos_id: the tokens that open and close a text ([CLS] and [SEP] for BERT), or None.
        pad_id: fills rows; never attended to.
        files: the files it was read from, for copying into another model folder.
    """

    def __init__(self, loaded: LoadedTokenizer, text: TextConfig):
        self.backend = loaded.backend
        self.text = text
        self.bos_id, self.eos_id, self.pad_id = loaded.bos_id, loaded.eos_id, loaded.pad_id
        self.files = loaded.files
        self.vocab_size: int = loaded.backend.get_vocab_size()
        self._opening, self._closing = loaded.opening, loaded.closing
        self._eos_text = self._appended_eos()
        self._cuts = SafeCuts(self.backend)
        self._prefix_lengths: dict[str, int] = {}

    @classmethod
    def from_folder(cls, path: str | Path, text: TextConfig) -> Tokenizer:
        """Loads a model folder's tokenizer.json, else its tokenizer.model, else its vocab.txt.

        Raises:
            FileNotFoundError: none of them is there.
            ValueError: a file is broken, or EOS is wanted and the tokenizer has none.
        """
        return cls(load_folder(path), text)

    @classmethod
    def packaged(cls, text: TextConfig) -> Tokenizer:
        """Our own small byte-fallback BPE (8,192 pieces), which needs no download."""
        with resources.as_file(resources.files("nvembed_jax.text") / "data") as folder:
            return cls.from_folder(folder, text)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the serialised tokenizer."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    def encode(
        self,
        texts: Sequence[Any],
        *,
        prefix: str = "",
        suffix: str = "",
        max_length: int | None = None,
        truncation: str = "keep_eos",
    ) -> list[Encoded]:
        """Tokenises `prefix + text + suffix` and EOS, one string each, as the published code does.

        Args:
            texts: strings; any Unicode, empty ones included.
            prefix: instruction or prompt; not pooled when the model masks instructions.
            suffix: closes the text, before EOS; kept when a text is truncated with "keep_eos".
            max_length: tokens a text may have, special ones included; None: the model's own.
            truncation: "keep_eos" drops tokens of the text only; "published" cuts the end, the
                appended EOS with it (what the post-processor adds, such as [SEP], always stays);
                "none" never cuts.

        Raises:
            ValueError: a text is not a string or not valid Unicode (the index is named), an unknown
                truncation, or a `max_length` without room for a token of the text.
        """
        check_texts(texts, prefix, suffix)
        if truncation not in TRUNCATIONS:
            raise ValueError(
                f"truncation must be one of {', '.join(TRUNCATIONS)}; got {truncation!r}"
            )
        if self.text.lowercase:
            prefix, suffix = prefix.lower(), suffix.lower()
        limit = (
            None
            if truncation == "none"
            else self.text.max_length
            if max_length is None
            else max_length
        )
        tail = self._tail_ids(suffix) if truncation == "keep_eos" else self._closing
        if limit is not None and limit < len(self._opening) + len(tail) + 1:
            raise ValueError(
                f"max_length {limit} leaves no room for text: special tokens and suffix take "
                f"{len(self._opening) + len(tail)}; use a larger max_length"
            )
        skipped = self._prefix_length(prefix) if self.text.mask_instruction and prefix else 0
        out: list[Encoded] = []
        for start in range(0, len(texts), _BLOCK):
            for ids, whole in self._token_ids(texts[start : start + _BLOCK], prefix, suffix, limit):
                out.append(_truncate(ids, whole, limit, tail, self._closing, skipped))
        return out

    def _token_ids(
        self, texts: Sequence[str], prefix: str, suffix: str, limit: int | None
    ) -> list[tuple[list[int], bool]]:
        """Ids of every text, and whether they are all of it (False: surely more than `limit`)."""
        if self.text.lowercase:
            texts = [text.lower() for text in texts]
        end = suffix + self._eos_text
        window = len(prefix) + _CHARS_PER_TOKEN * (limit or 0) + 64
        fed: list[str] = []
        ends: list[int] = []
        for text in texts:
            text = prefix + text
            cut = len(text) if limit is None else self._cuts.before(text, max(window, len(prefix)))
            ends.append(cut)
            fed.append(text + end if cut == len(text) else text[:cut])
        encoded = [encoding.ids for encoding in self.backend.encode_batch_fast(fed)]
        return [
            (ids, True)
            if ends[i] == len(prefix) + len(texts[i])
            else self._grow(prefix + texts[i], end, ids, ends[i], limit or 0)
            for i, ids in enumerate(encoded)
        ]

    def _grow(
        self, text: str, end: str, ids: list[int], cut: int, limit: int
    ) -> tuple[list[int], bool]:
        """Takes more of a long text until its ids surely exceed `limit`, or nothing is left."""
        while len(ids) - len(self._closing) <= limit:
            cut = self._cuts.before(text, 4 * cut)
            if cut == len(text):
                return self.backend.encode(text + end).ids, True
            ids = self.backend.encode(text[:cut]).ids
        return ids, False

    def _prefix_length(self, prefix: str) -> int:
        """Tokens of the prefix alone, without BOS: as many as the published code does not pool."""
        if prefix not in self._prefix_lengths:
            ids = self.backend.encode(prefix, add_special_tokens=False).ids
            self._prefix_lengths[prefix] = len(ids)
        return self._prefix_lengths[prefix]

    def _tail_ids(self, suffix: str) -> tuple[int, ...]:
        """Ids that close every text: suffix, EOS, and what the post-processor adds."""
        if not suffix + self._eos_text:
            return self._closing
        encoding = self.backend.encode("a" + suffix + self._eos_text, add_special_tokens=False)
        after = [
            i for i, (start, _) in zip(encoding.ids, encoding.offsets, strict=True) if start >= 1
        ]
        return (*after, *self._closing)

    def _appended_eos(self) -> str:
        """The EOS string to append: "" when not wanted, or when the post-processor adds EOS."""
        if not self.text.add_eos or (self.eos_id is not None and self.eos_id in self._closing):
            return ""
        if self.eos_id is None:
            raise ValueError(
                "this model closes texts with EOS (add_eos), but its tokenizer names no eos_token; "
                "name it in tokenizer_config.json"
            )
        eos = self.backend.id_to_token(self.eos_id)
        if self.backend.encode("a" + eos, add_special_tokens=False).ids[-1:] != [self.eos_id]:
            raise ValueError(
                f"the tokenizer does not read {eos!r} as its EOS token; "
                "mark it special in tokenizer.json"
            )
        return eos


def _truncate(
    ids: list[int],
    whole: bool,
    limit: int | None,
    tail: tuple[int, ...],
    closing: tuple[int, ...],
    skipped: int,
) -> Encoded:
    full = len(ids) + (0 if whole else len(tail) - len(closing))
    if limit is not None and full > limit:
        ids = [*ids[: limit - len(tail)], *tail]
    # A text of which nothing would be left to pool is represented by its last token.
    start = max(0, min(skipped, len(ids) - 1))
    return Encoded(np.asarray(ids, np.int32), start, full)


def check_texts(texts: Sequence[Any], prefix: str = "", suffix: str = "") -> None:
    """Raises ValueError, with its index, for the first text that is no valid Unicode string."""
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings; got one string: put it in a list")
    for name, value in (("prefix", prefix), ("suffix", suffix)):
        _check_unicode(value, name)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            mend = (
                "decode it first"
                if isinstance(text, bytes)
                else "convert it with str(), or drop it"
            )
            raise ValueError(f"texts[{i}] must be a string; got {type(text).__name__}: {mend}")
        _check_unicode(text, f"texts[{i}]")


def _check_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} is not valid Unicode: lone surrogate at character {error.start}; "
            "drop it, for example with text.encode('utf-8', 'replace').decode()"
        ) from None
