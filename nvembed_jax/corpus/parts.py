"""One part of a corpus: its texts (or their chunks) encoded and written, whole or not at all.

A part's batches depend on its texts and the settings alone, so it has the same bytes whoever
encodes it, and whenever.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nvembed_jax.corpus.manifest import Part, Plan, open_manifest
from nvembed_jax.corpus.source import BlockDigests, Source, joined
from nvembed_jax.data.records import Record
from nvembed_jax.data.writers import ROW_GROUP_BYTES, EmbeddingWriter, ParquetWriter, open_writer
from nvembed_jax.text.chunking import chunk_tokens

SUFFIXES = (".parquet", ".npy")
PASSAGES_AT_ONCE = 4096  # the same on every machine: it decides which texts share a batch


@dataclass(frozen=True, kw_only=True)
class CorpusJob:
    """What is encoded, how, and where to; it is sent to the processes that do it.

    Attributes:
        source: the texts. folder: of the parts.
        load: gives the model (an `Embedder`, or what has its calls).
        model_name: for people; "": the model's own.
        method: "encode", "encode_query" or "encode_document".
        options: of that method (plain types).
        half: embeddings are stored as float16.
        suffix: ".parquet" or ".npy". part_texts: None: by the size of the corpus.
        chunk_tokens: documents are cut into chunks of so many tokens (0: not), `overlap` of them
            shared by neighbours.
        shard_index, num_shards: every `num_shards`-th part, from `shard_index` on, is encoded.
    """

    source: Source
    folder: Path
    load: Callable[[], Any]
    model_name: str = ""
    method: str = "encode_document"
    options: Mapping[str, Any] = field(default_factory=dict)
    half: bool = False
    suffix: str = ".parquet"
    part_texts: int | None = None
    chunk_tokens: int = 0
    overlap: int = 0
    shard_index: int = 0
    num_shards: int = 1

    def __post_init__(self) -> None:
        if self.method not in ("encode", "encode_query", "encode_document"):
            raise ValueError(f"method must be one of the model's encode calls; got {self.method!r}")
        if self.suffix not in SUFFIXES:
            raise ValueError(f"parts are {' or '.join(SUFFIXES)}; got {self.suffix!r}")
        if self.chunk_tokens and self.suffix != ".parquet":
            raise ValueError("chunks need .parquet parts: .npy has no room for where they stand")
        if not 0 <= self.overlap < max(self.chunk_tokens, 1):
            raise ValueError(
                f"expected 0 <= overlap < chunk_tokens; got {self.overlap}, {self.chunk_tokens}"
            )
        if not 0 <= self.shard_index < self.num_shards:
            raise ValueError(
                f"expected 0 <= shard_index < num_shards; got {self.shard_index}, {self.num_shards}"
            )
        if self.part_texts is not None and self.part_texts < 1:
            raise ValueError(f"a part has at least one text; got part_texts={self.part_texts}")

    def settings(self) -> dict[str, Any]:
        """All but model and texts that decides the bytes of a part, as plain types."""
        options = {name: value for name, value in self.options.items() if value is not None}
        return {
            "method": self.method,
            "options": options,
            "half": self.half,
            "format": self.suffix.removeprefix("."),
            "chunk_tokens": self.chunk_tokens,
            "overlap": self.overlap,
            "passages_at_once": PASSAGES_AT_ONCE,
        }

    def pending(self, plan: Plan) -> list[int]:
        """Numbers of the parts that are this shard's and not there yet."""
        own = plan.parts[self.shard_index :: self.num_shards]
        return [part.number for part in own if not (self.folder / part.name).exists()]


class TextChunk(NamedTuple):
    """What is embedded: characters start..end of text `id`, its `chunk`-th piece."""

    id: str
    text: str
    chunk: int
    start: int
    end: int


class PartEncoder:
    """Encodes parts of a job, one after the other; loads the model and opens the manifest.

    Raises:
        ValueError: the folder was begun with another model, input or settings.
    """

    def __init__(self, job: CorpusJob, plan: Plan) -> None:
        self._job, self._plan = job, plan
        self._model = job.load()
        limit = getattr(self._model, "max_length", None)
        if job.chunk_tokens and limit is None:
            raise ValueError("chunks are cut by the model's tokens, and this model shows none")
        if job.chunk_tokens > (limit or 0) > 0:
            raise ValueError(
                f"chunks of {job.chunk_tokens} tokens are longer than the {limit} tokens that the "
                f"model reads"
            )
        name = job.model_name or self._model.config.name
        model = {"name": name, "fingerprint": self._model.fingerprint}
        open_manifest(job.folder, plan, model, job.settings())
        self._stream = _Stream(job.source)

    def encode(self, number: int, on_texts: Callable[[int], Any] = lambda texts: None) -> int:
        """Encodes part `number` unless it is there; returns how many texts it encoded.

        Args:
            on_texts: called with the number of texts that were encoded since the last call.

        Raises:
            ValueError: the input is not what it was when the plan was made.
        """
        part = self._plan.parts[number]
        path = self._job.folder / part.name
        if path.exists():
            return 0
        digests = BlockDigests(self._plan.block)
        with self._writer(path) as writer:
            passages, told = self._passages(part, digests), 0
            while block := list(itertools.islice(passages, PASSAGES_AT_ONCE)):
                embeddings = self._embeddings([passage.text for passage in block])
                if isinstance(writer, ChunkWriter):
                    writer.write_chunks(block, embeddings)
                else:
                    writer.write([passage.id for passage in block], embeddings)
                on_texts(digests.count - told)
                told = digests.count
            if digests.count != part.texts or joined(digests.digests()) != part.digest:
                raise ValueError(
                    f"{self._job.source.path}: texts {part.first} to {part.first + part.texts - 1} "
                    f"changed while the corpus was encoded; name another folder for the new texts"
                )
        return part.texts

    def _embeddings(self, texts: list[str]) -> np.ndarray:
        encode = getattr(self._model, self._job.method)
        embeddings = encode(texts, show_progress_bar=False, **self._job.options)
        return embeddings.astype(np.float16) if self._job.half else embeddings

    def _passages(self, part: Part, digests: BlockDigests) -> Iterator[TextChunk]:
        size = self._job.chunk_tokens
        for record in self._stream.part(part):
            digests.add(record)
            text = record.full_text
            if not size:
                yield TextChunk(record.id, text, 0, 0, len(text))
                continue
            chunks = chunk_tokens(self._model.tokenizer, text, size, self._job.overlap)
            for number, chunk in enumerate(chunks):
                yield TextChunk(record.id, chunk.text, number, chunk.start, chunk.end)

    def _writer(self, path: Path) -> EmbeddingWriter:
        return ChunkWriter(path) if self._job.chunk_tokens else open_writer(path)


class ChunkWriter(ParquetWriter):
    """Columns id, chunk, start, end (characters of the text) and embedding."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._chunks: list[TextChunk] = []

    def write_chunks(self, chunks: Sequence[TextChunk], embeddings: np.ndarray) -> None:
        """Appends chunks with their embeddings [N, D]."""
        self._chunks += chunks
        self.write([chunk.id for chunk in chunks], embeddings)

    def _begin(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert self._dtype is not None
        assert self._width is not None
        numbers = [(name, pa.int32()) for name in ("chunk", "start", "end")]
        values = pa.list_(pa.from_numpy_dtype(self._dtype), self._width)
        self._schema = pa.schema([("id", pa.string()), *numbers, ("embedding", values)])
        self._file = pq.ParquetWriter(self._pending[0].file, self._schema, compression="zstd")
        self._group = max(1, ROW_GROUP_BYTES // (self._width * self._dtype.itemsize))

    def _flush(self) -> None:
        import pyarrow as pa

        flat = np.concatenate(self._blocks).reshape(-1)
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(flat), self._width)
        numbers = [
            pa.array([getattr(chunk, name) for chunk in self._chunks], pa.int32())
            for name in ("chunk", "start", "end")
        ]
        columns = [pa.array(self._ids, pa.string()), *numbers, embeddings]
        self._file.write_table(pa.table(columns, schema=self._schema))
        self._ids, self._blocks, self._chunks = [], [], []


class _Stream:
    """Parts of a source: reads on, or from the start again where it has to go back."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._records: Iterator[Record] = iter(())
        self._at: int | None = None

    def part(self, part: Part) -> Iterator[Record]:
        """The records of a part."""
        if self._at is None or part.first < self._at:
            self._records, self._at = self._source.records(), 0
        for record in itertools.islice(self._records, part.first + part.texts - self._at):
            self._at += 1
            if self._at > part.first:
                yield record
