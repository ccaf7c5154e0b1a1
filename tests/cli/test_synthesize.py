"""`nvembed synthesize`: options, key, summary, failures in one line."""

from __future__ import annotations

import json
import os

import pytest
from chat_endpoint import Script, serving


@pytest.fixture(autouse=True)
def without_key(monkeypatch):
    for name in ("KEY", "API_KEY", "BASE_URL", "MODEL"):
        monkeypatch.delenv(f"NVEMBED_CHAT_{name}", raising=False)


def test_examples_are_written_and_summed_up(nvembed, tmp_path, monkeypatch):
    out, script = tmp_path / "out.jsonl", Script(key="k1")
    monkeypatch.setenv("NVEMBED_CHAT_API_KEY", "k1")
    with serving(script) as url:
        result = nvembed(
            "synthesize", "-o", out, "--base-url", url, "--chat-model", "m", "--count", "6"
        )
    assert result.code == 0, result.err
    assert "examples  6 of 6 wanted" in result.out
    assert "wrote 6 examples" in result.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all({"query", "positive", "negatives", "task", "source"} == row.keys() for row in rows)
    names = ["out.jsonl", "out.jsonl.journal.jsonl", "out.jsonl.report.json"]
    assert sorted(os.listdir(tmp_path)) == names


def test_options_reach_the_library(nvembed, tmp_path, monkeypatch):
    script = Script(key="from file")
    (tmp_path / "key").write_text("from file\n")
    with serving(script) as url:
        monkeypatch.setenv("NVEMBED_CHAT_BASE_URL", url)
        monkeypatch.setenv("NVEMBED_CHAT_MODEL", "m")
        result = nvembed(
            "synthesize", "-o", tmp_path / "out.jsonl.gz", "--api-key-file", tmp_path / "key",
            "--count", "4", "--kinds", "short-short, long-short", "--languages", "English,French",
            "--per-task", "1", "--seed", "5", "--minhash-threshold", "0.9", "--concurrency", "2",
            "--temperature", "0.5", "--max-tokens", "99", "--timeout", "9", "--retries", "0",
        )  # fmt: skip
    assert result.code == 0, result.err
    assert script.most_busy <= 2
    assert (script.bodies[0]["temperature"], script.bodies[0]["max_tokens"]) == (0.5, 99)
    settings = json.loads((tmp_path / "out.jsonl.gz.report.json").read_text())["settings"]
    assert settings["kinds"] == ["short-short", "long-short"]
    assert settings["seed"] == 5
    assert settings["per_task"] == 1
    assert "short-short  2 of" in result.out


def test_too_few_examples_are_said(nvembed, tmp_path):
    with serving(Script(lambda prompt: "no")) as url:
        result = nvembed(
            "synthesize", "-o", tmp_path / "o.jsonl", "--base-url", url, "--chat-model", "m"
        )
    assert result.code == 0
    assert "examples  0 of 100 wanted" in result.out
    assert "not JSON: " in result.out
    assert "fewer than wanted" in result.err


def test_failures_are_one_line(nvembed, one_error, tmp_path):
    out = tmp_path / "out.jsonl"
    with serving(Script(key="k")) as url:
        common = ("synthesize", "-o", out, "--base-url", url, "--chat-model", "m")
        for args, code, part in (
            (common, 1, "HTTP 401"),
            ((*common, "--kinds", "long"), 2, "kinds must be of"),
            ((*common, "--base-url", "localhost"), 2, "must start with http"),
            ((*common, "--api-key-file", tmp_path / "none"), 1, "none"),
            ((*common, "-o", tmp_path / "out.csv"), 1, "expected a .jsonl"),
            (("synthesize", "-o", out, "--base-url", url), 2, "--chat-model"),
        ):
            assert part in one_error(nvembed(*args), code)
    assert not out.exists()
