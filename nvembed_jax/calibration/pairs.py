"""Pairs of texts, with or without labels, and their scores by a model."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nvembed_jax.codes import unit
from nvembed_jax.data.row_file import read_rows
from nvembed_jax.runtime import progress_bar

QUERY_PASSAGE, PASSAGE_PASSAGE = "query-passage", "passage-passage"
KINDS = (QUERY_PASSAGE, PASSAGE_PASSAGE)
UNLABELLED = -1
_KEYS = {("query", "passage"): QUERY_PASSAGE, ("text1", "text2"): PASSAGE_PASSAGE}
_EXPECTED = (
    'expected {"query": ..., "passage": ..., "label"?: 0 or 1} or '
    '{"text1": ..., "text2": ..., "label"?: 0 or 1}'
)
_BLOCK = 2048  # pairs


class Pair(NamedTuple):
    """Two texts; `label` is 1 where they match, 0 where they do not, else `UNLABELLED`."""

    first: str
    second: str
    kind: str
    label: int


class PairFacts(NamedTuple):
    """Kind (a place in `KINDS`) and label of every pair of a file."""

    kinds: Int[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"]


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """One kind of pairs, scored by both models.

    Attributes:
        old, new: scores, float [N]. labels: 1, 0 or `UNLABELLED`, int [N].
    """

    old: np.ndarray
    new: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.old) == len(self.new) == len(self.labels):
            raise ValueError(
                f"expected as many old scores as new ones and labels; got {len(self.old)}, "
                f"{len(self.new)} and {len(self.labels)}"
            )
        for name, scores in (("old", self.old), ("new", self.new)):
            if not np.isfinite(scores).all():
                raise ValueError(f"the {name} model's scores hold NaN or infinity")

    @property
    def labelled(self) -> PairScores:
        """The pairs that have a label."""
        known = self.labels != UNLABELLED
        return PairScores(old=self.old[known], new=self.new[known], labels=self.labels[known])

    @property
    def has_labels(self) -> bool:
        """Whether there are labelled pairs of both labels."""
        return {0, 1} <= set(np.unique(self.labels).tolist())


def read_pairs(path: str | Path) -> Iterator[Pair]:
    """Streams the pairs of a .jsonl or .jsonl.gz file; other keys of a row are left alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `FILE:LINE: what is wrong`, or no pairs at all.
    """
    empty = True
    for where, row in read_rows(path):
        empty = False
        yield _pair(row, where)
    if empty:
        raise ValueError(f"{path}: no pairs in it; {_EXPECTED}")


def read_pair_facts(path: str | Path) -> PairFacts:
    """Reads all of a file once, and checks it, before a model is loaded."""
    facts = array("b")
    for pair in read_pairs(path):
        facts.extend((KINDS.index(pair.kind), pair.label))
    kinds, labels = np.array(facts, np.int8).reshape(-1, 2).T
    for number, kind in enumerate(KINDS):
        found = set(np.unique(labels[kinds == number]).tolist()) - {UNLABELLED}
        if len(found) == 1:
            raise ValueError(
                f"{path}: all labels of {kind} pairs are {found.pop()}; expected both 0 and 1, or "
                f"no labels"
            )
    return PairFacts(kinds, labels)


def score_pairs(
    path: str | Path,
    model: Any,
    count: int,
    *,
    task: str | None = None,
    encoding: dict[str, Any] | None = None,
) -> Float[np.ndarray, " N"]:
    """Cosines of all pairs of a file, a block of texts in memory at a time.

    Args:
        model: an `Embedder` or what has its calls. Queries go through `encode_query`, all other
            texts through `encode_document`.
        count: pairs in the file, for the progress bar. task: of the queries.
        encoding: further options of both calls.
    """
    options = {"show_progress_bar": False, **(encoding or {})}

    def embed_queries(texts: list[str]) -> np.ndarray:
        return model.encode_query(texts, task=task, **options)

    def embed_passages(texts: list[str]) -> np.ndarray:
        return model.encode_document(texts, **options)

    pairs, parts = read_pairs(path), []
    with progress_bar(count, None, "pair") as bar:
        while block := list(itertools.islice(pairs, _BLOCK)):
            queries = [pair.first for pair in block if pair.kind == QUERY_PASSAGE]
            passages = [pair.first for pair in block if pair.kind == PASSAGE_PASSAGE]
            passages += [pair.second for pair in block]
            found = {QUERY_PASSAGE: _by_text(queries, embed_queries)}
            found[PASSAGE_PASSAGE] = _by_text(passages, embed_passages)
            first = np.stack([found[pair.kind][pair.first] for pair in block])
            second = np.stack([found[PASSAGE_PASSAGE][pair.second] for pair in block])
            parts.append(np.sum(unit(first) * unit(second), axis=-1))
            bar.update(len(block))
    return np.concatenate(parts).astype(np.float64)


def _by_text(
    texts: Sequence[str], embed: Callable[[list[str]], np.ndarray]
) -> dict[str, np.ndarray]:
    distinct = list(dict.fromkeys(texts))
    rows = np.asarray(embed(distinct), np.float32) if distinct else ()
    return dict(zip(distinct, rows, strict=True))


def _pair(row: Any, where: str) -> Pair:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON {type(row).__name__}; {_EXPECTED}")
    found = [keys for keys in _KEYS if set(keys) <= row.keys()]
    if len(found) != 1:
        names = ", ".join(map(repr, row)) or "none"
        raise ValueError(f"{where}: {_EXPECTED}; got the keys {names}")
    texts = [row[key] for key in found[0]]
    for key, text in zip(found[0], texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"{where}: {key!r} holds {type(text).__name__}; expected a string")
    label = row.get("label")
    if label not in (None, 0, 1) or isinstance(label, float):
        raise ValueError(f"{where}: the label is {label!r}; expected 0 or 1, or none")
    first, second = texts
    return Pair(first, second, _KEYS[found[0]], UNLABELLED if label is None else int(label))
