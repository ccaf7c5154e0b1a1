"""A folder of text files as a stream of (relative path, text); without hidden and binary ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

# Text by its bytes, but written for machines: it would only clutter what is found.
MACHINE_SUFFIXES = frozenset(
    {".csv", ".ipynb", ".json", ".jsonl", ".lock", ".map", ".svg", ".tsv", ".ndjson"}
)
_SNIFFED_BYTES = 8192


def read_folder(
    root: Path, on_skip: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, str]]:
    """Yields (path below `root` with "/", text) of every UTF-8 text file below it, sorted by path.

    Hidden files and folders (a name that starts with ".") are not looked at. Binary files (a NUL
    byte, or not UTF-8) and data files (`MACHINE_SUFFIXES`) are skipped, and `on_skip` hears of
    each; files without any text are skipped in silence. HTML is reduced to its text. Links to files
    are followed, to folders not.
    """
    for path in _files(root):
        relative = path.relative_to(root).as_posix()
        text, reason = _read(path)
        if reason and on_skip is not None:
            on_skip(relative, reason)
        if text is not None and text.strip():
            yield relative, text


def _files(root: Path) -> list[Path]:
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _read(path: Path) -> tuple[str | None, str]:
    """The text of a file, or None and why there is none."""
    if path.suffix.lower() in MACHINE_SUFFIXES:
        return None, "a data file"
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
        if b"\0" in head:
            return None, "binary"
        content = head + file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start}"
    return (_html_text(text) if path.suffix.lower() in (".html", ".htm") else text), ""


class _TextOfHtml(HTMLParser):
    """Collects what a reader of the page sees; block elements become line breaks."""

    _UNSEEN = frozenset({"script", "style", "head", "template"})
    _INLINE = frozenset(
        {
            "a",
            "abbr",
            "b",
            "code",
            "em",
            "i",
            "kbd",
            "small",
            "span",
            "strong",
            "sub",
            "sup",
            "tt",
            "u",
        }
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in self._UNSEEN
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in self._UNSEEN))
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)

    def _break(self, tag: str) -> None:
        if tag not in self._INLINE:
            self.parts.append("\n")


def _html_text(page: str) -> str:
    parser = _TextOfHtml()
    parser.feed(page)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).splitlines())
    return "\n".join(line for line in lines if line)
