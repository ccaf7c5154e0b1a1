"""Retrieval files in the BEIR layout -> training examples: a query and the passages judged for it.

corpus.jsonl {_id, title, text}, queries.jsonl {_id, text}, a .tsv of (query-id, corpus-id, score).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.data.example_rows import Example, check_text
from nvembed_jax.data.examples import extended_fingerprint
from nvembed_jax.data.row_file import RowFile

QRELS_HEADER = ["query-id", "corpus-id", "score"]


class JudgedPairs:
    """Queries with their judged passages as an `ExampleSource`; texts stay on the disk.

    Passages of a score above 0 are positives, those of 0 and below are negatives. Queries without
    a positive are passed over and counted in `skipped`; so are judged ids that the corpus lacks.

    Args:
        corpus, queries: .jsonl or .jsonl.gz files.
        qrels: a .tsv file with a header.
        name, task: of the set.
        cache_dir: where decompressed files are kept.
        limit: only the first queries, as many as that.
    """

    symmetric = False

    def __init__(
        self,
        corpus: str | Path | Sequence[str | Path],
        queries: str | Path,
        qrels: str | Path,
        *,
        name: str,
        task: str | None = None,
        cache_dir: str | Path | None = None,
        limit: int | None = None,
    ) -> None:
        self.name, self.task = name, task
        judged: dict[str, dict[str, float]] = {}
        for query, passage, score in read_qrels(Path(qrels)):
            judged.setdefault(query, {})[passage] = score
        wanted = {passage for passages in judged.values() for passage in passages}
        self._queries, query_ids = _rows_by_id(queries, judged.keys(), cache_dir)
        self._corpus, passage_ids = _rows_by_id(corpus, wanted, cache_dir)
        self.skipped = {"unknown passage": 0, "no positive": 0}
        self._query_rows = array("i")
        self._positives: list[array[int]] = []
        self._negatives: list[array[int]] = []
        for query, row in query_ids.items():
            if limit is None or len(self._query_rows) < limit:
                self._add(row, judged[query], passage_ids)
        if not self._query_rows:
            raise ValueError(f"{qrels}: no query of {queries} has a positive in {corpus}")
        self.fingerprint = extended_fingerprint(
            self._queries.fingerprint,
            corpus=self._corpus.fingerprint,
            judged=[
                np.concatenate([[row], positives, [-1], negatives]).tolist()
                for row, positives, negatives in zip(
                    self._query_rows, self._positives, self._negatives, strict=True
                )
            ],
            task=task,
        )

    def __len__(self) -> int:
        return len(self._query_rows)

    def get(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`; `rng` is not used."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no example {index}; there are {len(self)}")
        positives = tuple(self._passage(row) for row in self._positives[index])
        negatives = (self._passage(row) for row in self._negatives[index])
        return Example(
            query=self._queries[self._query_rows[index]]["text"],
            positives=positives,
            negatives=tuple(text for text in negatives if text not in positives),
            task=self.task,
            source=self.name,
        )

    def _passage(self, row: int) -> str:
        return full_text(self._corpus[row])

    def _add(self, row: int, passages: dict[str, float], passage_ids: dict[str, int]) -> None:
        known = {passage: score for passage, score in passages.items() if passage in passage_ids}
        self.skipped["unknown passage"] += len(passages) - len(known)
        positives = [passage_ids[passage] for passage, score in known.items() if score > 0]
        if not positives:
            self.skipped["no positive"] += 1
            return
        self._query_rows.append(row)
        self._positives.append(array("i", positives))
        self._negatives.append(
            array("i", [passage_ids[passage] for passage, score in known.items() if score <= 0])
        )


def read_qrels(path: Path) -> Iterator[tuple[str, str, float]]:
    """(query id, passage id, score) of a .tsv with the header of the BEIR layout."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open(encoding="utf-8") as file:
        if next(file, "").rstrip("\r\n").split("\t") != QRELS_HEADER:
            raise ValueError(f"{path}:1: expected the header {' '.join(QRELS_HEADER)}, with tabs")
        for number, line in enumerate(file, start=2):
            cells = line.rstrip("\r\n").split("\t")
            try:
                query, passage, score = cells
                yield query, passage, float(score)
            except ValueError:
                raise ValueError(
                    f"{path}:{number}: expected query-id, corpus-id and a number, with tabs; got "
                    f"{line.strip()!r}"
                ) from None


def full_text(passage: dict[str, Any]) -> str:
    """A passage as it is embedded: title and text, or the text alone."""
    return f"{passage.get('title') or ''} {passage['text']}".strip()


def _rows_by_id(
    paths: str | Path | Sequence[str | Path], wanted: Any, cache_dir: str | Path | None
) -> tuple[RowFile, dict[str, int]]:
    """The rows whose `_id` is wanted, and id -> number among them."""
    found: dict[str, int] = {}

    def keep(row: Any, where: str) -> bool:
        id_ = check_text(row, "_id", where)
        if id_ not in wanted:
            return False
        if not isinstance(row.get("text"), str) or not full_text(row):
            return False  # some corpora have empty passages; they cannot be learnt from
        if id_ in found:
            raise ValueError(f"{where}: the id {id_!r} stands twice")
        found[id_] = len(found)
        return True

    return RowFile(paths, keep, cache_dir=cache_dir), found
