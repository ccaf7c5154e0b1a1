"""Raw formats of retrieval sets -> {query, positives, negatives, group}: one function a format."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nvembed_jax.data.judged_pairs import full_text, read_qrels
from nvembed_jax.data.tfds.raw_files import (
    Files,
    Row,
    TextStore,
    cell,
    joined,
    json_file,
    json_lines,
    lines_of,
    one,
    table,
)


def beir(files: Files) -> Iterator[Row]:
    """corpus.jsonl {_id, title, text}, queries.jsonl {_id, text}, qrels/SPLIT.tsv."""
    judged: dict[str, dict[str, float]] = {}
    for query, passage, score in read_qrels(one(files, "qrels")):
        judged.setdefault(query, {})[passage] = score
    queries = (
        (cell(row, "_id", where), cell(row, "text", where))
        for where, row in json_lines(one(files, "queries"))
    )
    return joined(judged, queries, _passages(files, "_id"))


def trec(files: Files) -> Iterator[Row]:
    """Topics "id TAB text", qrels "query 0 passage score", a .tsv or JSON {docid, text} corpus."""
    judged: dict[str, dict[str, float]] = {}
    for number, line in enumerate(lines_of(one(files, "qrels")), start=1):
        cells = line.split()
        if len(cells) != 4:
            raise ValueError(f"{one(files, 'qrels')}:{number}: expected 4 columns; got {line!r}")
        judged.setdefault(cells[0], {})[cells[2]] = float(cells[3])
    queries = ((id_, text) for id_, text in _tab_separated(one(files, "topics")))
    as_table = files["corpus"][0].name.endswith(".tsv")
    passages = _tab_separated(files["corpus"][0]) if as_table else _passages(files, "docid")
    return joined(judged, queries, passages)


def paq(files: Files, limit: int) -> Iterator[Row]:
    """PAQ.metadata.jsonl {question, answers: [{passage_id}]} and psgs_w100.tsv (id, text, title).

    Args:
        limit: only the first questions; there are 65 million.
    """
    questions: list[tuple[str, str]] = []
    judged: dict[str, dict[str, float]] = {}
    rows = json_lines(one(files, "questions"))
    for number, (where, row) in enumerate(islice(rows, limit)):
        answers = cell(row, "answers", where)
        if answers:
            questions.append((str(number), cell(row, "question", where)))
            judged[str(number)] = {str(answer["passage_id"]): 1.0 for answer in answers[:1]}

    def passages() -> Iterator[tuple[str, str]]:
        for where, row in table(one(files, "passages"), delimiter="\t"):
            yield cell(row, "id", where), full_text({**row, "text": cell(row, "text", where)})

    return joined(judged, questions, passages())


def squad(files: Files, with_title: bool = False) -> Iterator[Row]:
    """{data: [{title, paragraphs: [{context, qas: [{question}]}]}]}: question -> paragraph.

    Questions about one paragraph are of one group: it answers them all.
    """
    for path in files["rows"]:
        for document in json_file(path)["data"]:
            for number, paragraph in enumerate(document["paragraphs"]):
                for question in paragraph["qas"]:
                    text = question["question"]
                    yield {
                        "query": f"{text} ({document['title']})" if with_title else text,
                        "positives": [paragraph["context"]],
                        "group": f"{document.get('title', '')}#{number}",
                    }


def json_pairs(files: Files, query: str, positive: str) -> Iterator[Row]:
    """A JSON list of objects, or an object of them: one key's text is sought by another's."""
    for path in files["rows"]:
        content = json_file(path)
        rows = content.values() if isinstance(content, dict) else content
        for number, row in enumerate(rows):
            where = f"{path}, item {number}"
            yield {"query": cell(row, query, where), "positives": [cell(row, positive, where)]}


def hover(files: Files) -> Iterator[Row]:
    """Claims {claim, label, supporting_facts: [[title, n]]}; the articles from a BEIR corpus."""
    claims = json_file(one(files, "claims"))
    queries = [(str(number), claim["claim"]) for number, claim in enumerate(claims)]
    judged = {
        str(number): {title: 1.0 for title, _ in claim["supporting_facts"]}
        for number, claim in enumerate(claims)
        if claim["label"] == "SUPPORTED"
    }
    articles = (
        (cell(row, "title", where), full_text(row))
        for where, row in json_lines(one(files, "corpus"))
    )
    return joined(judged, queries, articles)


def bioasq(files: Files) -> Iterator[Row]:
    """{questions: [{body, snippets: [{text}]}]}: question -> snippets of abstracts."""
    for path in files["rows"]:
        for question in json_file(path)["questions"]:
            snippets = [snippet["text"] for snippet in question.get("snippets", [])]
            yield {"query": question["body"], "positives": list(dict.fromkeys(snippets))}


def claims(files: Files) -> Iterator[Row]:
    """JSON lines {claim, label, evidence: [sentence]}: claim -> evidence, as one passage."""
    for path in files["rows"]:
        for where, row in json_lines(path):
            if cell(row, "label", where) in ("SUPPORTS", "REFUTES"):
                evidence = " ".join(cell(row, "evidence", where))
                yield {"query": cell(row, "claim", where), "positives": [evidence]}


def stack_posts(files: Files) -> Iterator[Row]:
    """Posts.xml of the Stack Exchange dump: title and body of a question -> accepted answer."""
    for path in files["rows"]:
        accepted = {post["AcceptedAnswerId"] for post in posts(path) if "AcceptedAnswerId" in post}
        with TextStore() as answers:
            for post in posts(path):
                if post.get("PostTypeId") == "2" and post["Id"] in accepted:
                    answers.add(post["Id"], without_tags(post["Body"]))
            for post in posts(path):
                if post.get("AcceptedAnswerId", "") in answers and post.get("Title"):
                    question = f"{post['Title']} {without_tags(post['Body'])}"
                    yield {
                        "query": question,
                        "positives": [answers.get(post["AcceptedAnswerId"])],
                    }


def smart(files: Files) -> Iterator[Row]:
    """The SMART collections: .I id, .T title, .W text; judgements "query passage ..."."""
    judged: dict[str, dict[str, float]] = {}
    for line in lines_of(one(files, "qrels")):
        query, passage = line.split()[:2]
        judged.setdefault(str(int(query)), {})[str(int(passage))] = 1.0
    return joined(
        judged,
        ((id_, part["W"]) for id_, part in _smart_entries(one(files, "queries"))),
        (
            (id_, full_text({"title": part["T"], "text": part["W"]}))
            for id_, part in _smart_entries(one(files, "corpus"))
        ),
    )


def posts(path: Path) -> Iterator[dict[str, Any]]:
    """The attributes of every row of a Posts.xml, one in memory at a time."""
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "row":
                yield dict(element.attrib)
            element.clear()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML ({error})") from None


def without_tags(text: str) -> str:
    """HTML as plain text, white space collapsed."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def _passages(files: Files, id_key: str) -> Iterator[tuple[str, str]]:
    for path in files["corpus"]:
        for where, row in json_lines(path):
            if cell(row, "text", where):
                yield cell(row, id_key, where), full_text(row)


def _tab_separated(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines_of(path), start=1):
        id_, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"{path}:{number}: expected an id, a tab and a text; got {line!r}")
        yield id_, text


def _smart_entries(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    id_, field, parts = "", "", {"T": "", "W": ""}
    for line in lines_of(path, "latin-1"):
        if line.startswith(".I "):
            if id_:
                yield id_, parts
            id_, field, parts = line.split()[1], "", {"T": "", "W": ""}
        elif re.fullmatch(r"\.[A-Z]", line.rstrip()):
            field = line[1]
        elif field in parts:
            parts[field] = f"{parts[field]} {line.strip()}".strip()
    if id_:
        yield id_, parts
