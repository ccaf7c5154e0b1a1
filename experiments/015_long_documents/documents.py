"""Long documents made of the passages of a retrieval task, and their chunks with judgements."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nvembed_jax.config import TextConfig
from nvembed_jax.data.records import Record, read_records
from nvembed_jax.data.row_file import row_writer
from nvembed_jax.eval.task_files import Retrieval
from nvembed_jax.eval.tasks import Task
from nvembed_jax.text.chunking import chunk_tokens
from nvembed_jax.text.tokenizer import Tokenizer

SEPARATOR = "\n\n"
Grades = dict[str, int]


class Span(NamedTuple):
    """Where a passage stands in its document, in characters."""

    passage: str
    start: int
    end: int


class Document(NamedTuple):
    """Passages one after another."""

    id: str
    text: str
    spans: list[Span]


class Piece(NamedTuple):
    """A chunk of a document."""

    id: str
    document: int
    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class LongTask:
    """Queries over long documents.

    grades: of documents, by query. piece_grades: of their chunks.
    """

    name: str
    instruction: str
    queries: list[str]
    documents: list[Document]
    pieces: list[Piece]
    grades: list[Grades]
    piece_grades: list[Grades]


def make_task(
    task: Task, words: int, queries: int, passages: int, seed: int, chunk: tuple[int, int]
) -> LongTask:
    """Draws queries and passages (all relevant ones, then others), shuffles the passages, joins
    them to documents of at least `words` words, and cuts those into chunks.

    Args:
        chunk: tokens, and tokens of overlap, of the packaged tokenizer, so that every model has
            the same chunks.
    """
    data, rng = task.data, random.Random(seed)
    assert isinstance(data, Retrieval)
    judged = [i for i, q in enumerate(data.query_ids) if any(_relevant(data, q))]
    rng.shuffle(judged)
    chosen = sorted(judged[:queries])
    wanted = {p for i in chosen for p in _relevant(data, data.query_ids[i])}
    others = [p for p in data.corpus_ids if p not in wanted]
    kept = wanted | set(rng.sample(others, min(len(others), max(0, passages - len(wanted)))))
    records = [record for record in read_records(data.corpus) if record.id in kept]
    rng.shuffle(records)
    documents = list(join(records, words))
    pieces = cut(documents, Tokenizer.packaged(TextConfig()), *chunk)
    relevant = [{p: g for p, g in data.qrels[data.query_ids[i]].items() if g > 0} for i in chosen]
    return LongTask(
        name=task.name,
        instruction=task.instruction,
        queries=[data.queries[i] for i in chosen],
        documents=documents,
        pieces=pieces,
        grades=[document_grades(documents, grades) for grades in relevant],
        piece_grades=[piece_grades(documents, pieces, grades) for grades in relevant],
    )


def join(records: Iterable[Record], words: int) -> Iterable[Document]:
    """Documents of whole passages; each but the last has at least `words` words."""
    text, spans, count = "", [], 0
    number = 0
    for record in records:
        start = len(text) + (len(SEPARATOR) if text else 0)
        text = text + (SEPARATOR if text else "") + record.full_text
        spans.append(Span(record.id, start, len(text)))
        count += len(record.full_text.split())
        if count >= words:
            yield Document(f"doc-{number}", text, spans)
            text, spans, count, number = "", [], 0, number + 1
    if spans:
        yield Document(f"doc-{number}", text, spans)


def cut(documents: list[Document], tokenizer: Tokenizer, tokens: int, overlap: int) -> list[Piece]:
    """The chunks of all documents, in their order."""
    pieces = []
    for row, document in enumerate(documents):
        for number, chunk in enumerate(chunk_tokens(tokenizer, document.text, tokens, overlap)):
            pieces.append(Piece(f"{document.id}-{number}", row, chunk.text, chunk.start, chunk.end))
    return pieces


def document_grades(documents: list[Document], relevant: Grades) -> Grades:
    """A document has the highest grade of its passages."""
    grades: Grades = {}
    for document in documents:
        found = [relevant[span.passage] for span in document.spans if span.passage in relevant]
        if found:
            grades[document.id] = max(found)
    return grades


def piece_grades(documents: list[Document], pieces: list[Piece], relevant: Grades) -> Grades:
    """A chunk is relevant that shares at least half of itself, or of a relevant passage."""
    grades: Grades = {}
    first = [piece.document for piece in pieces]
    for row, document in enumerate(documents):
        for span in document.spans:
            if span.passage not in relevant:
                continue
            for piece in pieces[bisect_right(first, row - 1) : bisect_right(first, row)]:
                shared = min(span.end, piece.end) - max(span.start, piece.start)
                if 2 * shared >= min(span.end - span.start, piece.end - piece.start) > 0:
                    grades[piece.id] = max(relevant[span.passage], grades.get(piece.id, 0))
    return grades


def write_air_bench_form(task: LongTask, folder: Path) -> None:
    """A task folder as AIR-Bench's long-document sets have it: the chunks are the corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    with row_writer(folder / "corpus.jsonl.gz") as write:
        for piece in task.pieces:
            write({"_id": piece.id, "title": "", "text": piece.text})
    with row_writer(folder / "queries.jsonl.gz") as write:
        for i, query in enumerate(task.queries):
            write({"_id": f"q-{i}", "text": query})
    rows = [
        f"q-{i}\t{p}\t{g}" for i, grades in enumerate(task.piece_grades) for p, g in grades.items()
    ]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n")
    facts: dict[str, Any] = {"name": folder.name, "type": "retrieval"}
    facts |= {"instruction": task.instruction, "main_score": "recall_at_10"}
    (folder / "task.json").write_text(json.dumps(facts, indent=1) + "\n")


def _relevant(data: Retrieval, query: str) -> list[str]:
    return [p for p, grade in data.qrels.get(query, {}).items() if grade > 0]
