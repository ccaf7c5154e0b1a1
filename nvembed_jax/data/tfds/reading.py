"""Built public sets as example sources: random access to array_record files, no TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.data.example_rows import Example
from nvembed_jax.data.examples import extended_fingerprint
from nvembed_jax.data.row_file import Keep
from nvembed_jax.data.tfds.registry import BUILDER_NAME, VERSION, PublicSet, data_root, find_set
from nvembed_jax.runtime import progress_bar

DEFAULT_SPLIT = "train"


def find_built(
    spec: str, data_dir: str | Path | None, allow_evaluation: bool
) -> tuple[PublicSet, BuiltSplit]:
    """The records of "NAME[/CONFIG][:SPLIT]", a set that `build` has built.

    A config is the language of a set that has several: "miracl/sw" is the set "miracl_sw".

    Raises:
        ValueError: an unknown name or split, or a split that is not for training.
        FileNotFoundError: the set is not built.
    """
    name, _, split = spec.partition(":")
    public, split = find_set(name.replace("/", "_")), split or DEFAULT_SPLIT
    if split != DEFAULT_SPLIT and not allow_evaluation:
        raise ValueError(
            f"tfds:{spec}: the split {split!r} is for evaluation; pass allow_evaluation=True to "
            f"take it all the same"
        )
    return public, BuiltSplit(public, split, data_dir)


class BuiltSplit:
    """The records of one split, as dictionaries of Python values."""

    def __init__(self, public: PublicSet, split: str, data_dir: str | Path | None) -> None:
        import tensorflow_datasets as tfds

        root = data_root(data_dir)
        folder = root / BUILDER_NAME / public.name / VERSION
        if not (folder / "dataset_info.json").is_file():
            raise FileNotFoundError(
                f"{folder}: {public.name} is not built; build it with `python -m "
                f"nvembed_jax.data.tfds build {public.name} --data-dir {root}`"
            )
        builder = tfds.builder_from_directory(folder)
        if split not in builder.info.splits:
            there = ", ".join(builder.info.splits)
            evaluation = "" if DEFAULT_SPLIT in builder.info.splits else "; it is for evaluation"
            raise ValueError(
                f"tfds:{public.name} has no split {split!r}; it has {there}{evaluation}"
            )
        self.name, self.split = public.name, split
        self._records: Any = builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue]
        digest = hashlib.sha256()
        for path in sorted(builder.info.splits[split].filepaths):
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record: Mapping[str, Any] = self._records[index]
        return {key: _plain(value) for key, value in record.items()}


class BuiltRows:
    """The rows of a built set that are kept, as `Rows`; all are read once when it is opened."""

    def __init__(self, built: BuiltSplit, keep: Keep, limit: int | None) -> None:
        self.name, self._built = built.name, built
        kept: list[int] = []
        with progress_bar(len(built), None, "row") as bar:
            for index in range(len(built)):
                if keep(self._row(index), f"tfds:{built.name}:{built.split}, row {index}"):
                    kept.append(index)
                if index % 1024 == 0:
                    bar.update(index - bar.n)
                if len(kept) == limit:
                    break
        self._kept = np.array(kept, np.int64)
        options = {} if limit is None else {"limit": limit}
        self.fingerprint = extended_fingerprint(built.fingerprint, **options)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._row(int(self._kept[index]))

    def where(self, index: int) -> str:
        """The place of a row, for messages."""
        return f"tfds:{self.name}:{self._built.split}, row {int(self._kept[index])}"

    def _row(self, index: int) -> dict[str, Any]:
        # What is opened has been chosen by its split: for the label rules it is for training.
        return {**self._built[index], "split": DEFAULT_SPLIT}


class BuiltPairs:
    """The pairs of a built set as an `ExampleSource`; they were checked when it was built."""

    symmetric = False

    def __init__(self, public: PublicSet, rows: BuiltSplit, task: str, limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, or None for all rows; got {limit}")
        self.name, self._rows = public.name, rows
        self.task: str | None = task
        self._count = len(rows) if limit is None else min(limit, len(rows))
        self.fingerprint = extended_fingerprint(rows.fingerprint, task=task, count=self._count)

    def __len__(self) -> int:
        return self._count

    def get(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`; `rng` is not used."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no example {index}; there are {len(self)}")
        row = self._rows[index]
        return Example(
            query=row["query"],
            positives=tuple(row["positives"]),
            negatives=tuple(row["negatives"]),
            task=self.task,
            source=self.name,
            group=row["group"] or None,
        )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float | np.floating):
        return round(float(value), 6)  # records hold 32 bits: 4.4 would come back as 4.400000095
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, list | np.ndarray) else value
