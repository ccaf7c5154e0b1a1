"""Synthetic training data from a language model: tasks are thought up, then examples of them.

The two steps of the NV-Embed paper (section on data), for three kinds of task: short query and long
document, long and short, short and short.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.data.contamination import NearDuplicates
from nvembed_jax.data.examples import Example, write_examples
from nvembed_jax.data.identity import text_key
from nvembed_jax.data.row_file import check_name
from nvembed_jax.data.synthetic_checks import RejectedAnswerError, Triple, parse_tasks, parse_triple
from nvembed_jax.data.synthetic_client import ChatClient, ChatEndpoint, Journal, Request, ask_all
from nvembed_jax.data.synthetic_prompts import (
    KINDS,
    Attributes,
    brainstorm_prompt,
    draw_attributes,
    example_prompt,
)
from nvembed_jax.data.writers import PendingFile, write_text
from nvembed_jax.runtime import progress_bar

SOURCE = "synthetic"
PROMPTS_VERSION = 1  # raise it when a prompt changes: answers to the old ones are not the same


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """What to make.

    Attributes:
        count: examples wanted, over all kinds together. kinds: of `KINDS`.
        per_task: examples of one task (the paper: 120,000 over 60,000 tasks).
        tasks_per_request: tasks asked for at a time.
        languages: drawn from evenly, an English name each.
        seed: of all that is drawn. minhash_threshold: queries with this Jaccard similarity to an
            earlier one are duplicates too; None: only equal ones.
        max_rounds: how often more is asked for where answers were rejected.
    """

    count: int = 100
    kinds: tuple[str, ...] = KINDS
    per_task: int = 2
    tasks_per_request: int = 20
    languages: tuple[str, ...] = ("English",)
    seed: int = 0
    minhash_threshold: float | None = None
    max_rounds: int = 5

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(
                f"kinds must be of {', '.join(KINDS)}, each once; got {', '.join(self.kinds)!r}"
            )
        for name in ("count", "per_task", "tasks_per_request", "max_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if not self.languages or not all(name.strip() for name in self.languages):
            raise ValueError("languages must name at least one")
        if self.minhash_threshold is not None and not 0 < self.minhash_threshold <= 1:
            raise ValueError(
                f"minhash_threshold is a share, over 0 and up to 1; got {self.minhash_threshold}"
            )

    def wanted(self, kind: str) -> int:
        """Examples of one kind; what does not divide goes to the first ones."""
        at = self.kinds.index(kind)
        return self.count // len(self.kinds) + (at < self.count % len(self.kinds))


@dataclass(kw_only=True)
class SyntheticReport:
    """What was made.

    Attributes:
        wanted, examples: asked for, and written. by_kind, tasks: examples and tasks of each kind.
        answers: used or rejected, of all runs. retries, tokens: of this run.
        rejected: answers by the reason why they were not used. rejected_ids: {id, reason}, by
            which the answers are found in the journal.
    """

    wanted: int = 0
    examples: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    retries: int = 0
    tokens: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_ids: list[dict[str, str]] = field(default_factory=list)

    def reject(self, id: str, reason: str) -> None:
        """Notes an answer that is not used."""
        self.rejected[reason] += 1
        self.rejected_ids.append({"id": id, "reason": reason})


def synthesize(
    out: str | Path,
    endpoint: ChatEndpoint,
    *,
    options: SyntheticOptions | None = None,
    show_progress_bar: bool | None = None,
) -> SyntheticReport:
    """Asks a chat endpoint for training examples and writes them, and `OUT.report.json`.

    Every answer is kept in `OUT.journal.jsonl` at once; the same call goes on after a stop, and
    asks only for what is missing, also when `count` was raised.

    Args:
        out: .jsonl or .jsonl.gz of examples with task, one positive and one hard negative.

    Raises:
        ValueError: the endpoint refuses (key, model), or the journal is of other settings.
        ConnectionError: no answer after all retries. ImportError: httpx is not installed.
    """
    options, out = options or SyntheticOptions(), check_name(out)
    PendingFile(out).discard()  # a place that cannot be written shows now
    settings = {"model": endpoint.model, "temperature": endpoint.temperature}
    for name in ("seed", "languages", "per_task", "tasks_per_request"):
        settings[name] = getattr(options, name)
    settings["prompts"] = PROMPTS_VERSION
    with (
        Journal(Path(f"{out}.journal.jsonl"), settings) as journal,
        ChatClient(endpoint, answered=len(journal) > 0) as client,
    ):
        writer = _Writer(options, endpoint.concurrency, client, journal, show_progress_bar)
        report = writer.report
        for kind in options.kinds:
            writer.write_kind(kind)
        report.wanted, report.answers = options.count, len(journal)
        report.retries, report.tokens = client.retries, client.tokens
        report.examples = write_examples(out, writer.examples())
    _write_report(Path(f"{out}.report.json"), report, {**settings, "kinds": options.kinds})
    return report


class _Writer:
    """The plan: which requests are needed next, given the answers so far.

    A request's prompt depends on its id, the seed and the task list only, and the task list on the
    answers in the order of their ids: so a run that goes on asks what the first one would have
    asked.
    """

    def __init__(
        self,
        options: SyntheticOptions,
        concurrency: int,
        client: ChatClient,
        journal: Journal,
        show: bool | None,
    ) -> None:
        self.options, self.report = options, SyntheticReport()
        self._concurrency, self._client, self._journal = concurrency, client, journal
        self._show = show
        self._seen: set[bytes] = set()
        threshold = options.minhash_threshold
        self._near = None if threshold is None else NearDuplicates(threshold)
        self._tasks: dict[str, list[str]] = {}
        self._accepted: list[tuple[str, int]] = []

    def write_kind(self, kind: str) -> None:
        """Asks until there are enough examples of one kind, or the rounds are over."""
        wanted, asked, found = self.options.wanted(kind), 0, 0
        tasks = _Tasks(kind)
        self._tasks[kind] = tasks.tasks
        for _ in range(self.options.max_rounds):
            if found >= wanted:
                break
            goal = asked + wanted - found
            self._extend(tasks, -(-goal // self.options.per_task))
            goal = min(goal, len(tasks.tasks) * self.options.per_task)
            numbers = range(asked, goal)
            self._ask([self._request(kind, number) for number in numbers], f"{kind} example")
            for number in numbers:
                found += self._accept(kind, number)
            asked = goal
        self.report.by_kind[kind] = found
        self.report.tasks[kind] = len(tasks.tasks)

    def examples(self) -> Iterator[Example]:
        """The accepted examples, read from the journal again."""
        for kind, number in self._accepted:
            triple = self._triple(kind, number)
            yield Example(
                query=triple.query,
                positives=(triple.positive,),
                negatives=(triple.negative,),
                task=self._task(kind, number),
                source=SOURCE,
            )

    def _extend(self, tasks: _Tasks, count: int) -> None:
        """Asks for tasks until there are `count`, or the rounds are over."""
        size = self.options.tasks_per_request
        for _ in range(self.options.max_rounds):
            missing = count - len(tasks.tasks)
            if missing <= 0:
                return
            numbers = range(tasks.asked, tasks.asked + -(-missing // size))
            requests = [
                Request(id, brainstorm_prompt(tasks.kind, size, self._rng(id)))
                for id in (f"tasks/{tasks.kind}/{number}" for number in numbers)
            ]
            self._ask(requests, f"{tasks.kind} task list")
            for request in requests:
                tasks.add(request.id, self._journal[request.id], self.report)
            tasks.asked = numbers.stop

    def _request(self, kind: str, number: int) -> Request:
        prompt = example_prompt(kind, self._task(kind, number), self._attributes(kind, number))
        return Request(_example_id(kind, number), prompt)

    def _task(self, kind: str, number: int) -> str:
        return self._tasks[kind][number // self.options.per_task]

    def _attributes(self, kind: str, number: int) -> Attributes:
        return draw_attributes(self._rng(_example_id(kind, number)), self.options.languages)

    def _rng(self, id: str) -> np.random.Generator:
        digest = blake2b(id.encode(), digest_size=8).digest()
        return np.random.default_rng([self.options.seed, int.from_bytes(digest, "little")])

    def _ask(self, requests: list[Request], unit: str) -> None:
        missing = sum(request.id not in self._journal for request in requests)
        with progress_bar(missing, self._show, unit) as bar:
            ask_all(self._client, self._journal, requests, self._concurrency, bar)

    def _triple(self, kind: str, number: int) -> Triple:
        result = self._journal[_example_id(kind, number)]
        if "refused" in result:
            raise RejectedAnswerError(result["refused"])
        return parse_triple(result["answer"], kind, self._attributes(kind, number).language)

    def _accept(self, kind: str, number: int) -> bool:
        try:
            triple = self._triple(kind, number)
            self._check_new(triple, kind)
        except RejectedAnswerError as error:
            self.report.reject(_example_id(kind, number), str(error))
            return False
        self._accepted.append((kind, number))
        return True

    def _check_new(self, triple: Triple, kind: str) -> None:
        keys = {text_key(triple.query)}
        if kind != "long-short":  # where many texts have one topic or intent
            keys.add(text_key(triple.positive))
        if keys & self._seen:
            raise RejectedAnswerError("duplicate")
        if self._near is not None:
            if self._near.find(triple.query) is not None:
                raise RejectedAnswerError("near-duplicate")
            self._near.add(triple.query)
        self._seen |= keys


class _Tasks:
    """The task descriptions of one kind, each once, in the order of their requests."""

    def __init__(self, kind: str) -> None:
        self.kind, self.tasks, self.asked = kind, list[str](), 0
        self._seen: set[bytes] = set()

    def add(self, id: str, result: dict[str, str], report: SyntheticReport) -> None:
        if "refused" in result:
            report.reject(id, result["refused"])
            return
        try:
            tasks = parse_tasks(result["answer"])
        except RejectedAnswerError as error:
            report.reject(id, str(error))
            return
        for task in tasks:
            if text_key(task) not in self._seen:
                self._seen.add(text_key(task))
                self.tasks.append(task)


def _example_id(kind: str, number: int) -> str:
    return f"examples/{kind}/{number}"


def _write_report(path: Path, report: SyntheticReport, settings: dict[str, Any]) -> None:
    text = json.dumps({**vars(report), "settings": settings}, ensure_ascii=False, indent=2)
    write_text(path, text + "\n")
