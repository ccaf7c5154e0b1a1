"""What is known of a public set: origin, files, format, kind, task; and the lookup by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvembed_jax.data.tfds.raw_files import Files, Row

BUILDER_NAME = "nvembed"
VERSION = "1.0.0"
KINDS = ("pairs", "classification", "clustering", "sts", "pair_classification")
SYMMETRIC_KINDS = ("classification", "clustering", "sts", "pair_classification")
Splits = Mapping[str, Mapping[str, str]]  # split -> role -> pattern below the origin's folder


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """One public set.

    Args:
        kind: what its rows are; one of `KINDS`.
        parse: reads its raw format; None: only folders in the task layout are read.
        files: which files hold a split, by their role in the format.
        urls: path in the origin's folder -> where it is downloaded; "": an archive, unpacked there.
        homepage: where a person finds the files; needed where there are no `urls`.
        by_hand: why the files cannot be downloaded here; "" where they can.
        options: of `parse`; `split_options` add to them by split.
        paper: the name in the table of NV-Embed's training sets; None: not among them.
        symmetric: the instruction goes on both sides.
    """

    name: str
    kind: str
    instruction: str
    licence: str
    parse: Callable[..., Iterator[Row]] | None = None
    files: Splits = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    homepage: str = ""
    by_hand: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    split_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper: str | None = None
    label_texts: Mapping[str, str] | None = None
    scale: tuple[float, float] = (0.0, 5.0)

    @property
    def symmetric(self) -> bool:
        """Whether both sides of an example carry the instruction."""
        return self.kind in SYMMETRIC_KINDS

    @property
    def origin(self) -> str:
        """Where the set comes from, for people."""
        return self.homepage or next(iter(self.urls.values()), "")

    def rows(self, split: str, files: Files) -> Iterator[Row]:
        """The rows of the files of one split."""
        assert self.parse is not None
        return self.parse(files, **self.options, **self.split_options.get(split, {}))


def all_sets() -> dict[str, PublicSet]:
    """Every set by name, the paper's first."""
    from nvembed_jax.data.tfds.other_sets import OTHER_SETS
    from nvembed_jax.data.tfds.paper_labelled import LABELLED_SETS
    from nvembed_jax.data.tfds.paper_retrieval import RETRIEVAL_SETS

    return {public.name: public for public in (*RETRIEVAL_SETS, *LABELLED_SETS, *OTHER_SETS)}


def find_set(name: str) -> PublicSet:
    """The set of that name; ValueError with the nearest one otherwise."""
    sets = all_sets()
    if name in sets:
        return sets[name]
    near = difflib.get_close_matches(name, sets, n=1, cutoff=0.0)
    raise ValueError(
        f"no public set is called {name!r}; did you mean {near[0]!r}? "
        f"`python -m nvembed_jax.data.tfds list` shows all {len(sets)}"
    )


def data_root(data_dir: str | Path | None) -> Path:
    """Where sets are built: `data_dir`, else TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(root).expanduser()
