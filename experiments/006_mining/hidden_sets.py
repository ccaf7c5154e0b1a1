"""Sets in which a query has several positives: one is published, the others are hidden from the
miner and counted when they come back as negatives.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """A query, the positive that the miner is told, and those that it is not told."""

    query: str
    published: str
    hidden: tuple[str, ...]


@dataclass(frozen=True)
class HiddenSet:
    """Cases and the pool they are mined from; the pool holds every text of the set."""

    name: str
    cases: list[Case]
    pool: list[str]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf8") as lines:
        for line in lines:
            yield json.loads(line)


def _groups(folder: Path, key: str) -> list[list[str]]:
    """Texts by a key of training pairs; all texts of a group are positives of each other."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows(folder / "pairs_train.jsonl.gz"):
        found[row[key]] |= dict.fromkeys((row["query"], row["positive"]))
    return [list(texts) for _, texts in sorted(found.items())]


def _of_groups(name: str, groups: list[list[str]], limit: int, seed: int) -> HiddenSet:
    draw = random.Random(seed)
    cases = []
    for texts in draw.sample(groups, len(groups)):
        if len(texts) >= 3 and len(cases) < limit:
            query, published, *hidden = draw.sample(texts, len(texts))
            cases.append(Case(query, published, tuple(hidden)))
    return HiddenSet(name, cases, [text for texts in groups for text in texts])


def captions(data: Path, limit: int, seed: int) -> HiddenSet:
    """Captions of one picture (flickr8k): usually four."""
    return _of_groups("captions", _groups(data / "flickr8k_captions", "image"), limit, seed)


def simplifications(data: Path, limit: int, seed: int) -> HiddenSet:
    """A sentence and its three simplifications (ASSET)."""
    groups = _groups(data / "asset_simplification", "group")
    return _of_groups("simplifications", groups, limit, seed)


def senses(data: Path, limit: int, seed: int) -> HiddenSet:
    """A word of WordNet and the definitions of its senses, three or more."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows(data / "wordnet_definitions" / "pairs_train.jsonl.gz"):
        found[row["query"]].append(row["positive"])
    draw, cases = random.Random(seed), []
    words = [word for word in sorted(found) if len(set(found[word])) >= 3]
    for word in draw.sample(words, min(limit, len(words))):
        published, *hidden = draw.sample(sorted(set(found[word])), len(set(found[word])))
        cases.append(Case(word, published, tuple(hidden)))
    few = [word for i, word in enumerate(sorted(found)) if i % 20 == 0]  # the same for every seed
    pool = dict.fromkeys(text for word in words + few for text in found[word])
    return HiddenSet("senses", cases, list(pool))


def intents(data: Path, limit: int, seed: int) -> HiddenSet:
    """Questions to a bank; all of one intent are positives of each other (Banking77, train)."""
    found: dict[Any, dict[str, None]] = defaultdict(dict)
    for row in rows(data / "banking77" / "classification.jsonl.gz"):
        if row["split"] == "train":
            found[row["label"]][row["text"]] = None
    draw = random.Random(seed)
    labelled = [(label, text) for label, texts in sorted(found.items()) for text in texts]
    cases = []
    for label, query in draw.sample(labelled, min(limit, len(labelled))):
        others = [text for text in found[label] if text != query]
        published = draw.choice(others)
        hidden = tuple(text for text in others if text != published)
        cases.append(Case(query, published, hidden))
    return HiddenSet("intents", cases, [text for _, text in labelled])


SETS = {
    "captions": captions,
    "simplifications": simplifications,
    "senses": senses,
    "intents": intents,
}
