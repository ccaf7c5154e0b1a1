"""Raw formats of paired texts: one function a format.

They give {query, positives, negatives, group}, {text1, text2, score} or {text1, text2, label}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

from nvembed_jax.data.tfds.raw_files import (
    Column,
    Files,
    Row,
    TextStore,
    cell,
    json_lines,
    lines_of,
    one,
    paired_lines_of,
    table,
)


def nli_jsonl(files: Files) -> Iterator[Row]:
    """SNLI and MultiNLI: {sentence1, sentence2, gold_label}; "-" where annotators disagree."""

    def rows() -> Iterator[tuple[str, str, str]]:
        for path in files["rows"]:
            for where, row in json_lines(path):
                yield (
                    cell(row, "sentence1", where),
                    cell(row, "sentence2", where),
                    cell(row, "gold_label", where),
                )

    return _triples(rows, "entailment", "contradiction")


def nli_table(
    files: Files,
    positive: str,
    negative: str,
    columns: tuple[Column, Column, Column] = ("premise", "hypothesis", "label"),
    **layout: Any,
) -> Iterator[Row]:
    """A table of premise, hypothesis and label, as in collections of NLI sets."""

    def rows() -> Iterator[tuple[str, str, str]]:
        for path in files["rows"]:
            for where, row in table(path, **layout):
                first, second, label = (cell(row, column, where) for column in columns)
                yield first, second, label

    return _triples(rows, positive, negative)


def _triples(
    rows: Callable[[], Iterator[tuple[str, str, str]]], positive: str, negative: str
) -> Iterator[Row]:
    """A pair for every positive hypothesis; negatives are those of the same premise.

    The premise is also the group: its other hypotheses are no negatives of it.
    """
    with TextStore() as store:
        negatives: dict[int, list[str]] = {}
        for number, (premise, hypothesis, label) in enumerate(rows()):
            if label == negative:
                negatives.setdefault(hash(premise), []).append(str(number))
                store.add(str(number), hypothesis)
        for premise, hypothesis, label in rows():
            if label == positive:
                ids = negatives.get(hash(premise), [])
                yield {
                    "query": premise,
                    "positives": [hypothesis],
                    "negatives": [store.get(id_) for id_ in ids],
                    "group": premise,
                }


def paired_table(files: Files, query: Column, positive: Column, **layout: Any) -> Iterator[Row]:
    """A table in which one column's text is sought by another's."""
    for path in files["rows"]:
        for where, row in table(path, **layout):
            yield {"query": cell(row, query, where), "positives": [cell(row, positive, where)]}


def paired_lines(files: Files, group: bool = False) -> Iterator[Row]:
    """Files whose lines belong together by number: queries, and one or more files of positives."""
    queries = one(files, "queries")
    for path in files["positives"]:
        lines = paired_lines_of(queries, path)
        for number, (query, positive) in enumerate(lines):
            row: Row = {"query": query.strip(), "positives": [positive.strip()]}
            yield {**row, "group": f"{queries.name}#{number}"} if group else row


def captions(files: Files) -> Iterator[Row]:
    """Flickr8k.token.txt, "image#number TAB caption": captions of one image, two by two."""
    for path in files["rows"]:
        lines = (line.partition("\t") for line in lines_of(path) if "\t" in line)
        found = [(place.partition("#")[0], int(place.partition("#")[2]), text)
                 for place, _, text in lines]  # fmt: skip
        for (image, number, text), (next_image, _, next_text) in pairwise(found):
            if image == next_image and number % 2 == 0:
                yield {"query": text, "positives": [next_text], "group": image}


def ranked_table(files: Files, **layout: Any) -> Iterator[Row]:
    """Lines of query, sentence and 0 or 1: the right sentences of a query against the others."""
    for path in files["rows"]:
        query, sentences = None, {"1": [], "0": []}
        for where, row in table(path, **layout):
            text, label = cell(row, 1, where), cell(row, 2, where)
            if label not in sentences:
                raise ValueError(f"{where}: the label is {label!r}; expected 0 or 1")
            if row[0] != query:
                if query is not None:
                    yield _ranked(query, sentences)
                query, sentences = row[0], {"1": [], "0": []}
            sentences[label].append(text)
        if query is not None:
            yield _ranked(query, sentences)


def _ranked(query: str, sentences: Mapping[str, list[str]]) -> Row:
    return {"query": query, "positives": sentences["1"], "negatives": sentences["0"]}


def summaries(files: Files) -> Iterator[Row]:
    """SciTLDR: {source: [sentence], target: [summary]}: summary -> abstract."""
    for path in files["rows"]:
        for where, row in json_lines(path):
            abstract = " ".join(cell(row, "source", where))
            for target in cell(row, "target", where):
                yield {"query": target, "positives": [abstract], "group": abstract}


def trivia(files: Files) -> Iterator[Row]:
    """OpenTriviaQA: "#Q question", "^ answer", "A choice" ...: the other choices are negatives."""
    for path in files["rows"]:
        text = "\n".join(lines_of(path, "latin-1"))
        for block in re.split(r"^#Q ", text, flags=re.MULTILINE)[1:]:
            question, caret, rest = block.partition("\n^ ")
            if not caret:
                continue
            answer, *choices = rest.strip().splitlines()
            texts = [line[2:].strip() for line in choices if re.match(r"[A-Z] ", line)]
            negatives = [text for text in texts if text != answer.strip()]
            query = " ".join(question.split())
            yield {"query": query, "positives": [answer.strip()], "negatives": negatives}


def entailed_questions(files: Files) -> Iterator[Row]:
    """MEDIQA RQE: <pair value="true"><chq>, <faq>: consumer question -> the question it implies."""
    for path in files["rows"]:
        for pair in _elements(path, "pair"):
            if pair.get("value") == "true":
                chq, faq = (" ".join((pair.findtext(tag) or "").split()) for tag in ("chq", "faq"))
                yield {"query": chq, "positives": [faq]}


def question_answers(files: Files) -> Iterator[Row]:
    """MedQuAD: <QAPair><Question>, <Answer>; pairs whose answer was taken out are passed over."""
    for path in files["rows"]:
        for pair in _elements(path, "QAPair"):
            answer = " ".join((pair.findtext("Answer") or "").split())
            if answer:
                question = " ".join((pair.findtext("Question") or "").split())
                yield {"query": question, "positives": [answer]}


def titled_markdown(files: Files) -> Iterator[Row]:
    """A file a note: "# title", then the note."""
    for path in files["rows"]:
        title, _, body = "\n".join(lines_of(path)).strip().partition("\n")
        if title.startswith("# "):
            yield {"query": title.removeprefix("# ").strip(), "positives": [body.strip()]}


def front_matter_questions(files: Files) -> Iterator[Row]:
    """A file a question: front matter with a line "question: ...", then the answer."""
    for path in files["rows"]:
        parts = "\n".join(lines_of(path)).split("---\n", 2)
        found = re.search(r"^question: (.*(?:\n  .*)*)", parts[1] if len(parts) == 3 else "", re.M)
        if found is not None:
            question = " ".join(found[1].split())
            if question[0] in "'\"" and question[0] == question[-1]:  # a quoted scalar of YAML
                question = question[1:-1].replace("''", "'").replace('\\"', '"')
            yield {"query": question, "positives": [parts[2].strip()]}


def command_pages(files: Files) -> Iterator[Row]:
    """tldr pages: "# command", "> description", then "- example:" above its `command line`."""
    for path in files["rows"]:
        lines = [line.strip() for line in lines_of(path) if line.strip()]
        command = lines[0].removeprefix("# ")
        about = next((line[2:] for line in lines if line.startswith("> ")), "")
        yield {"query": about, "positives": [command]}
        for example, code in pairwise(lines):
            if example.startswith("- ") and code.startswith("`"):
                shown = re.sub(r"\{\{(.*?)\}\}", r"\1", code.strip("`"))
                yield {"query": f"{example[2:].rstrip(':')} ({command})", "positives": [shown]}


def scored_table(
    files: Files, score: Column, texts: tuple[Column, Column], **layout: Any
) -> Iterator[Row]:
    """STS tables: a score and two sentences in a line; lines without a score are passed over."""
    for path in files["rows"]:
        for where, row in table(path, **layout):
            if cell(row, score, where).strip():
                first, second = (cell(row, column, where).strip() for column in texts)
                yield {"text1": first, "text2": second, "score": float(cell(row, score, where))}


def scored_lines(files: Files) -> Iterator[Row]:
    """SemEval STS: STS.input.*.txt "sentence TAB sentence", STS.gs.*.txt a score a line."""
    for path in files["rows"]:
        gold = path.with_name(path.name.replace("STS.input", "STS.gs"))
        if not gold.is_file():
            raise FileNotFoundError(f"{gold}: no such file; the scores of {path.name} stand there")
        lines = paired_lines_of(path, gold)
        for number, (line, score) in enumerate(lines, start=1):
            sentences = line.split("\t")
            if len(sentences) < 2:
                raise ValueError(
                    f"{path}:{number}: expected two sentences with a tab; got {line!r}"
                )
            if score.strip():
                yield {"text1": sentences[0], "text2": sentences[1], "score": float(score)}


def labelled_pairs_table(
    files: Files, label: Column, texts: tuple[Column, Column], **layout: Any
) -> Iterator[Row]:
    """Paraphrase tables: 0 or 1 and two sentences in a line."""
    for path in files["rows"]:
        for where, row in table(path, **layout):
            value = cell(row, label, where).strip()
            if value not in ("0", "1"):
                raise ValueError(f"{where}: the label is {value!r}; expected 0 or 1")
            first, second = (cell(row, column, where).strip() for column in texts)
            yield {"text1": first, "text2": second, "label": int(value)}


def _elements(path: Any, tag: str) -> Iterator[ElementTree.Element]:
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == tag:
                yield element
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML ({error})") from None
