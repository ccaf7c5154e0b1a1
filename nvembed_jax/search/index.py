"""An index folder: passages and their embeddings on disk, made once, searched exactly.

embeddings.npy (memory mapped), passages.jsonl {id, text}, offsets.npy (where each line starts),
bm25/ (made by the first hybrid search) and meta.json: model, settings and corpus that it stands
for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from nvembed_jax.checkpoint.atomic import atomic_folder
from nvembed_jax.data.records import Record
from nvembed_jax.data.writers import EmbeddingWriter, NpyWriter
from nvembed_jax.search.hybrid import Bm25, fuse
from nvembed_jax.search.topk import all_scores, top_k

FORMAT_VERSION = 1
META = "meta.json"


class Passage(NamedTuple):
    """What is embedded: a whole text, or one chunk of it; `id` is the text's."""

    id: str
    text: str


class Hit(NamedTuple):
    """One result: the best passage of a text."""

    rank: int
    score: float
    id: str
    text: str


@runtime_checkable
class PassageEncoder(Protocol):
    """What the index needs of a model; an `Embedder` has it."""

    @property
    def fingerprint(self) -> str: ...

    def encode_document(self, inputs: Sequence[str], **kwargs: Any) -> np.ndarray: ...


def whole_text(record: Record) -> list[Passage]:
    """The split that does not split; a text without any characters is not worth finding."""
    return [Passage(record.id, record.full_text)] if record.full_text.strip() else []


@dataclass(frozen=True, kw_only=True)
class IndexRequest:
    """The index that is wanted.

    Attributes:
        records: gives the corpus from its start, each time it is called. digest: of that corpus.
        model: encodes the passages. model_name: for messages only.
        split: cuts a record into passages. settings: what `split` and the encoding depend on (plain
            types).
        encoding: further options of `model.encode_document`.
        block: passages encoded at once. progress: called with the number of texts done.
    """

    records: Callable[[], Iterable[Record]]
    digest: str
    model: PassageEncoder
    model_name: str
    split: Callable[[Record], Iterable[Passage]] = whole_text
    settings: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    block: int = 1024
    progress: Callable[[int], Any] = lambda done: None


class SearchIndex:
    """Passages and their embeddings, ready to search; from `open_index` or `build_index`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = read_meta(folder)
        self.embeddings: Float[np.ndarray, "P D"] = np.load(
            folder / "embeddings.npy", mmap_mode="r"
        )
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        self._bm25: Bm25 | None = None
        if (
            len(self.embeddings) != len(self._offsets)
            or len(self._offsets) != self.meta["passages"]
        ):
            raise ValueError(
                f"{folder}: {len(self.embeddings)} embeddings for "
                f"{self.meta['passages']} passages: the index is damaged: delete the folder"
            )

    @property
    def num_documents(self) -> int:
        """Texts in it, however many passages each has."""
        return self.meta["documents"]

    def passage(self, row: int) -> Passage:
        """The passage that embedding `row` stands for."""
        with (self.folder / "passages.jsonl").open("rb") as file:
            file.seek(int(self._offsets[row]))
            data = json.loads(file.readline())
        return Passage(data["id"], data["text"])

    def passages(self) -> Iterator[Passage]:
        """All passages in order."""
        with (self.folder / "passages.jsonl").open(encoding="utf-8", newline="\n") as file:
            for line in file:
                data = json.loads(line)
                yield Passage(data["id"], data["text"])

    def search(self, queries: Float[np.ndarray, "Q D"], k: int) -> list[list[Hit]]:
        """The k best texts of each query by the embeddings; a text scores as its best passage.

        Raises:
            ValueError: k is not in 1..num_documents, or an embedding holds NaN.
        """
        self._check_k(k)
        depth = k  # passages looked at; more where one text has several of the best
        while True:
            scores, rows = top_k(queries, self.embeddings, depth)
            hits = [self._best_texts(s, r, k) for s, r in zip(scores, rows, strict=True)]
            if depth == len(self.embeddings) or all(len(found) == k for found in hits):
                return hits
            depth = min(4 * depth, len(self.embeddings))

    def search_hybrid(
        self, queries: Float[np.ndarray, "Q D"], texts: Sequence[str], k: int
    ) -> list[list[Hit]]:
        """The k best texts of each query by embeddings and BM25; `score` is the fused one."""
        self._check_k(k)
        lexical = self._lexical()
        hits = []
        for query, text in zip(queries, texts, strict=True):
            fused = fuse(all_scores(query, self.embeddings), lexical.scores(text))
            rows = np.argsort(-fused, kind="stable")
            hits.append(self._best_texts(fused[rows], rows, k))
        return hits

    def _check_k(self, k: int) -> None:
        if not 1 <= k <= self.num_documents:
            raise ValueError(f"k must be 1 to {self.num_documents}, the number of texts; got {k}")

    def _best_texts(
        self, scores: Float[np.ndarray, " N"], rows: Int[np.ndarray, " N"], k: int
    ) -> list[Hit]:
        hits: dict[str, Hit] = {}
        for score, row in zip(scores, rows, strict=True):
            if len(hits) == k:
                break
            passage = self.passage(int(row))
            hits.setdefault(passage.id, Hit(len(hits) + 1, float(score), passage.id, passage.text))
        return list(hits.values())

    def _lexical(self) -> Bm25:
        if self._bm25 is None:
            folder = self.folder / "bm25"
            if folder.exists():
                self._bm25 = Bm25.load(folder, len(self.embeddings))
            else:
                self._bm25 = Bm25.build(passage.text for passage in self.passages())
                self._bm25.save(folder)
        return self._bm25


def open_index(folder: Path, request: IndexRequest) -> tuple[SearchIndex, str]:
    """The index in `folder`, made anew unless it stands for this corpus under these settings.

    Returns:
        The index, and why it was made ("" where it was only loaded).

    Raises:
        ValueError: the folder was made with another model, or holds something that is no index.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; expected an index folder, or a name that is free")
    if not folder.exists() or not any(folder.iterdir()):
        return build_index(folder, request), "new"
    meta = read_meta(folder)
    made = meta["model"]
    if made["fingerprint"] != request.model.fingerprint:
        raise ValueError(
            f"{folder}: was made with model {made['name']} ({made['fingerprint']}), not with "
            f"{request.model_name} ({request.model.fingerprint}); search with the former, or name "
            f"another index folder"
        )
    if meta["settings"] != dict(request.settings):
        return build_index(folder, request), "the settings changed"
    if meta["corpus"] != request.digest:
        return build_index(folder, request), "the corpus changed"
    return SearchIndex(folder), ""


def build_index(folder: Path, request: IndexRequest) -> SearchIndex:
    """Encodes the corpus into `folder`, which appears (or is replaced) only when it is complete."""
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"{folder}: cannot be made, there is no folder {folder.parent}")
    with atomic_folder(folder, overwrite=True) as part:
        counts = _write_passages(part, request)
        meta = {
            "format_version": FORMAT_VERSION,
            "model": {"name": request.model_name, "fingerprint": request.model.fingerprint},
            "settings": dict(request.settings),
            "corpus": request.digest,
            **counts,
        }
        (part / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return SearchIndex(folder)


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of an index folder; a ValueError where it is none of ours."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        version = meta["format_version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{folder}: is not an index folder (no readable {META}); name another, or an empty one"
        ) from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder}: index format {version}; this version reads {FORMAT_VERSION}: make it anew"
        )
    return meta


def _write_passages(part: Path, request: IndexRequest) -> dict[str, int]:
    documents, seen, offset = 0, 0, 0
    offsets: list[int] = []
    pending: list[Passage] = []
    with (
        NpyWriter(part / "embeddings.npy", with_ids=False) as writer,
        (part / "passages.jsonl").open("wb") as file,
    ):
        for record in request.records():
            passages = list(request.split(record))
            for passage in passages:
                offsets.append(offset)
                line = json.dumps(passage._asdict(), ensure_ascii=False) + "\n"
                offset += file.write(line.encode())
            pending += passages
            documents += bool(passages)
            seen += 1
            if len(pending) >= request.block:
                _encode_into(writer, pending, request, seen)
        if not offsets:
            raise ValueError("every text of the corpus is empty; there is nothing to search")
        if pending:
            _encode_into(writer, pending, request, seen)
    np.save(part / "offsets.npy", np.array(offsets, np.int64))
    return {"documents": documents, "passages": len(offsets)}


def _encode_into(
    writer: EmbeddingWriter, pending: list[Passage], request: IndexRequest, done: int
) -> None:
    embeddings = request.model.encode_document(
        [passage.text for passage in pending], **request.encoding
    )
    writer.write([passage.id for passage in pending], np.asarray(embeddings, np.float32))
    pending.clear()
    request.progress(done)
