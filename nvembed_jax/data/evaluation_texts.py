"""The texts of evaluation sets, each with its place: what training data must not hold.

Task folders (queries, corpus, classification, clustering, sts, pairs, reranking, summarization
files), folders of such folders, and plain .jsonl and .txt files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nvembed_jax.data.row_file import check_file, read_rows

DEFAULT_SPLITS = ("test", "validation", "dev")
_FIELDS: dict[str, tuple[str, ...]] = {
    "queries": ("text",),
    "corpus": ("text",),
    "classification": ("text",),
    "clustering": ("text",),
    "sts": ("text1", "text2"),
    "pairs": ("text1", "text2"),
    "reranking": ("query", "positive", "negative"),
    "summarization": ("text", "human_summaries", "machine_summaries"),
}
_COLLECTION = {"corpus": ("text",), "reranking": ("negative",)}  # what was not written for the task
_PLAIN = (
    "text", "title", "query", "question", "positive", "negative", "passage", "answer", "text1",
    "text2", "sentence1", "sentence2",
)  # fmt: skip
_SUFFIXES = (".jsonl", ".jsonl.gz", ".txt")


class EvaluationText(NamedTuple):
    """A text of the evaluation set `set`; `place` is FILE:LINE and the field."""

    set: str
    place: str
    text: str


def evaluation_texts(
    against: Sequence[str | Path],
    *,
    splits: Sequence[str] = DEFAULT_SPLITS,
    with_corpus: bool = True,
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[EvaluationText]:
    """Yields every text of the evaluation sets, in the order of the files.

    Files of training pairs (`pairs_train*`) are not read. A file without splits counts whole.

    Args:
        against: files and folders.
        splits: of rows that name a split, those that are evaluated on.
        with_corpus: also the collections that are searched (and the negatives of reranking), which
            training sets over the same collection share by right.
        on_skip: called with the name of each folder below a given one that holds no evaluation set.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: `FILE:LINE: what is wrong`, or a path that gives no texts.
    """
    for path in map(Path, against):
        count = 0
        for name, file in _files(path, on_skip):
            for text in _texts_of_file(name, file, frozenset(splits), with_corpus):
                count += 1
                yield text
        if not count:
            kinds = "" if with_corpus else ", the corpus left away"
            raise ValueError(
                f"{path}: no evaluation texts in it (splits {', '.join(splits)}{kinds}); expected "
                f"a task folder, a folder of task folders, or a .jsonl or .txt file"
            )


def _files(path: Path, on_skip: Callable[[str], None] | None) -> list[tuple[str, Path]]:
    """(set, file) of what is read for one given path."""
    if path.is_file():
        if not path.name.lower().endswith(_SUFFIXES):
            raise ValueError(f"{path}: cannot be read; expected .jsonl, .jsonl.gz or .txt")
        return [(_stem(path), path)]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    inside = sorted(path.iterdir())
    files = [p for p in inside if p.is_file() and p.name.lower().endswith(_SUFFIXES)]
    files = [p for p in files if not p.name.startswith("pairs_train")]
    task_files = [p for p in files if _stem(p) in _FIELDS]
    if task_files or files:
        return [(path.name, file) for file in task_files or files]
    found = []
    for folder in (p for p in inside if p.is_dir() and not p.name.startswith(".")):
        below = _files(folder, on_skip)
        if not below and on_skip is not None:
            on_skip(str(folder))
        found += below
    return found


def _texts_of_file(
    name: str, file: Path, splits: frozenset[str], with_corpus: bool
) -> Iterator[EvaluationText]:
    if file.name.lower().endswith(".txt"):
        yield from _lines(name, file)
        return
    kind = _stem(check_file(file))
    fields = _FIELDS.get(kind, _PLAIN)
    if not with_corpus:
        fields = tuple(field for field in fields if field not in _COLLECTION.get(kind, ()))
    if not fields:
        return
    for where, row in read_rows(file):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a JSON {type(row).__name__}; expected an object")
        if row.get("split") is not None and row["split"] not in splits:
            continue
        present = [field for field in fields if row.get(field) is not None]
        if not present:
            raise ValueError(
                f"{where}: none of the fields {', '.join(fields)}; there are: {', '.join(row)}"
            )
        for field in present:
            for text in _strings(row[field], field, where):
                yield EvaluationText(name, f"{where} {field}", text)
        if kind == "corpus" and isinstance(row.get("title"), str) and row["title"].strip():
            yield EvaluationText(name, f"{where} title, text", f"{row['title']} {row['text']}")


def _lines(name: str, file: Path) -> Iterator[EvaluationText]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode().strip()
            except UnicodeDecodeError:
                raise ValueError(
                    f"{file}:{number}: not UTF-8; convert with `iconv -t utf-8`"
                ) from None
            if text:
                yield EvaluationText(name, f"{file}:{number}", text)


def _strings(value: Any, field: str, where: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    for text in values:
        if not isinstance(text, str):
            raise ValueError(
                f"{where}: {field!r} holds {type(text).__name__}; expected a string or a list of "
                f"strings"
            )
    return [text for text in values if text.strip()]


def _stem(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".jsonl").removesuffix(".txt")
