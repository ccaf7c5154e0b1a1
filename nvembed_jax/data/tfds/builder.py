"""One TFDS builder for every public set: array_record files, without TensorFlow.

The config's name is the set's. Rows come from the origin's raw files (downloaded, or in a local
folder), or from a folder in the task layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from nvembed_jax.data.tfds.origin import (
    layout_folder,
    rows_of_layout,
    splits_of_layout,
    splits_of_origin,
    unpack,
)
from nvembed_jax.data.tfds.raw_files import Row
from nvembed_jax.data.tfds.registry import (
    BUILDER_NAME,
    VERSION,
    PublicSet,
    all_sets,
    data_root,
    find_set,
)

_TEXT = tfds.features.Text
_FEATURES: dict[str, dict[str, Any]] = {
    "pairs": {
        "query": _TEXT(),
        "positives": tfds.features.Sequence(_TEXT()),
        "negatives": tfds.features.Sequence(_TEXT()),
        "task": _TEXT(),
        "source": _TEXT(),
        "group": _TEXT(),
    },
    "classification": {"text": _TEXT(), "label": _TEXT(), "split": _TEXT()},
    "sts": {
        "text1": _TEXT(),
        "text2": _TEXT(),
        "score": tfds.features.Scalar(np.float32),
        "split": _TEXT(),
    },
    "pair_classification": {
        "text1": _TEXT(),
        "text2": _TEXT(),
        "label": tfds.features.Scalar(np.int64),
        "split": _TEXT(),
    },
}
_FEATURES["clustering"] = _FEATURES["classification"]


class PublicText(tfds.core.GeneratorBasedBuilder):
    """Builds the set that its config names.

    Args:
        origin_dir: a folder with the origin's files under their own names, or in the task layout;
            None: they are downloaded.
        **kwargs: of TFDS builders: config, data_dir.
    """

    name = BUILDER_NAME
    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in all_sets()]  # noqa: RUF012

    def __init__(self, *, origin_dir: str | Path | None = None, **kwargs: Any) -> None:
        self._origin_dir = None if origin_dir is None else Path(origin_dir)
        self.skipped: Counter[str] = Counter()
        super().__init__(file_format="array_record", **kwargs)

    @property
    def public(self) -> PublicSet:
        """What is known of the set."""
        return find_set(self.builder_config.name)  # pyright: ignore[reportOptionalMemberAccess]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.public.name} ({self.public.kind}): {self.public.instruction}",
            features=tfds.features.FeaturesDict(_FEATURES[self.public.kind]),
            homepage=self.public.origin,
            license=self.public.licence,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        public = self.public
        if self._origin_dir is not None:
            if not self._origin_dir.is_dir():
                raise FileNotFoundError(f"{self._origin_dir}: no such folder")
            folder = layout_folder(public, self._origin_dir)
            if folder is not None:
                return {
                    split: self._generate_examples(
                        split, partial(rows_of_layout, public, folder, split)
                    )
                    for split in splits_of_layout(public, folder)
                }
        if public.parse is None or (self._origin_dir is None and public.by_hand):
            raise FileNotFoundError(
                f"{public.name} cannot be downloaded ({public.by_hand}); get it from "
                f"{public.homepage} and pass its folder as origin_dir"
            )
        roots = [self._origin_dir] if self._origin_dir else self._download(dl_manager)
        return {
            split: self._generate_examples(split, partial(public.rows, split, files))
            for split, files in splits_of_origin(public, roots).items()
        }

    def _download(self, dl_manager: tfds.download.DownloadManager) -> list[Path]:
        """Downloads; returns a folder in which the files have the origin's names."""
        root = Path(dl_manager.download_dir) / "origins" / self.public.name
        for path, url in self.public.urls.items():
            try:
                file = Path(dl_manager.download(url)).absolute()
            except Exception as error:  # of any of the downloader's layers
                raise OSError(
                    f"{self.public.name}: {url} cannot be downloaded ({error}); fetch it by hand "
                    f"and pass its folder as origin_dir"
                ) from error
            if not path:
                unpack(file, root / "unpacked")
                continue
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).unlink(missing_ok=True)
            (root / path).symlink_to(file)
        return [root / "unpacked", root]

    def _generate_examples(
        self, split: str, rows: Callable[[], Iterator[Row]]
    ) -> Iterator[tuple[int, Row]]:
        number = 0
        for row in self._in_format(split, rows()):
            clean = (_clean_pair if self.public.kind == "pairs" else _clean_row)(row)
            if clean is None:
                self.skipped[split] += 1
                continue
            if self.public.kind == "pairs":
                clean |= {"task": self.public.instruction, "source": self.public.name}
            else:
                clean["split"] = split
            yield number, {key: clean[key] for key in _FEATURES[self.public.kind]}
            number += 1
        if not number:
            raise ValueError(f"{self.public.name}: no rows in the split {split!r} of its files")

    def _in_format(self, split: str, rows: Iterator[Row]) -> Iterator[Row]:
        try:
            yield from rows
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.public.name}: the files of the split {split!r} are not in the origin's "
                f"format ({type(error).__name__}: {error})"
            ) from error


def build(
    name: str, *, data_dir: str | Path | None = None, origin_dir: str | Path | None = None
) -> Path:
    """Builds a public set and returns its folder; one that is there already is left as it is.

    Args:
        name: as in the table of docs/data.md.
        data_dir: where sets are built; None: ~/tensorflow_datasets.
        origin_dir: as in `PublicText`.

    Raises:
        ValueError: an unknown name, or a file that is not in the origin's format.
        FileNotFoundError: a file is missing, or cannot be downloaded by a program.
    """
    public = find_set(name)
    builder = PublicText(
        config=public.name, data_dir=str(data_root(data_dir)), origin_dir=origin_dir
    )
    builder.download_and_prepare()
    return Path(builder.data_dir)


def _clean_pair(row: Row) -> Row | None:
    """The row without blank texts and false negatives; None where nothing is left to learn."""
    query = row["query"].strip()
    positives = [text for text in dict.fromkeys(row["positives"]) if text.strip()]
    positives = [text for text in positives if text.strip() != query]
    if not query or not positives:
        return None
    taken = {query, *(text.strip() for text in positives)}
    negatives = dict.fromkeys(row.get("negatives") or ())
    return {
        "query": query,
        "positives": positives,
        "negatives": [text for text in negatives if text.strip() and text.strip() not in taken],
        "group": row.get("group") or "",
    }


def _clean_row(row: Row) -> Row | None:
    """The row, or None where a text of it is blank."""
    texts = [row[key] for key in ("text", "text1", "text2", "label") if key in row]
    if any(isinstance(text, str) and not text.strip() for text in texts):
        return None
    return {**row, "label": str(row["label"])} if "text" in row else dict(row)
