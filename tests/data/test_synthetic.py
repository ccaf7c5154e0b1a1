"""Synthetic data against an endpoint on this machine that fails in every way it can."""

from __future__ import annotations

import email.utils
import json
import os
import threading
import time

import numpy as np
import pytest
from chat_endpoint import Script, good_answer, number, serving

from nvembed_jax.data.examples import read_examples
from nvembed_jax.data.synthetic import SyntheticOptions, synthesize
from nvembed_jax.data.synthetic_checks import RejectedAnswerError, parse_tasks, parse_triple
from nvembed_jax.data.synthetic_client import ChatClient, ChatEndpoint, Journal
from nvembed_jax.data.synthetic_prompts import (
    KINDS,
    brainstorm_prompt,
    draw_attributes,
    example_prompt,
)


def run(script, out, *, key=None, retries=3, concurrency=4, model="fake", timeout=30.0, **options):
    with serving(script) as url:
        endpoint = ChatEndpoint(
            base_url=url,
            model=model,
            api_key=key,
            concurrency=concurrency,
            max_retries=retries,
            backoff_s=0.01,
            timeout_s=timeout,
        )
        return synthesize(out, endpoint, options=SyntheticOptions(**options))


def is_list(prompt):
    return "JSON list" in prompt


def test_examples_of_all_kinds_are_made(tmp_path):
    script, out = Script(key="secret-key"), tmp_path / "out.jsonl"
    report = run(script, out, key="secret-key", count=20, tasks_per_request=3, concurrency=3)
    examples = list(read_examples(out))
    assert len(examples) == report.examples == report.wanted == 20
    assert report.by_kind == {"short-long": 7, "long-short": 7, "short-short": 6}
    # 4 + 4 + 3 tasks, 3 a request: 2 + 2 + 1 lists, and one request an example.
    assert script.requests == report.answers == 20 + 5
    assert report.tokens == 7 * 25
    assert not report.rejected
    tasks = [example.task for example in examples]
    assert all(tasks.count(task) <= 2 for task in tasks)
    assert len(set(tasks)) == 4 + 4 + 3
    assert all(len(e.positives) == len(e.negatives) == 1 for e in examples)
    assert {e.source for e in examples} == {"synthetic"}
    body = script.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("fake", 1.0, 2048)
    assert 2 <= script.most_busy <= 3
    for path in tmp_path.iterdir():
        assert "secret-key" not in path.read_text("utf8")


def bad_days(prompt, turn):
    """Each prompt fails first in one of four ways, or not at all."""
    failures = [(429, {"Retry-After": "0"}), (500, {}), (503, {}), (408, {})]
    at = number(prompt) % 6
    return failures[at] if at < 4 and turn == 0 else (200, {})


def bad_answer(prompt):
    """A third of the examples cannot be used, and some task lists neither."""
    good, at = good_answer(prompt), number("bad" + prompt) % 12
    if is_list(prompt):
        return ["I would rather not.", '["a", 5]', good][at % 3]
    fields = json.loads(good)
    query, positive, _ = fields.values()
    answers = {
        0: good[:-10],
        1: json.dumps({"user_query": query, "positive_document": positive}),
        2: json.dumps(fields | {"hard_negative_document": f" {positive.upper()}"}),
        3: json.dumps(fields | {"positive_document": ["x"]}),
        4: f"Here you are:\n```json\n{good}\n```",
        5: f"```json\n{good}\n```",
    }
    return answers.get(at, good)


def test_failures_are_retried_and_bad_answers_replaced(tmp_path):
    script, out = Script(bad_answer, bad_days), tmp_path / "out.jsonl"
    report = run(script, out, count=60, tasks_per_request=4, max_rounds=12)
    assert report.examples == len(list(read_examples(out))) == 60
    expected = {"not JSON", "no hard_negative_document", "positive and negative are equal",
                "positive_document is no text", "not a list of strings"}  # fmt: skip
    assert set(report.rejected) == expected
    assert script.requests == report.answers + report.retries
    assert report.retries > 20
    written = json.loads((tmp_path / "out.jsonl.report.json").read_text("utf8"))
    assert written["rejected"] == dict(report.rejected)
    assert len(written["rejected_ids"]) == sum(report.rejected.values())
    first = written["rejected_ids"][0]
    lines = (tmp_path / "out.jsonl.journal.jsonl").read_text("utf8").splitlines()
    assert any(json.loads(line).get("id") == first["id"] for line in lines)


def test_a_stopped_run_asks_only_what_is_missing(tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    options = {"count": 30, "tasks_per_request": 4, "max_rounds": 12}
    first = Script(bad_answer)
    run(first, whole, **options)

    left = threading.Semaphore(25)

    def breaks(prompt, turn):
        return (200, {}) if turn or left.acquire(blocking=False) else (401, {})

    second = Script(bad_answer, breaks)
    with pytest.raises(ValueError, match="HTTP 401"):
        run(second, out, **options)
    assert not out.exists()
    journal = tmp_path / "out.jsonl.journal.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"id": "examples/short-long/999", "ans')  # cut off by a kill
    third = Script(bad_answer)
    run(third, out, **options)
    assert out.read_bytes() == whole.read_bytes()
    assert third.requests == first.requests - 25
    fourth = Script(bad_answer)
    run(fourth, out, **options)
    assert fourth.requests == 0


def test_more_examples_keep_the_earlier_ones(tmp_path):
    out = tmp_path / "out.jsonl"
    run(Script(), out, count=8, kinds=("short-short",))
    before = out.read_text()
    script = Script()
    run(script, out, count=20, kinds=("short-short",))
    assert out.read_text().startswith(before)
    assert sum(not is_list(prompt) for prompt in script.asked) == 12


def test_other_settings_need_another_journal(tmp_path):
    out = tmp_path / "out.jsonl"
    run(Script(), out, count=2)
    for change, message in (
        ({"seed": 1}, "begun with seed 0, not 1"),
        ({"model": "other"}, "begun with model 'fake', not 'other'"),
        ({"languages": ("German",)}, "begun with languages"),
    ):
        with pytest.raises(ValueError, match=message):
            run(Script(), out, count=2, **change)


def test_seeds_give_other_prompts(tmp_path):
    prompts = []
    for seed in (0, 0, 1):
        script = Script()
        run(script, tmp_path / f"{len(prompts)}.jsonl", count=6, seed=seed)
        prompts.append(set(script.asked))
    assert prompts[0] == prompts[1]
    assert not prompts[0] & prompts[2]


def test_duplicates_are_dropped(tmp_path):
    def repeats(prompt):
        """Two of three examples are one and the same, in another case."""
        if is_list(prompt):
            return good_answer(prompt)
        if number(prompt) % 3:
            return good_answer("long text, a document of about")
        return good_answer(prompt)

    report = run(Script(repeats), tmp_path / "out.jsonl", count=8, kinds=("short-long",))
    queries = [example.query for example in read_examples(tmp_path / "out.jsonl")]
    assert len(queries) == len(set(queries)) == report.examples
    assert report.rejected["duplicate"] > 5


def test_near_duplicates_are_dropped_when_asked(tmp_path):
    def alike(prompt):
        answer = json.loads(good_answer(prompt))
        if isinstance(answer, dict):
            query = "what is the capital city of the small country of number"
            answer["user_query"] = f"{query} {number(prompt) % 997}"
        return json.dumps(answer)

    options = {"count": 6, "kinds": ("short-short",), "max_rounds": 2}
    assert run(Script(alike), tmp_path / "all.jsonl", **options).examples == 6
    report = run(Script(alike), tmp_path / "few.jsonl", minhash_threshold=0.7, **options)
    assert report.examples == 1
    assert report.rejected == {"near-duplicate": 10}


def test_a_model_that_never_answers_well_ends_after_the_rounds(tmp_path):
    report = run(Script(lambda prompt: "no"), tmp_path / "out.jsonl", count=4, max_rounds=2)
    assert (report.examples, report.wanted) == (0, 4)
    assert set(report.rejected) == {"not JSON"}
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_questions_that_the_endpoint_will_not_take_are_passed_over(tmp_path):
    def refuses(prompt, turn):
        return (400, {}) if not is_list(prompt) and number(prompt) % 3 == 0 else (200, {})

    report = run(Script(status=refuses), tmp_path / "out.jsonl", count=12, kinds=("short-long",))
    assert report.examples == 12
    assert report.rejected["refused by the endpoint (HTTP 400)"] > 0


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (Script(key="other"), ValueError, "HTTP 401: .*Incorrect API key.*check the base URL"),
        (Script(status=lambda p, t: (404, {})), ValueError, "HTTP 404"),
        (Script(status=lambda p, t: (400, {})), ValueError, "HTTP 400"),
        (Script(status=lambda p, t: (503, {})), ConnectionError, r"4 tries \(HTTP 503\)"),
        (Script(lambda p: b"<html>"), ConnectionError, r"4 tries \(HTTP 200\)"),
        (Script(lambda p: b'{"choices": []}'), ConnectionError, "run the same command again"),
    ],
)
def test_endpoints_that_do_not_work_are_named(tmp_path, script, error, message):
    with pytest.raises(error, match=message):
        run(script, tmp_path / "out.jsonl", count=2, concurrency=1, key="wrong-key")
    assert not (tmp_path / "out.jsonl").exists()


def test_slow_and_absent_endpoints_are_named(tmp_path):
    with pytest.raises(ConnectionError, match="ReadTimeout"):
        run(Script(delay=0.5), tmp_path / "out.jsonl", count=1, timeout=0.1, retries=1)
    with serving(Script()) as url:
        pass
    endpoint = ChatEndpoint(base_url=url, model="fake", backoff_s=0.01)
    with pytest.raises(ConnectionError, match=r"3 tries \(ConnectError"):
        synthesize(tmp_path / "other.jsonl", endpoint, options=SyntheticOptions(count=1))


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_waited_for(as_date):
    wait = 2.0 if as_date else 0.4  # a date has whole seconds
    value = email.utils.formatdate(time.time() + wait, usegmt=True) if as_date else str(wait)

    def busy(prompt, turn):
        return (429, {"Retry-After": value}) if turn == 0 else (200, {})

    script = Script(lambda prompt: "hello", busy)
    with (
        serving(script) as url,
        ChatClient(ChatEndpoint(base_url=url, model="fake", backoff_s=0.001)) as client,
    ):
        assert client.complete("hi") == {"answer": "hello"}
        assert client.retries == 1
    first, second = script.times["hi"]
    assert second - first > 0.35


def test_waits_double():
    script = Script(lambda prompt: "hello", lambda p, turn: (500 if turn < 3 else 200, {}))
    with (
        serving(script) as url,
        ChatClient(ChatEndpoint(base_url=url, model="fake", backoff_s=0.05)) as client,
    ):
        client.complete("hi")
    waits = np.diff(script.times["hi"])
    assert all(wait > least for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True))


TRIPLE = {
    "user_query": "how tall is the tower",
    "positive_document": "The tower is ninety metres tall and stands by the river " * 3,
    "hard_negative_document": "The tower was built by a king who loved the river and " * 3,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user_query": " "}, "user_query is blank"),
        ({"user_query": None}, "user_query is no text"),
        ({"user_query": "\ud800"}, "user_query is blank"),
        ({"positive_document": "ninety metres"}, "positive_document is too short"),
        ({"user_query": "tall " * 90}, "user_query is too long"),
        ({"positive_document": TRIPLE["hard_negative_document"].upper()}, "are equal"),
        ({"user_query": "Башня высокая и очень старая"}, "another script"),
    ],
)
def test_examples_that_cannot_be_used_say_why(change, reason):
    triple = parse_triple(json.dumps(TRIPLE), "short-long", "English")
    assert triple.query == TRIPLE["user_query"]
    with pytest.raises(RejectedAnswerError, match=reason):
        parse_triple(json.dumps(TRIPLE | change), "short-long", "English")


def test_kinds_ask_for_their_own_lengths():
    with pytest.raises(RejectedAnswerError, match="user_query is too short"):
        parse_triple(json.dumps(TRIPLE), "long-short", "English")
    turned = {**TRIPLE, "user_query": TRIPLE["positive_document"], "positive_document": "tower",
              "hard_negative_document": "king"}  # fmt: skip
    assert parse_triple(json.dumps(turned), "long-short", "English").positive == "tower"
    with pytest.raises(RejectedAnswerError, match="repeats the query"):
        parse_triple(json.dumps({**TRIPLE, "positive_document": "how tall is  THE tower"}),
                     "short-short", "English")  # fmt: skip


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("Russian", "высокая башня над рекой"),
        ("Japanese", "川のそばの高い塔"),
        ("Hindi", "नदी के पास मीनार"),
    ],
)
def test_languages_are_told_by_their_letters(language, text):
    fields = {"user_query": text, "positive_document": text * 2, "hard_negative_document": text * 3}
    assert parse_triple(json.dumps(fields), "short-short", language).query == text
    with pytest.raises(RejectedAnswerError, match="another script"):
        parse_triple(json.dumps(fields), "short-short", "English")


def test_task_lists_are_read_leniently():
    assert parse_tasks('Sure!\n["Find  a\\nthing.", "", "b"]\nDone.') == ["Find a thing.", "b"]
    for answer, reason in (
        ("none", "not JSON"),
        ('{"a": 1}', "not a list"),
        ('["", " "]', "no usable task"),
        (json.dumps(["word " * 61]), "no usable task"),
        ("[" * 100000, "not JSON"),
    ):
        with pytest.raises(RejectedAnswerError, match=reason):
            parse_tasks(answer)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_hold_what_was_drawn(kind):
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        attributes = draw_attributes(rng, ("German", "Hindi"))
        prompt = example_prompt(kind, "Given {braces}, find it.", attributes)
        assert "Given {braces}, find it." in prompt
        for field in ("user_query", "positive_document", "hard_negative_document"):
            assert f"{field}: " in prompt
        for value in (attributes.language, attributes.difficulty, attributes.clarity):
            assert value in prompt
        seen.add(attributes)
    assert len(seen) > 30
    lists = {brainstorm_prompt(kind, 5, np.random.default_rng(seed)) for seed in range(9)}
    assert len(lists) == 9
    assert all("JSON list of 5 strings" in prompt for prompt in lists)


def test_journals_of_others_are_left_alone(tmp_path):
    path = tmp_path / "journal.jsonl"
    for content, message in (
        ("hello\n", ":1: not a line of a journal"),
        ('{"query": "q"}\n', "is not a journal"),
        ("[]\n", ":1: not a line"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            Journal(path, {})
        assert path.read_text() == content
    path.unlink()
    with Journal(path, {}) as journal:
        journal.add("a", {"answer": "é\n"})
        with pytest.raises(ValueError, match="in use by another run"):
            Journal(path, {})
        assert journal["a"] == {"id": "a", "answer": "é\n"}
    with Journal(path, {}) as journal:
        assert "a" in journal
        assert len(journal) == 1
        assert "b" not in journal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("short-long", "long-long")}, "kinds must be of"),
        ({"kinds": ("short-long", "short-long")}, "each once"),
        ({"count": 0}, "count must be at least 1"),
        ({"languages": ()}, "at least one"),
        ({"minhash_threshold": 70.0}, "up to 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticOptions(**options)
    with pytest.raises(ValueError, match="must start with http"):
        ChatEndpoint(base_url="localhost:8000", model="m")


def test_a_place_that_cannot_be_written_shows_before_anything_is_asked(tmp_path):
    script = Script()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        run(script, tmp_path / "no" / "out.jsonl", count=1)
    with pytest.raises(ValueError, match=r"expected a \.jsonl"):
        run(script, tmp_path / "out.json", count=1)
    assert script.requests == 0
    assert os.listdir(tmp_path) == []
