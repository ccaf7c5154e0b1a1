"""Does a text stand among the texts of evaluation sets? Equal, nearly equal, or one in the other.

Near-duplicates are found by MinHash (the library datasketch), passages that share their wording by
BM25 (bm25s); both only propose, and an exact measure decides.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax.data.evaluation_texts import EvaluationText
from nvembed_jax.data.identity import normalized, text_key, words

METHODS = ("exact", "minhash", "bm25")
MIN_WORDS = 10  # shorter texts share their wording by chance
_SHINGLE = 5  # characters
_NGRAM = 3  # words
_HITS = 10  # of BM25, that are looked at
_QUERY_WORDS = 64  # the rarest words of a text, that BM25 looks for
_COMMON = 0.1  # words in more of the texts than this say nothing (in sets of over 1,000 texts)


class Match(NamedTuple):
    """An evaluation text that was found, and how; `sets` are all that hold it."""

    method: str
    score: float
    found: EvaluationText
    sets: tuple[str, ...]


class EvaluationIndex:
    """All evaluation texts, each once, ready to be looked for.

    Args:
        texts: from `evaluation_texts`.
        methods: of `METHODS`, tried in that order.
        minhash_threshold: Jaccard similarity of 5-character pieces, from which two texts are
            near-duplicates.
        bm25_threshold: share of the shorter text's 3-word sequences that stand in the longer, from
            which one repeats the other; texts of at least 10 words only.
    """

    def __init__(
        self,
        texts: Iterable[EvaluationText],
        *,
        methods: Sequence[str] = METHODS,
        minhash_threshold: float = 0.7,
        bm25_threshold: float = 0.8,
    ) -> None:
        self._texts: list[EvaluationText] = []
        self._sets: list[tuple[str, ...]] = []
        self._numbers: dict[bytes, int] = {}
        self.counts: Counter[str] = Counter()
        for text in texts:
            self._add(text)
        self._exact = "exact" in methods
        bare = [text.text for text in self._texts]
        self._near = NearDuplicates(minhash_threshold, bare) if "minhash" in methods else None
        self._shared = _SharedWording(bare, bm25_threshold) if "bm25" in methods else None

    def __len__(self) -> int:
        return len(self._texts)

    def find(self, text: str) -> Match | None:
        """The first method's best match for `text`; None: it is not contaminated."""
        if self._exact:
            number = self._numbers.get(text_key(text))
            if number is not None:
                return self._match("exact", 1.0, number)
        for method, index in (("minhash", self._near), ("bm25", self._shared)):
            found = index.find(text) if index is not None else None
            if found is not None:
                return self._match(method, *found)
        return None

    def _match(self, method: str, score: float, number: int) -> Match:
        return Match(method, round(score, 4), self._texts[number], self._sets[number])

    def _add(self, text: EvaluationText) -> None:
        self.counts[text.set] += 1
        number = self._numbers.setdefault(text_key(text.text), len(self._texts))
        if number == len(self._texts):
            self._texts.append(text)
            self._sets.append((text.set,))
        elif text.set not in self._sets[number]:
            self._sets[number] += (text.set,)


class NearDuplicates:
    """Texts by the Jaccard similarity of their pieces of 5 characters.

    Args:
        threshold: similarity from which two texts are near-duplicates.

    Raises:
        ImportError: datasketch is not installed.
    """

    def __init__(self, threshold: float, texts: Iterable[str] = ()) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError:
            raise ImportError(
                'near-duplicates need datasketch: pip install "nvembed_jax[curate]", or do '
                "without them (minhash)"
            ) from None
        self._texts: list[str] = []
        self._threshold = threshold
        self._empty: Any = MinHash(num_perm=128, hashfunc=zlib.crc32)
        # Lower than asked, so that hardly any is missed; the exact similarity decides.
        self._index = MinHashLSH(threshold=max(0.1, threshold - 0.15), num_perm=128)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Adds a text; they are numbered from 0."""
        self._index.insert(len(self._texts), self._sketch(_shingles(text)), check_duplication=False)
        self._texts.append(text)

    def find(self, text: str) -> tuple[float, int] | None:
        """(similarity, number) of the nearest one that is near enough."""
        own = _shingles(text)
        best: tuple[float, int] | None = None
        candidates: list[Any] = self._index.query(self._sketch(own))
        for number in sorted(map(int, candidates)):
            other = _shingles(self._texts[number])
            similarity = len(own & other) / len(own | other)
            if similarity >= self._threshold and (best is None or similarity > best[0]):
                best = similarity, number
        return best

    def _sketch(self, shingles: set[bytes]) -> Any:
        sketch = self._empty.copy()
        sketch.update_batch(shingles)
        return sketch


class _SharedWording:
    """Texts by BM25, measured by the word sequences that they share."""

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        import bm25s
        from bm25s.tokenization import Tokenized

        self._threshold = threshold
        split = [words(text) for text in texts]
        self._numbers = [i for i, found in enumerate(split) if len(found) >= MIN_WORDS]
        self._words = [split[i] for i in self._numbers]
        self._frequency: Counter[str] = Counter()
        for found in self._words:
            self._frequency.update(set(found))
        self._index: Any = None
        if self._words:
            vocabulary = {word: i for i, word in enumerate(self._frequency)}
            ids = [[vocabulary[word] for word in found] for found in self._words]
            self._index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
            self._index.index(
                Tokenized(ids=ids, vocab=vocabulary), show_progress=False, create_empty_token=False
            )

    def find(self, text: str) -> tuple[float, int] | None:
        own = words(text)
        wanted = self._wanted(own)
        if len(own) < MIN_WORDS or not wanted:
            return None
        scores = self._index.get_scores(wanted)
        hits = np.argsort(-scores, kind="stable")[:_HITS] if len(scores) <= _HITS else (
            np.sort(np.argpartition(-scores, _HITS)[:_HITS])
        )  # fmt: skip
        best: tuple[float, int] | None = None
        for hit in map(int, hits):
            share = _shared_share(own, self._words[hit])
            if share >= self._threshold and (best is None or share > best[0]):
                best = share, self._numbers[hit]
        return best

    def _wanted(self, own: Sequence[str]) -> list[str]:
        """The rarest known words of a text."""
        known = {word: self._frequency[word] for word in own if word in self._frequency}
        if len(self._words) > 1000:
            limit = _COMMON * len(self._words)
            known = {word: n for word, n in known.items() if n <= limit} or known
        return sorted(known, key=lambda word: (known[word], word))[:_QUERY_WORDS]


def _shingles(text: str) -> set[bytes]:
    """Pieces of 5 characters of the words, parted by single spaces; punctuation does not count."""
    joined = " ".join(words(text)) or normalized(text)
    last = max(len(joined) - _SHINGLE, 0)
    return {joined[i : i + _SHINGLE].encode() for i in range(last + 1)}


def _shared_share(a: Sequence[str], b: Sequence[str]) -> float:
    """The share of the shorter text's word sequences that stand in the longer text too."""
    shorter, longer = sorted((_ngrams(a), _ngrams(b)), key=len)
    return len(shorter & longer) / len(shorter)


def _ngrams(found: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(found[i : i + _NGRAM]) for i in range(len(found) - _NGRAM + 1)}
