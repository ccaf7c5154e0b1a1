"""Search results as lines for people or JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

_PIPE_WIDTH = 160  # columns when the output is no terminal
_LEAST_TEXT = 20


def print_hits(queries: Sequence[str], results: Sequence[Sequence[Any]], as_json: bool) -> None:
    """Prints the hits of each query; many queries are told apart by their texts."""
    if as_json:
        plain = [[hit._asdict() for hit in hits] for hits in results]
        pairs = [{"query": q, "results": hits} for q, hits in zip(queries, plain, strict=True)]
        print(json.dumps(plain[0] if len(queries) == 1 else pairs, ensure_ascii=False, indent=2))
        return
    columns = (
        shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns if sys.stdout.isatty() else _PIPE_WIDTH
    )
    for number, (query, hits) in enumerate(zip(queries, results, strict=True)):
        if len(queries) > 1:
            print(f"{chr(10) if number else ''}# {one_line(query)}")
        for line in hit_lines(hits, columns):
            print(line)


def hit_lines(hits: Sequence[Any], columns: int) -> list[str]:
    """A line a hit, at most `columns` wide where the ids leave room: rank, score, id, text."""
    if not hits:
        return []
    rank_width = len(str(hits[-1].rank))
    ids = [one_line(hit.id) for hit in hits]
    id_width = max(map(display_width, ids))
    left = max(columns - rank_width - id_width - 13, _LEAST_TEXT)
    lines = []
    for hit, id_ in zip(hits, ids, strict=True):
        gap = " " * (id_width - display_width(id_) + 2)
        text = shorten(one_line(hit.text), left)
        lines.append(f"{hit.rank:>{rank_width}}  {hit.score:7.4f}  {id_}{gap}{text}".rstrip())
    return lines


def one_line(text: str) -> str:
    """White space as single spaces, and nothing that a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shorten(text: str, columns: int) -> str:
    """The text, cut with an ellipsis where it is wider than `columns`."""
    if display_width(text) <= columns:
        return text
    width = 0
    for position, character in enumerate(text):
        width += display_width(character)
        if width > columns - 1:
            return text[:position].rstrip() + "…"
    return text


def display_width(text: str) -> int:
    """Columns that a text takes on a terminal: East Asian wide characters two, combining none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
