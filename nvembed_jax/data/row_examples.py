"""Rows of several texts -> training examples: scored and labelled pairs, ranked candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from nvembed_jax.data.example_rows import Example, check_score, check_text, check_texts
from nvembed_jax.data.examples import extended_fingerprint
from nvembed_jax.data.labels import OpenRows, SplitFilter
from nvembed_jax.data.row_file import Rows

POSITIVE_SHARE = 0.8  # of the scale: 4 of 5 (NV-Embed paper)
ReadRow = Callable[[Any, str], Example | None]  # None: the row is no positive


class RowExamples:
    """An example a row, or two where the texts of a row may change places, as an `ExampleSource`.

    Args:
        open_rows: opens the rows, given what to keep.
        read: makes the example of a row; None passes the row over (counted in `skipped`).
        name, task: of the set.
        symmetric: both texts are of one kind: each row gives (a, b) and (b, a), in turn.
        splits: what may be trained on.
    """

    def __init__(
        self,
        open_rows: OpenRows,
        read: ReadRow,
        *,
        name: str,
        task: str | None,
        symmetric: bool,
        splits: SplitFilter,
    ) -> None:
        self.name, self.task, self.symmetric = name, task, symmetric
        self._read = read
        self.skipped = {"no positive": 0}

        def keep(row: Any, where: str) -> bool:
            if not splits.is_train(row, where):
                return False
            used = read(row, where) is not None
            self.skipped["no positive"] += not used
            return used

        self._rows: Rows = open_rows(keep)
        if not len(self._rows):
            splits.refuse_empty(name, "no positive pair")
        self.fingerprint = extended_fingerprint(
            self._rows.fingerprint, name=name, task=task, symmetric=symmetric, read=_told(read)
        )

    def __len__(self) -> int:
        return len(self._rows) * (2 if self.symmetric else 1)

    def get(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`; `rng` is not used."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no example {index}; there are {len(self)}")
        row, turned = divmod(index, 2) if self.symmetric else (index, 0)
        example = self._read(self._rows[row], self._rows.where(row))
        if example is None:
            raise ValueError(f"{self._rows.where(row)}: no longer a positive pair")
        if turned:
            query, positives = example.positives[0], (example.query,)
            example = replace(example, query=query, positives=positives)
        return replace(example, task=self.task, source=self.name)


def scored_pairs(
    open_rows: OpenRows,
    *,
    name: str,
    task: str | None = None,
    min_score: float = 0.0,
    max_score: float = 5.0,
    allow_evaluation: bool = False,
) -> RowExamples:
    """STS rows {text1, text2, score}: pairs of at least 0.8 of the scale, in both directions.

    They bring no negatives: mine them.
    """
    if not min_score < max_score:
        raise ValueError(f"{name}: min_score {min_score} must be below max_score {max_score}")
    return RowExamples(
        open_rows,
        partial(_read_scored, min_score=min_score, max_score=max_score),
        name=name,
        task=task,
        symmetric=True,
        splits=SplitFilter(allow_evaluation),
    )


def labelled_pairs(
    open_rows: OpenRows, *, name: str, task: str | None = None, allow_evaluation: bool = False
) -> RowExamples:
    """Pair classification rows {text1, text2, label}: pairs of label 1, in both directions."""
    return RowExamples(
        open_rows,
        _read_labelled,
        name=name,
        task=task,
        symmetric=True,
        splits=SplitFilter(allow_evaluation),
    )


def ranked_candidates(
    open_rows: OpenRows, *, name: str, task: str | None = None, allow_evaluation: bool = False
) -> RowExamples:
    """Reranking rows {query, positive: [...], negative: [...]}: one example each."""
    return RowExamples(
        open_rows,
        _read_ranked,
        name=name,
        task=task,
        symmetric=False,
        splits=SplitFilter(allow_evaluation),
    )


def _read_scored(row: Any, where: str, min_score: float, max_score: float) -> Example | None:
    score = check_score(row.get("score"), "score", where)
    if not min_score <= score <= max_score:
        raise ValueError(
            f"{where}: the score {score:g} is outside {min_score:g} .. {max_score:g}; set "
            f"min_score and max_score in task.json"
        )
    share = (score - min_score) / (max_score - min_score)
    return _pair(row, where) if share >= POSITIVE_SHARE - 1e-9 else None


def _read_labelled(row: Any, where: str) -> Example | None:
    label = row.get("label")
    if label not in (0, 1) or not isinstance(label, int):
        raise ValueError(f"{where}: 'label' holds {label!r}; expected 0 or 1")
    return _pair(row, where) if label else None


def _pair(row: dict[str, Any], where: str) -> Example | None:
    first, second = (check_text(row, key, where) for key in ("text1", "text2"))
    if first.strip() == second.strip():
        return None  # nothing to learn from
    return Example(query=first, positives=(second,))


def _read_ranked(row: Any, where: str) -> Example | None:
    positives = check_texts(row, "positive", where)
    negatives = check_texts(row, "negative", where)
    query = check_text(row, "query", where)
    if not positives:
        return None
    negatives = tuple(text for text in negatives if text not in positives)
    return Example(query=query, positives=positives, negatives=negatives)


def _told(read: ReadRow) -> Any:
    """What distinguishes one way to read rows from another."""
    return [read.func.__name__, read.keywords] if isinstance(read, partial) else read.__name__
