"""Rows of a batch to tokens and ids: templates, which positive and which negatives, hashes of
texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax.data.blend import BlendConfig, Row
from nvembed_jax.data.identity import text_key
from nvembed_jax.text import instructions
from nvembed_jax.text.packing import bucket_lengths, pad
from nvembed_jax.text.tokenizer import Encoded, Tokenizer

_EXACT = 5  # passages a row up to which a batch has as many slots as its fullest row


class Texts(NamedTuple):
    """What one row asks the model to embed: the texts, each with prefix and suffix.

    Attributes:
        passages: the positive, then the negatives; at most 1 + `BlendConfig.negatives`.
        scores: a teacher's, one a passage, or ().
    """

    query: str
    query_prefix: str
    query_suffix: str
    passages: tuple[str, ...]
    passage_prefix: str
    scores: tuple[float, ...]


class Collated(NamedTuple):
    """A batch on the host, tokenised and not yet padded; passages P to a row, gaps filled up."""

    texts: list[Texts]
    queries: list[Encoded]
    passages: list[list[Encoded]]
    ids: dict[str, np.ndarray]


class Collator:
    """Tokenises rows of a stage.

    Args:
        config: of the stage. tokenizer: the model's.
    """

    def __init__(self, config: BlendConfig, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer
        self.query_lengths = _lengths(config.query_length, config.length_buckets)
        self.passage_lengths = _lengths(config.passage_length, config.length_buckets)

    def __call__(self, rows: Sequence[Row]) -> Collated:
        """Texts, tokens and ids of the rows; draws from their generators, so call it once a row."""
        texts = [self._texts(row) for row in rows]
        queries = self._encode(
            [(t.query_prefix, t.query_suffix, t.query) for t in texts], self.config.query_length
        )
        flat = [(t.passage_prefix, "", passage) for t in texts for passage in t.passages]
        encoded = iter(self._encode(flat, self.config.passage_length))
        passages = [[next(encoded) for _ in t.passages] for t in texts]
        return Collated(texts, queries, passages, self._ids(rows, texts))

    def needs(self, batch: Collated) -> tuple[int, int, int]:
        """(query length, passage length, passages a row): the static shape that holds the batch.

        Processes that share a batch take the largest of theirs.
        """
        longest = [max(len(e.input_ids) for e in batch.queries)]
        longest.append(max(len(e.input_ids) for row in batch.passages for e in row))
        sizes = (self.query_lengths, self.passage_lengths)
        query, passage = (
            next(n for n in lengths if n >= most)
            for lengths, most in zip(sizes, longest, strict=True)
        )
        most = max(len(row) for row in batch.passages)
        return query, passage, most if most <= _EXACT else 1 + self.config.negatives

    def arrays(self, batch: Collated, needs: tuple[int, int, int]) -> dict[str, Any]:
        """The fields of a `ContrastiveBatch`, on the host, at a static shape."""
        query_length, passage_length, per_row = needs
        rows, pad_id = len(batch.queries), self.tokenizer.pad_id
        filler = Encoded(np.asarray([pad_id], np.int32), 0, 1)
        flat = [
            encoded
            for row in batch.passages
            for encoded in (*row, *([filler] * (per_row - len(row))))
        ]
        most = batch.ids["passage_ids"].shape[1]
        wide = ((0, 0), (0, per_row - most))
        ids = {
            name: np.pad(batch.ids[name], wide) if most < per_row else batch.ids[name][:, :per_row]
            for name in ("passage_ids", "passage_mask", "teacher_scores")
            if name in batch.ids
        }
        return {
            "queries": pad(batch.queries, query_length, rows, pad_id),
            "passages": pad(flat, passage_length, rows * per_row, pad_id),
            **(batch.ids | ids),
        }

    def _texts(self, row: Row) -> Texts:
        example, text = row.example, self.tokenizer.text
        chosen = int(row.rng.integers(len(example.positives))) if len(example.positives) > 1 else 0
        picked = np.arange(len(example.negatives))
        if len(picked) > self.config.negatives:
            picked = np.sort(row.rng.permutation(len(picked))[: self.config.negatives])
        task = example.task if text.query_template is not None else None
        scores: tuple[float, ...] = ()
        if example.negative_scores and example.positive_score is not None:
            scores = (example.positive_score, *(example.negative_scores[i] for i in picked))
        return Texts(
            example.query,
            self._query_prefix(task, row),
            text.query_suffix,
            (example.positives[chosen], *(example.negatives[i] for i in picked)),
            instructions.query_prefix(text, task)
            if row.symmetric
            else instructions.passage_prefix(text),
            scores,
        )

    def _query_prefix(self, task: str | None, row: Row) -> str:
        """The filled template, behind as many in-context examples as fit half the length."""
        text, shots = self.tokenizer.text, row.shots
        while shots:
            pairs = [(shot.query, shot.positives[0]) for shot in shots]
            prefix = instructions.examples_prefix(text, task, pairs)
            ids = self.tokenizer.backend.encode(prefix, add_special_tokens=False).ids
            if 2 * len(ids) <= self.config.query_length:
                return prefix
            shots = shots[:-1]
        return instructions.query_prefix(text, task)

    def _encode(self, texts: Sequence[tuple[str, str, str]], length: int) -> list[Encoded]:
        """Tokens of (prefix, suffix, text), those of one prefix at a time."""
        groups: dict[tuple[str, str], list[int]] = {}
        for i, (prefix, suffix, _) in enumerate(texts):
            groups.setdefault((prefix, suffix), []).append(i)
        out: list[Any] = [None] * len(texts)
        for (prefix, suffix), members in groups.items():
            encoded = self.tokenizer.encode(
                [texts[i][2] for i in members],
                prefix=prefix,
                suffix=suffix,
                max_length=length,
            )
            for i, item in zip(members, encoded, strict=True):
                out[i] = item
        return out

    def _ids(self, rows: Sequence[Row], texts: Sequence[Texts]) -> dict[str, np.ndarray]:
        count, most = len(rows), max(len(t.passages) for t in texts)
        passage_ids = np.zeros((count, most), np.int32)
        scores = np.zeros((count, most), np.float32)
        known = np.zeros((count, self.config.known_positives), np.int32)
        for i, (row, item) in enumerate(zip(rows, texts, strict=True)):
            passage_ids[i, : len(item.passages)] = [text_id(p) for p in item.passages]
            # The chosen positive is always among the known ones that are kept.
            mine = dict.fromkeys([item.passages[0], *row.example.positives])
            kept = [text_id(p) for p in mine][: known.shape[1]]
            known[i, : len(kept)] = kept
            scores[i, : len(item.scores)] = item.scores
        groups = [row.example.group for row in rows]
        out = {
            "query_ids": np.asarray([text_id(t.query) for t in texts], np.int32),
            "passage_ids": passage_ids,
            "known_ids": known,
            "group_ids": np.asarray([-1 if g is None else text_id(g) for g in groups], np.int32),
            "source_ids": np.asarray([row.source_id for row in rows], np.int32),
            "passage_mask": np.asarray(
                [[j < len(t.passages) for j in range(most)] for t in texts], bool
            ),
            "in_batch": np.asarray([row.in_batch for row in rows], bool),
            "weight": np.ones(count, np.float32),
        }
        if all(t.scores for t in texts):
            out["teacher_scores"] = scores
        return out


def text_id(text: str) -> int:
    """A positive 31-bit hash: texts that count as the same (`data/identity.py`) have equal ids. Of
    10,000 texts in a batch one pair in 40 batches collides; what is lost is one negative.
    """
    return max(1, int.from_bytes(text_key(text)[:4], "little") & 0x7FFFFFFF)


def _lengths(longest: int, steps: int) -> tuple[int, ...]:
    return bucket_lengths(longest, steps=steps) if steps else (longest,)
