"""Labelled texts -> training examples (NV-Embed paper, section 4): example-based, or label texts.

The positive of a text is another text of its class and its negatives are texts of other classes,
drawn anew at each `get`; binary sets may use the labels' own words instead. Texts stay on the disk.
"""

from __future__ import annotations

import difflib
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nvembed_jax.data.example_rows import Example, check_text, kind_of
from nvembed_jax.data.examples import extended_fingerprint
from nvembed_jax.data.row_file import Keep, Rows

TRAIN_SPLIT = "train"
OpenRows = Callable[[Keep], Rows]


class SplitFilter:
    """Tells training rows from others: `split` must be "train"; rows without one are refused.

    Rows without splits are what a set is evaluated on, unless the caller says that it is not.
    """

    def __init__(self, allow_evaluation: bool) -> None:
        self._allow_evaluation = allow_evaluation
        self.seen: Counter[str] = Counter()

    def is_train(self, row: Any, where: str) -> bool:
        """Whether a row may be trained on; ValueError for one that is no object, or no split."""
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a JSON {kind_of(row)}; expected an object")
        split = row.get("split")
        if split is None:
            if self._allow_evaluation:
                return True
            raise ValueError(
                f"{where}: the row has no 'split': an evaluation set, not to be trained on; pass "
                f"allow_evaluation=True if it is nowhere evaluated on"
            )
        self.seen[str(split)] += 1
        return split == TRAIN_SPLIT

    def refuse_empty(self, name: str, wanted: str) -> None:
        """Raises for a set that gave no example."""
        there = ", ".join(sorted(self.seen)) or "none"
        raise ValueError(f"{name}: {wanted} in the split {TRAIN_SPLIT!r}; splits there: {there}")


class LabelledTexts:
    """Classification or clustering rows {text, label, split} as an `ExampleSource`.

    A text that stands twice with one label counts once. Never is a text its own positive, and a
    negative has none of the labels of the query or of the positive, wherever else it stands.
    Classes of one text have no positive: they are passed over as queries and counted in `skipped`.
    In memory stand a few numbers a text.

    Args:
        open_rows: opens the rows, given what to keep.
        name: of the set; with the label it is the `group` of an example.
        task: task description of all examples.
        negatives: how many an example gets, from different classes while there are enough.
        labels: "examples", "texts" (the positive is the label's text, the negatives other labels'),
            or "auto": texts for two classes, else examples.
        label_texts: label -> its text; None: the label itself, with spaces for underscores.
        allow_evaluation: also use rows without a split.
    """

    symmetric = True

    def __init__(
        self,
        open_rows: OpenRows,
        *,
        name: str,
        task: str | None = None,
        negatives: int = 7,
        labels: str = "auto",
        label_texts: Mapping[str, str] | None = None,
        allow_evaluation: bool = False,
    ) -> None:
        if labels not in ("auto", "examples", "texts"):
            raise ValueError(f"labels must be 'auto', 'examples' or 'texts'; got {labels!r}")
        if negatives < 0:
            raise ValueError(f"negatives must be 0 or more; got {negatives}")
        self.name, self.task, self._count = name, task, negatives
        self.skipped: dict[str, int] = {}
        self._rows, classes, codes, hashes = _scan(open_rows, SplitFilter(allow_evaluation), name)
        self._classes, self._codes, self._hashes = classes, codes, hashes
        if labels == "auto":
            labels = "texts" if len(classes) == 2 else "examples"
        self.labels = labels
        self._index_classes()
        self._label_texts: list[str] = []
        if labels == "texts":
            self._label_texts = _texts_of_labels(classes, label_texts, name)
        self.fingerprint = extended_fingerprint(
            self._rows.fingerprint,
            name=name, task=task, negatives=negatives, labels=labels, texts=self._label_texts,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._queries)

    def get(self, index: int, rng: np.random.Generator) -> Example:
        """Example `index` with positive and negatives drawn from `rng`."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no example {index}; there are {len(self)}")
        row = int(self._queries[index])
        code = int(self._codes[row])
        if self.labels == "texts":
            others = rng.permutation(len(self._classes) - 1)[: self._count]
            positives = self._label_texts[code]
            negatives = [self._label_texts[int(other + (other >= code))] for other in others]
        else:
            positive = self._draw_positive(row, code, rng)
            avoid = self._labels_of(row) | self._labels_of(positive)
            positives = self._text(positive)
            negatives = [self._text(i) for i in self._draw_negatives(avoid, rng)]
        return Example(
            query=self._text(row),
            positives=(positives,),
            negatives=tuple(negatives),
            task=self.task,
            source=self.name,
            group=f"{self.name}/{self._classes[code]}",
        )

    def _text(self, row: int) -> str:
        return self._rows[row]["text"]

    def _index_classes(self) -> None:
        codes, hashes, count = self._codes, self._hashes, len(self._classes)
        if count < 2:
            raise ValueError(f"{self.name}: one class only ({self._classes[0]!r}); expected more")
        by_text = np.lexsort((codes, hashes))  # stable: of equal rows the first stands first
        same_text = hashes[by_text][1:] == hashes[by_text][:-1]
        same_row = same_text & (codes[by_text][1:] == codes[by_text][:-1])
        repeated, several = np.zeros(len(codes), bool), np.zeros(len(codes), bool)
        repeated[by_text[1:][same_row]] = True
        other_label = hashes[by_text][1:][same_text & ~same_row]
        several[np.isin(hashes, other_label)] = True
        self._several: dict[int, set[int]] = {}  # hash of a text -> its labels, if more than one
        for row in np.flatnonzero(several):
            self._several.setdefault(int(hashes[row]), set()).add(int(codes[row]))
        self._members = _grouped(codes, np.flatnonzero(~repeated), count)
        # A text with several labels is never a negative: it may be a positive of the query.
        self._pure = _grouped(codes, np.flatnonzero(~repeated & ~several), count)
        self._negative_classes = np.flatnonzero([len(rows) > 0 for rows in self._pure])
        alone = np.array([len(rows) == 1 for rows in self._members])[codes] & ~repeated
        unused = repeated | (several if self.labels == "texts" else alone)
        self._queries = np.flatnonzero(~unused).astype(np.int32)
        self.skipped["repeated"] = int(repeated.sum())
        if self.labels == "texts":
            self.skipped["several labels"] = int((several & ~repeated).sum())
        else:
            self.skipped["alone in their class"] = int(alone.sum())
        if not len(self._queries):
            raise ValueError(f"{self.name}: no class has two different texts; nothing to learn")

    def _labels_of(self, row: int) -> set[int]:
        return self._several.get(int(self._hashes[row]), {int(self._codes[row])})

    def _draw_positive(self, row: int, code: int, rng: np.random.Generator) -> int:
        members = self._members[code]
        own = int(np.searchsorted(members, row))
        other = int(rng.integers(len(members) - 1))
        return int(members[other + (other >= own)])

    def _draw_negatives(self, avoid: set[int], rng: np.random.Generator) -> list[int]:
        """Rows in turn from classes in random order, none twice; fewer where there are no more."""
        classes = self._negative_classes[~np.isin(self._negative_classes, list(avoid))]
        wanted = min(self._count, len(classes))
        if not wanted:
            return []
        chosen = rng.choice(classes, wanted, replace=False)
        each = 1 if len(classes) >= self._count else self._count
        drawn = [
            rng.choice(rows, min(each, len(rows)), replace=False)
            for rows in (self._pure[code] for code in chosen)
        ]
        turns = [int(rows[turn]) for turn in range(each) for rows in drawn if turn < len(rows)]
        return turns[: self._count]


def _scan(
    open_rows: OpenRows, splits: SplitFilter, name: str
) -> tuple[Rows, list[str], np.ndarray, np.ndarray]:
    """Rows kept, their class names, and a class number and a hash of the text for each row."""
    numbers: dict[str, int] = {}
    codes, hashes = array("i"), array("q")

    def keep(row: Any, where: str) -> bool:
        if not splits.is_train(row, where):
            return False
        text, label = check_text(row, "text", where), _label(row, where)
        codes.append(numbers.setdefault(label, len(numbers)))
        hashes.append(_hash(text))
        return True

    rows = open_rows(keep)
    if not len(rows):
        splits.refuse_empty(name, "no labelled text")
    return rows, list(numbers), np.array(codes, np.int32), np.array(hashes, np.int64)


def _label(row: dict[str, Any], where: str) -> str:
    label = row.get("label")
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        there = "nothing" if label is None else repr(label)
        raise ValueError(f"{where}: 'label' holds {there}; expected a string or a whole number")
    return str(label)


def _hash(text: str) -> int:
    # Eight bytes: among ten million texts the chance that any two clash is 3e-6, and a clash only
    # takes a text out of use.
    digest = hashlib.blake2b(text.strip().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _grouped(codes: np.ndarray, rows: np.ndarray, count: int) -> list[np.ndarray]:
    """The rows of every class, ascending."""
    order = rows[np.argsort(codes[rows], kind="stable")].astype(np.int32)
    ends = np.cumsum(np.bincount(codes[rows], minlength=count))
    return np.split(order, ends[:-1])


def _texts_of_labels(
    classes: Sequence[str], given: Mapping[str, str] | None, name: str
) -> list[str]:
    """A text for every class, all different."""
    for label in given or ():
        if label not in classes:
            near = difflib.get_close_matches(label, classes, n=1, cutoff=0)
            raise ValueError(f"{name}: label_texts names {label!r}; did you mean {near[0]!r}?")
    texts = []
    for label in classes:
        if given is not None and label not in given:
            raise ValueError(f"{name}: label_texts has no text for the label {label!r}")
        text = label.replace("_", " ").strip() if given is None else given[label].strip()
        if given is None and not any(character.isalpha() for character in text):
            raise ValueError(
                f"{name}: the label {label!r} says nothing as a text; pass label_texts="
                f'{{{label!r}: "its meaning", ...}}, or labels="examples"'
            )
        if not text or text in texts:
            raise ValueError(f"{name}: the label text {text!r} is blank or stands for two labels")
        texts.append(text)
    return texts
