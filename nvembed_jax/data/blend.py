"""The order of training: sources, weights and a seed make batches, a pure function of the step.

Nothing is replayed or skipped on resumption, and any process can ask for any rows of any step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax.data.examples import Example, ExampleSource
from nvembed_jax.data.sources import open_source

BATCHINGS = ("blended", "homogeneous")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One dataset of a stage.

    Attributes:
        data: what `data.sources.open_source` takes: a .jsonl(.gz), a folder, "tfds:NAME:SPLIT".
        weight: share of the batches, relative to the other sources; 0: its number of examples.
        task: task description of examples that have none; "": the source's own.
        tasks: one of them is drawn for each such example in place of `task`; "": none at all.
        symmetric: the instruction goes on both sides; None: as the source says.
        in_batch: passages of other examples are negatives; None: as the stage says.
        shots: in-context examples put before a query, at most (bge-en-icl): 0 to as many, drawn
            from the same source.
        limit: only the first rows; 0: all.
        labels: how classes become examples: "examples", "texts" or "auto" (`data/labels.py`).
        group_key: JSON key that marks rows that are positives of each other.
    """

    data: str
    weight: float = 0.0
    task: str = ""
    tasks: tuple[str, ...] = ()
    symmetric: bool | None = None
    in_batch: bool | None = None
    shots: int = 0
    limit: int = 0
    labels: str = "auto"
    group_key: str = "group"


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """What a stage reads, and how it becomes batches.

    Attributes:
        data: one source, in place of `sources`. sources: several, by name.
        batch_size: queries a step, over all devices. negatives: hard negatives a query, at most.
        batching: "blended": a batch mixes the sources; "homogeneous": every batch is of one.
        in_batch: default of the sources.
        query_length, passage_length: tokens kept.
        length_buckets: static lengths a batch is padded to, to a doubling; 0: always the longest.
        known_positives: ids kept of a query's known positives, so that none becomes a negative.
    """

    data: str = ""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    batch_size: int
    negatives: int = 7
    batching: str = "blended"
    in_batch: bool = True
    query_length: int = 512
    passage_length: int = 512
    length_buckets: int = 2
    known_positives: int = 8

    def __post_init__(self) -> None:
        if self.batching not in BATCHINGS:
            raise ValueError(
                f"batching must be one of {', '.join(BATCHINGS)}; got {self.batching!r}"
            )
        for name in ("batch_size", "query_length", "passage_length", "known_positives"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.negatives < 0 or self.length_buckets < 0:
            raise ValueError("negatives and length_buckets must not be negative")

    def named_sources(self) -> dict[str, SourceConfig]:
        """The sources that are read: `data` alone where it is given."""
        return {"data": SourceConfig(data=self.data)} if self.data else dict(self.sources)


class Row(NamedTuple):
    """One example of a batch, with what its source says of it."""

    example: Example
    source_id: int
    symmetric: bool
    in_batch: bool
    shots: tuple[Example, ...]
    rng: np.random.Generator


class Blend:
    """Batches of one stage by step number.

    Attributes:
        names: of the sources, by `Row.source_id`. sizes: their examples.
        fingerprint: of all data and settings that decide which rows a step gets.
    """

    def __init__(
        self,
        config: BlendConfig,
        seed: int,
        *,
        cache_dir: Path | None = None,
        opened: Mapping[str, ExampleSource] | None = None,
    ):
        """Opens the sources (bad rows stop here), or takes `opened` ones, by name."""
        configs = config.named_sources()
        if not configs:
            raise ValueError("no data: give `data` (a file or folder) or `sources`")
        self.config, self.seed = config, seed
        self.names, self._settings = list(configs), list(configs.values())
        self._sources: list[ExampleSource] = [
            opened[name] if opened else _open(source, config.negatives, cache_dir)
            for name, source in configs.items()
        ]
        self.sizes = [len(source) for source in self._sources]
        self._order = _order(config, self.sizes, [s.weight for s in self._settings], seed)
        facts = {
            "seed": seed,
            "batch_size": config.batch_size,
            "batching": config.batching,
            "sources": [
                {**asdict(s), "data": source.fingerprint}
                for s, source in zip(self._settings, self._sources, strict=True)
            ],
        }
        self.fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def rows(self, step: int, wanted: Sequence[int] | None = None) -> list[Row]:
        """The rows of a step's batch: all, or those of these numbers."""
        batch = self._order[step]
        return [self._row(*batch[i]) for i in (range(len(batch)) if wanted is None else wanted)]

    def _row(self, source_id: int, index: int, seed: int) -> Row:
        source, settings = self._sources[source_id], self._settings[source_id]
        rng = np.random.default_rng(seed)
        example = source.get(index, rng)
        if example.task is None:
            task = settings.task or source.task
            if settings.tasks:
                task = settings.tasks[int(rng.integers(len(settings.tasks)))]
            example = replace(example, task=task or None)
        shots = tuple(
            source.get(int(other), rng) for other in self._shot_indices(source_id, index, rng)
        )
        symmetric = source.symmetric if settings.symmetric is None else settings.symmetric
        in_batch = self.config.in_batch if settings.in_batch is None else settings.in_batch
        return Row(example, source_id, symmetric, in_batch, shots, rng)

    def _shot_indices(self, source_id: int, index: int, rng: np.random.Generator) -> list[int]:
        most = self._settings[source_id].shots
        if not most:
            return []
        drawn = rng.integers(self.sizes[source_id], size=rng.integers(most + 1))
        return [int(i) for i in drawn if i != index]


def _open(source: SourceConfig, negatives: int, cache_dir: Path | None) -> ExampleSource:
    return open_source(
        source.data,
        cache_dir=cache_dir,
        limit=source.limit or None,
        group_key=source.group_key,
        task=source.task or None,
        labels=source.labels,
        negatives=negatives,
    )


def _order(config: BlendConfig, sizes: Sequence[int], weights: Sequence[float], seed: int) -> Any:
    """A `grain.MapDataset` of batches of (source, index, seed of the row), without end."""
    import grain

    def shuffled(number: int, size: int) -> Any:
        base = grain.MapDataset.range(size).seed(_derived(seed, number)).shuffle().repeat()
        return base.random_map(lambda i, rng: (number, int(i), int(rng.integers(2**62))))

    parts = [shuffled(number, size) for number, size in enumerate(sizes)]
    shares = np.array([w or n for w, n in zip(weights, sizes, strict=True)], float)
    shares /= shares.sum()
    if config.batching == "homogeneous":
        parts = [part.batch(config.batch_size, batch_fn=list) for part in parts]
        return grain.MapDataset.mix(parts, shares)
    return grain.MapDataset.mix(parts, shares).batch(config.batch_size, batch_fn=list)


def _derived(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
