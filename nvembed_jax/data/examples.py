"""Training examples in and out: JSONL, one example a line, checked to the last line before use.

`read_examples` streams; `ExampleFile` gives random access and keeps only offsets in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nvembed_jax.data.example_rows import (
    DEFAULT_GROUP_KEY,
    Example,
    example_to_json,
    parse_example,
)
from nvembed_jax.data.row_file import RowFile, check_name, read_rows, row_writer

__all__ = [
    "DEFAULT_GROUP_KEY",
    "Example",
    "ExampleFile",
    "ExampleSource",
    "example_to_json",
    "extended_fingerprint",
    "parse_example",
    "read_examples",
    "write_examples",
]


@runtime_checkable
class ExampleSource(Protocol):
    """Random access to examples; what the trainer, the miner and the blend read from."""

    name: str
    fingerprint: str  # sha256 of the content that decides what `get` gives
    task: str | None  # task description of the whole source, already in its examples
    symmetric: bool  # the task's instruction goes on both sides

    def __len__(self) -> int: ...

    def get(self, index: int, rng: np.random.Generator) -> Example:
        """Example `index`; pure: the same index and state of `rng` give the same example."""
        ...


def read_examples(path: str | Path, *, group_key: str = DEFAULT_GROUP_KEY) -> Iterator[Example]:
    """Streams the examples of a .jsonl or .jsonl.gz file, in its order; blank lines are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `FILE:LINE: what is wrong`, as `parse_example` and for broken JSON or UTF-8.
    """
    for where, row in read_rows(path):
        yield parse_example(row, where, group_key=group_key)


def write_examples(path: str | Path, examples: Iterable[Example]) -> int:
    """Writes examples as JSONL (gzipped by the name) and returns how many; whole or not at all."""
    count = 0
    with row_writer(check_name(path)) as write:
        for example in examples:
            write(example_to_json(example))
            count += 1
    return count


class ExampleFile:
    """The examples of one or several files, end to end, as an `ExampleSource`.

    Every line is checked once when it is opened; threads may share it, and it can be pickled (see
    `RowFile`). `rng` is not used.

    Args:
        paths: a .jsonl or .jsonl.gz file, or several.
        cache_dir: where decompressed files are kept; None: a temporary folder, removed at the end.
        group_key: as in `parse_example`.
        limit: only the first rows, as many as that.
        name: for messages and metrics; None: the first file's name.
        task: task description of the examples that have none of their own.
        symmetric: the instruction goes on both sides.

    Raises:
        FileNotFoundError, ValueError: as `read_examples`; also when there are no examples.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        cache_dir: Path | None = None,
        group_key: str = DEFAULT_GROUP_KEY,
        limit: int | None = None,
        name: str | None = None,
        task: str | None = None,
        symmetric: bool = False,
    ) -> None:
        def keep(row: Any, where: str) -> bool:
            parse_example(row, where, group_key=group_key)
            return True

        self._rows = RowFile(paths, keep, cache_dir=cache_dir, limit=limit)
        self.name = self._rows.name if name is None else name
        self.task, self.symmetric = task, symmetric
        self._group_key = group_key
        if not len(self._rows):
            raise ValueError(f"{self.name}: no examples in the file; expected at least one")
        options = {} if group_key == DEFAULT_GROUP_KEY else {"group_key": group_key}
        options |= {} if task is None else {"task": task}
        self.fingerprint = extended_fingerprint(self._rows.fingerprint, **options)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`, read from the disk."""
        example = parse_example(
            self._rows[index], self._rows.where(index), group_key=self._group_key
        )
        return replace(example, task=self.task) if example.task is None else example


def extended_fingerprint(fingerprint: str, **options: Any) -> str:
    """A fingerprint that also tells options apart; without options it stays as it is."""
    if not options:
        return fingerprint
    text = json.dumps([fingerprint, options], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
