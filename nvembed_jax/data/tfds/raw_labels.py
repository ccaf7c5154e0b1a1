"""Raw formats of labelled texts -> {text, label}: one function a format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvembed_jax.data.tfds.raw_files import (
    Column,
    Files,
    Row,
    cell,
    json_file,
    json_lines,
    json_object,
    lines_of,
    one,
    open_text,
    paired_lines_of,
    table,
)
from nvembed_jax.data.tfds.raw_retrieval import posts, without_tags


def labelled_table(
    files: Files,
    text: Sequence[Column],
    label: Column,
    names: Mapping[str, str] | None = None,
    threshold: float | None = None,
    **layout: Any,
) -> Iterator[Row]:
    """A table with a column of labels and one or more of text (joined).

    Args:
        names: label -> the name it gets.
        threshold: the column holds a number; from here on the label is "1", below "0".
    """
    for path in files["rows"]:
        for where, row in table(path, **layout):
            value = cell(row, label, where).strip()
            if threshold is not None:
                value = str(int(float(value) >= threshold))
            yield {
                "text": _joined(row, text, where),
                "label": value if names is None else cell(names, value, where),
            }


def labelled_jsonl(
    files: Files,
    text: Sequence[str],
    label: str,
    where_equal: Mapping[str, str] | None = None,
    first_word: bool = False,
) -> Iterator[Row]:
    """JSON lines with a key of labels and one or more of text (joined).

    Args:
        where_equal: only rows that have these values.
        first_word: the label is the first word of a list with spaces.
    """
    for path in files["rows"]:
        for where, row in json_lines(path):
            if any(row.get(key) != value for key, value in (where_equal or {}).items()):
                continue
            value = str(cell(row, label, where))
            yield {
                "text": _joined(row, text, where),
                "label": value.split()[0] if first_word else value,
            }


def labelled_lines(files: Files) -> Iterator[Row]:
    """A file of texts and a file of labels, line by line; `mapping`: "label TAB name" lines."""
    names: dict[str, str] = {}
    for path in files.get("mapping", ()):
        names = dict(line.split("\t")[:2] for line in lines_of(path) if "\t" in line)
    for text, label in paired_lines_of(one(files, "texts"), one(files, "labels")):
        yield {"text": text.strip(), "label": names.get(label.strip(), label.strip())}


def class_folders(files: Files, part: str = "text") -> Iterator[Row]:
    """A folder a class, a file a text.

    Args:
        part: "text"; "body" or "subject" of news posts, whose headers end at a blank line.
    """
    for path in files["rows"]:
        with open_text(path, "utf-8" if part == "text" else "latin-1") as file:
            text = file.read()
        if part != "text":
            headers, _, body = text.partition("\n\n")
            text = body if part == "body" else _subject(headers)
        yield {"text": text.strip(), "label": path.parent.name}


def question_types(files: Files) -> Iterator[Row]:
    """TREC questions: "DESC:manner How did ..."; the label is the coarse type."""
    for path in files["rows"]:
        for number, line in enumerate(lines_of(path, "latin-1"), start=1):
            kind, _, question = line.partition(" ")
            if ":" not in kind:
                raise ValueError(f"{path}:{number}: expected TYPE:subtype first; got {line!r}")
            yield {"text": question.strip(), "label": kind.partition(":")[0]}


def spoken_intents(files: Files) -> Iterator[Row]:
    """SNIPS: {intent: [{data: [{text}, ...]}]}: the pieces of an utterance, joined."""
    for path in files["rows"]:
        with open_text(path, _encoding_of(path)) as file:
            content = file.read()
        for intent, utterances in json_object(content, str(path)).items():
            for utterance in utterances:
                text = "".join(piece["text"] for piece in utterance["data"])
                yield {"text": " ".join(text.split()), "label": intent}


def preprints(files: Files, text: Sequence[str]) -> Iterator[Row]:
    """Pages saved from the bioRxiv API: {collection: [{title, abstract, category}]}."""
    for path in files["rows"]:
        for number, row in enumerate(json_file(path)["collection"]):
            where = f"{path}, item {number}"
            yield {"text": _joined(row, text, where), "label": cell(row, "category", where)}


def stack_sites(files: Files, body: bool) -> Iterator[Row]:
    """Folders SITE/Posts.xml of the Stack Exchange dump: a question and the site it stands on."""
    for path in files["rows"]:
        for post in posts(path):
            if post.get("PostTypeId") == "1" and post.get("Title"):
                text = f"{post['Title']} {without_tags(post['Body'])}" if body else post["Title"]
                yield {"text": text, "label": path.parent.name}


def _joined(row: Row, columns: Sequence[Column], where: str) -> str:
    texts = (str(cell(row, column, where) or "").strip() for column in columns)
    return " ".join(text for text in texts if text)


def _subject(headers: str) -> str:
    for line in headers.splitlines():
        if line.lower().startswith("subject:"):
            subject = line[len("subject:") :].strip()
            while subject.lower().startswith("re:"):
                subject = subject[3:].strip()
            return subject
    return ""


def _encoding_of(path: Path) -> str:
    # A few files of the 2017 release are Latin-1, the others UTF-8.
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
