"""Batches on the devices: rows of a step drawn and tokenised ahead in threads, padded to a static
shape, each process reading only the rows that its devices hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from nvembed_jax.batch import ContrastiveBatch, TokenBatch
from nvembed_jax.data.blend import Blend
from nvembed_jax.data.collate import Collated, Collator
from nvembed_jax.sharding import batch_sharding, batch_shards
from nvembed_jax.text.packing import TokenArrays, first_fit_decreasing, pack_as_planned

Teacher = Callable[[list[str], list[str]], np.ndarray]  # (prefixes, texts) -> unit vectors [N, E]
PREFETCH = 4  # steps


class Fed(NamedTuple):
    """One step's input: the batch, and its real tokens over all processes."""

    batch: Any
    tokens: int


class Feed:
    """Batches of one stage, from any step on.

    Args:
        teacher: embeds the texts of a batch for distillation; None: no teacher.
    """

    def __init__(self, blend: Blend, collator: Collator, mesh: Any, teacher: Teacher | None = None):
        shards = batch_shards(mesh)
        if blend.config.batch_size % shards:
            raise ValueError(
                f"batch_size {blend.config.batch_size} does not split over the {shards} devices of "
                f"the mesh; use a multiple of {shards}"
            )
        self.blend, self.collator, self.mesh, self.teacher = blend, collator, mesh, teacher
        self.local_rows = _local_rows(mesh, blend.config.batch_size)

    def batches(self, start: int) -> Iterator[Fed]:
        """Batches of steps `start`, `start` + 1, ... without end; a few are made ready ahead."""
        import grain

        steps = grain.MapDataset.range(start, np.iinfo(np.int64).max)
        ahead = steps.map(lambda step: self.collated(int(step)))
        for collated in ahead.to_iter_dataset(grain.ReadOptions(2, PREFETCH)):
            yield self.place(collated)

    def collated(self, step: int) -> Collated:
        """The local rows of a step, tokenised; a pure function of the step."""
        return self.collator(self.blend.rows(step, self.local_rows))

    def place(self, collated: Collated) -> Fed:
        """Pads to a shape that all processes agree on, and lays the batch out on the mesh."""
        needs = _agreed(self.collator.needs(collated))
        arrays = self.collator.arrays(collated, needs)
        if self.teacher is not None:
            arrays |= self._taught(collated, needs[2])
        count = self.blend.config.batch_size
        per_row = {"passages": needs[2], "teacher_passages": needs[2]}
        fields = {
            name: _globally(value, self.mesh, count * per_row.get(name, 1), self.local_rows)
            for name, value in arrays.items()
        }
        tokens = int(sum(arrays[name].attention_mask.sum() for name in ("queries", "passages")))
        fields |= {name: TokenBatch(*fields[name]) for name in ("queries", "passages")}
        return Fed(ContrastiveBatch(**fields), _total(tokens))

    def _taught(self, collated: Collated, per_row: int) -> dict[str, np.ndarray]:
        texts = collated.texts
        assert self.teacher is not None
        queries = self.teacher([t.query_prefix for t in texts], [t.query for t in texts])
        flat = [(t.passage_prefix, passage) for t in texts for passage in t.passages]
        vectors = self.teacher([prefix for prefix, _ in flat], [passage for _, passage in flat])
        passages = np.zeros((len(texts) * per_row, vectors.shape[1]), np.float32)
        sizes = [len(t.passages) for t in texts]
        slots = [i * per_row + j for i, size in enumerate(sizes) for j in range(size)]
        passages[slots] = vectors
        return {"teacher_queries": queries.astype(np.float32), "teacher_passages": passages}


class TextFeed(Feed):
    """Batches for next-token prediction: all texts of the examples, packed into full rows."""

    def place(self, collated: Collated) -> Fed:
        """Packs the texts into rows of the stage's passage length."""
        encoded = [*collated.queries, *(e for row in collated.passages for e in row)]
        length, shards = self.collator.config.passage_length, batch_shards(self.mesh)
        if jax.process_count() > 1:
            raise ValueError("causal_lm trains in one process; use contrastive stages on several")
        sizes = np.asarray([len(e.input_ids) for e in encoded])
        row, start = first_fit_decreasing(sizes, length)
        step = int(np.lcm(8, shards))
        rows = -(-(int(row.max()) + 1) // step) * step
        pad_id = self.collator.tokenizer.pad_id
        arrays = pack_as_planned(encoded, row, start, length, rows, pad_id)
        tokens = int(arrays.attention_mask.sum())
        batch = TokenBatch(*jax.device_put(arrays[:5], batch_sharding(self.mesh)), num_texts=None)
        return Fed(batch, tokens)


def _local_rows(mesh: Any, count: int) -> list[int]:
    """Rows of a batch that the devices of this process hold, in order."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    held = {i for index in slices if index is not None for i in range(*index[0].indices(count))}
    return sorted(held)


def _globally(value: Any, mesh: Any, count: int, local: list[int]) -> Any:
    """A host array of the local rows as one array over the mesh; tuples of arrays likewise."""
    if isinstance(value, TokenArrays):
        return tuple(
            None if part is None else _globally(part, mesh, count, local) for part in value
        )
    sharding, shape = batch_sharding(mesh), (count, *value.shape[1:])
    if len(value) == count:
        return jax.device_put(value, sharding)
    per_row = len(value) // len(local)
    position = {row: i for i, row in enumerate(local)}

    def rows(index: Any) -> np.ndarray:
        begin, end, _ = index[0].indices(count)
        first = position[begin // per_row] * per_row
        return value[first : first + end - begin]

    return jax.make_array_from_callback(shape, sharding, rows)


def _agreed(needs: tuple[int, int, int]) -> tuple[int, int, int]:
    """The largest shape that any process needs."""
    if jax.process_count() == 1:
        return needs
    from jax.experimental import multihost_utils

    largest = multihost_utils.process_allgather(np.asarray(needs, np.int32)).max(axis=0)
    return int(largest[0]), int(largest[1]), int(largest[2])


def _total(tokens: int) -> int:
    if jax.process_count() == 1:
        return tokens
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.asarray(tokens, np.int32)).sum())
