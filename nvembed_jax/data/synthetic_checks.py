"""What a language model answered, checked: task lists and examples, or the reason why not."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, NamedTuple

from nvembed_jax.data.identity import normalized, words
from nvembed_jax.data.synthetic_prompts import FIELDS

MAX_TASK_WORDS = 60
# Fewest and most words of the query and of the documents: what was asked for, with room.
_WORDS = {
    "short-long": ((1, 80), (20, 2000)),
    "long-short": ((20, 2000), (1, 80)),
    "short-short": ((1, 120), (1, 120)),
}
_FENCE = re.compile(r"^```\w*\s*\n(.*?)\n?```\s*$", re.S)
# First words of Unicode's letter names, by language; all others are written in Latin letters.
_SCRIPTS: dict[str, tuple[str, ...]] = {
    "arabic": ("ARABIC",),
    "persian": ("ARABIC",),
    "urdu": ("ARABIC",),
    "chinese": ("CJK",),
    "japanese": ("CJK", "HIRAGANA", "KATAKANA"),
    "korean": ("HANGUL",),
    "russian": ("CYRILLIC",),
    "ukrainian": ("CYRILLIC",),
    "bulgarian": ("CYRILLIC",),
    "greek": ("GREEK",),
    "hebrew": ("HEBREW",),
    "hindi": ("DEVANAGARI",),
    "marathi": ("DEVANAGARI",),
    "nepali": ("DEVANAGARI",),
    "bengali": ("BENGALI",),
    "telugu": ("TELUGU",),
    "tamil": ("TAMIL",),
    "thai": ("THAI",),
    "armenian": ("ARMENIAN",),
    "georgian": ("GEORGIAN",),
}


class RejectedAnswerError(ValueError):
    """An answer that cannot be used; the message is one of few reasons, fit for counting."""


class Triple(NamedTuple):
    """A query, a document that is right for it, and one that only seems so."""

    query: str
    positive: str
    negative: str


def parse_tasks(answer: str) -> list[str]:
    """The task descriptions in an answer to `brainstorm_prompt`.

    Raises:
        RejectedAnswerError: not a JSON list of strings. Single strings that are blank or too long
            are passed over.
    """
    value = _json(answer, "[", "]")
    if not isinstance(value, list) or not all(isinstance(task, str) for task in value):
        raise RejectedAnswerError("not a list of strings")
    tasks = [" ".join(task.split()) for task in value]
    tasks = [task for task in tasks if _is_text(task) and len(words(task)) <= MAX_TASK_WORDS]
    if not tasks:
        raise RejectedAnswerError("no usable task")
    return tasks


def parse_triple(answer: str, kind: str, language: str) -> Triple:
    """The example in an answer to `example_prompt`.

    Raises:
        RejectedAnswerError: not the JSON object asked for, lengths out of bounds, texts that are
            alike, or letters of another script than the language's.
    """
    value = _json(answer, "{", "}")
    if not isinstance(value, dict):
        raise RejectedAnswerError("not a JSON object")
    for field in FIELDS:
        if field not in value:
            raise RejectedAnswerError(f"no {field}")
        if not isinstance(value[field], str):
            raise RejectedAnswerError(f"{field} is no text")
        if not _is_text(value[field]):
            raise RejectedAnswerError(f"{field} is blank")
    triple = Triple(*(value[field].strip() for field in FIELDS))
    query_words, document_words = _WORDS[kind]
    for field, text in zip(FIELDS, triple, strict=True):
        fewest, most = query_words if field == "user_query" else document_words
        if not fewest <= len(words(text)) <= most:
            raise RejectedAnswerError(
                f"{field} is too {'short' if len(words(text)) < fewest else 'long'}"
            )
    query, positive, negative = map(normalized, triple)
    if positive == negative:
        raise RejectedAnswerError("positive and negative are equal")
    if query in (positive, negative):
        raise RejectedAnswerError("a document repeats the query")
    if not all(_in_script(text, language) for text in triple):
        raise RejectedAnswerError("another script than the language's")
    return triple


def _json(answer: str, first: str, last: str) -> Any:
    """The JSON value of an answer, which may stand in a fence or among other words."""
    fenced = _FENCE.match(answer.strip())
    text = fenced.group(1) if fenced else answer
    start, stop = text.find(first), text.rfind(last)
    try:
        return json.loads(text[start : stop + 1] if 0 <= start < stop else text, strict=False)
    except (ValueError, RecursionError):
        raise RejectedAnswerError("not JSON") from None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return bool(value.strip())


def _in_script(text: str, language: str) -> bool:
    """Whether at least half of the letters are the language's: all that is known of a language
    here."""
    expected = _SCRIPTS.get(language.casefold(), ("LATIN",))
    letters = [c for c in text if c.isalpha()]
    right = sum(unicodedata.name(c, "").startswith(expected) for c in letters)
    return 2 * right >= len(letters)
