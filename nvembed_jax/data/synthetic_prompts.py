"""The prompts that make synthetic training data, in two steps: tasks first, then examples of them.

The plan is that of the NV-Embed paper (after arXiv 2401.00368); the wording is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KINDS = ("short-long", "long-short", "short-short")
FIELDS = ("user_query", "positive_document", "hard_negative_document")

_BRAINSTORM = {
    "short-long": (
        "retrieval tasks in which somebody types a short query and wants a long document: an "
        "article, a manual page, a report, a transcript"
    ),
    "long-short": (
        "tasks in which a long text is given and a short one is wanted: the topic, the intent, the "
        "kind or the title of an article, a review, a message or a record"
    ),
    "short-short": (
        "matching tasks in which a short text is given and another short text is wanted that means "
        "the same, answers it or belongs with it: headlines, questions, product names, remarks"
    ),
}
_SHAPE = {
    "short-long": (
        "user_query: what somebody would type, {query_length}, {clarity}.\n"
        "positive_document: a document of about {document_words} words that gives what the task "
        "asks for.\n"
        "hard_negative_document: a document of about the same length that shares topic and words "
        "with the query, yet does not give what the task asks for."
    ),
    "long-short": (
        "user_query: the given text, of about {document_words} words, {clarity}.\n"
        "positive_document: the short text that is right for it, of at most 20 words.\n"
        "hard_negative_document: a short text of the same form that is tempting, yet wrong for it."
    ),
    "short-short": (
        "user_query: the given text, {query_length}, {clarity}.\n"
        "positive_document: a short text that fits it as the task asks, in other words than the "
        "query's.\n"
        "hard_negative_document: a short text that looks much like the query, yet does not fit it."
    ),
}
_DOMAINS = (
    "medicine and nursing", "law and contracts", "cooking", "astronomy", "software development",
    "personal finance", "gardening", "music", "chemistry", "public transport", "sports", "history",
    "insurance", "education", "film and theatre", "agriculture", "electronics", "psychology",
    "construction", "travel", "mathematics", "customer service", "biology", "politics", "religion",
    "fashion", "energy", "shipping and trade", "games", "linguistics", "job applications",
    "parenting", "climate", "museums and art", "statistics", "cars and bicycles", "news",
    "housing", "philosophy", "emergency services",
)  # fmt: skip
_QUERY_LENGTHS = ("of fewer than 6 words", "of 5 to 15 words", "of at least 12 words")
_CLARITY = (
    "clear at first sight",
    "clear to somebody who knows the field",
    "vague, as hurried people write",
)
_DOCUMENT_WORDS = (50, 100, 200, 300, 500)
_DIFFICULTY = ("a pupil of fifteen", "a student at a university", "an expert of the field")


class Attributes(NamedTuple):
    """What is drawn for one example, so that no two requests are quite alike."""

    language: str
    query_length: str
    clarity: str
    document_words: int
    difficulty: str


def draw_attributes(rng: np.random.Generator, languages: Sequence[str]) -> Attributes:
    """One value of each attribute, evenly."""
    return Attributes(
        language=str(rng.choice(list(languages))),
        query_length=str(rng.choice(_QUERY_LENGTHS)),
        clarity=str(rng.choice(_CLARITY)),
        document_words=int(rng.choice(_DOCUMENT_WORDS)),
        difficulty=str(rng.choice(_DIFFICULTY)),
    )


def brainstorm_prompt(kind: str, count: int, rng: np.random.Generator) -> str:
    """The prompt of step one: `count` task descriptions of one of `KINDS`."""
    domains = ", ".join(rng.choice(_DOMAINS, 3, replace=False))
    return (
        f"Think of {count} different {_BRAINSTORM[kind]}.\n\n"
        f"Write each as one instruction of at most 25 words that says what is given and what is to "
        f'be found, such as "Given ..., find ...". Let them differ in subject, in the people who '
        f"would need them and in what is to be found; take some from {domains}, and others from "
        f"elsewhere. They must be possible with text alone.\n\n"
        f"Answer with a JSON list of {count} strings and nothing else."
    )


def example_prompt(kind: str, task: str, attributes: Attributes) -> str:
    """The prompt of step two: one query with a right and a tempting wrong document for `task`."""
    shape = _SHAPE[kind].format(**attributes._asdict())
    return (
        f"This is a task for a search engine: {task}\n\n"
        f"Write one example for it as a JSON object with exactly these keys:\n{shape}\n\n"
        f"All values are plain text in {attributes.language}. Understanding them should take "
        f"{attributes.difficulty}. Invent freely, but let the content be specific and believable, "
        f"with names, figures and details. No value may speak of the task, of the other values or "
        f"of being an example, and the positive document must not just repeat the query.\n\n"
        f"Answer with the JSON object and nothing else."
    )
