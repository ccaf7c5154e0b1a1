"""Paired intervals, and the report made of runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from made_tasks import INSTRUCTION, FakeModel, RandomModel, write_all

from nvembed_jax.eval import compare, evaluate, probes, read_runs
from nvembed_jax.eval.report import markdown, plot, score_tables
from nvembed_jax.eval.results import Run, write_examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All tasks below sets/, and results.json of three runs on them."""
    folder = tmp_path_factory.mktemp("compare")
    tasks = write_all(folder / "sets")
    models = {"good|model": FakeModel(), "bad": RandomModel()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "CLUSTER_SAMPLE", 256)
        evaluate(models, tasks, out=folder / "results.json", baselines=["bm25"])
    return folder


@pytest.fixture
def runs(folder) -> list[Run]:
    return read_runs(folder / "results.json")


def made_run(folder, name: str, **columns) -> Run:
    """A run of one retrieval task with the given scores of its queries."""
    path = folder / f"{name}.npz"
    values = np.asarray(columns.pop("values"))
    examples = {"id": np.arange(len(values)), "ndcg_at_10": values, **columns}
    write_examples(path, {}, examples)
    result = {"type": "retrieval", "main_score": "ndcg_at_10", "score": float(values.mean()),
              "size": len(values), "fingerprint": "f", "examples": path.name}  # fmt: skip
    return Run(model=name, fingerprint=name, takes_instructions=True, tasks={"t": result},
               averages={}, settings={}, folder=folder)  # fmt: skip


def test_a_run_does_not_differ_from_itself(runs):
    comparison = compare(runs[0], runs[0], samples=20)
    for part in (*comparison.tasks.values(), comparison.macro):
        assert (part.value, part.low, part.high, part.clear) == (0, 0, 0, False)


def test_the_better_run_is_clearly_better(runs):
    comparison = compare(runs[1], runs[0], samples=100)
    assert (comparison.first, comparison.second) == ("bad", "good|model")
    assert comparison.macro.clear
    for name, part in comparison.tasks.items():
        assert part.low <= part.value <= part.high or name == "summarization"
    for name in ("retrieval", "classification", "clustering", "reranking", "pair_classification"):
        assert comparison.tasks[name].low > 0
    assert comparison.macro.value == pytest.approx(
        runs[0].averages["macro"] - runs[1].averages["macro"]
    )


def test_turning_the_runs_round_turns_the_interval(runs):
    a, b = compare(runs[0], runs[1], samples=50), compare(runs[1], runs[0], samples=50)
    for name, part in a.tasks.items():
        assert part.value == -b.tasks[name].value
        assert (part.low, part.high) == pytest.approx((-b.tasks[name].high, -b.tasks[name].low))


def test_the_interval_has_the_width_of_the_paired_standard_error(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.random(400)
    second = first + rng.normal(0.01, 0.05, size=400)  # paired: far less spread than each has
    part = compare(
        made_run(tmp_path, "a", values=first), made_run(tmp_path, "b", values=second), samples=2000
    ).tasks["t"]
    error = (second - first).std(ddof=1) / np.sqrt(400)
    assert part.high - part.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert (part.low + part.high) / 2 == pytest.approx(part.value, abs=error / 4)


def test_the_macro_difference_weighs_types_alike(runs):
    comparison = compare(runs[0], runs[1], samples=10)
    assert comparison.types.keys() == {r["type"] for r in runs[0].tasks.values()}
    assert comparison.macro.value == pytest.approx(
        np.mean([part.value for part in comparison.types.values()])
    )


def test_results_files_can_be_compared_by_path(folder, tmp_path):
    evaluate(RandomModel(), [folder / "sets" / "sts"], out=tmp_path / "other.json")
    comparison = compare(folder / "results.json", str(tmp_path / "other.json"), samples=10)
    assert list(comparison.tasks) == ["sts"]
    assert (comparison.first, comparison.second) == ("good|model", "RandomModel")


def test_runs_that_were_scored_otherwise_are_not_compared(runs, tmp_path):
    other_files = {"sts": {**runs[0].tasks["sts"], "fingerprint": "x"}}
    for change in ({"settings": {"seed": 1}}, {"tasks": other_files}):
        with pytest.raises(ValueError, match="on other rows or with other settings"):
            compare(runs[0], dataclasses.replace(runs[1], **change), samples=5)
    a = made_run(tmp_path, "a", values=[1.0, 0.0])
    b = made_run(tmp_path, "b", values=[1.0, 0.0, 0.5])
    with pytest.raises(ValueError, match="on other rows"):
        compare(a, b, samples=5)
    with pytest.raises(ValueError, match="no task in common"):
        compare(runs[0], a)
    for wrong in ({"samples": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="expected samples >= 1"):
            compare(a, a, **wrong)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_report_shows_scores_instructions_and_intervals(runs):
    text = markdown(runs, [compare(runs[0], run, samples=20) for run in runs[1:]])
    lines = text.splitlines()
    rows = {cells(line)[0]: cells(line) for line in lines if line.startswith("| ")}
    table = score_tables(runs)
    assert table in text
    header, *_ = table.splitlines()
    assert cells(header) == ["task", "type", "score", "rows", r"good\|model", "bad", "bm25"]
    retrieval = [cells(line) for line in table.splitlines() if "retrieval" in line]
    assert retrieval[0][:5] == ["retrieval", "retrieval", "ndcg@10", "4", "100.0"]
    macro = rows["**macro average over types**"]
    assert macro[2] == "100.0"
    assert macro[4] == ""  # BM25 did not score all types
    assert "## bm25 against good\\|model" in lines
    assert rows["sts"][1] == INSTRUCTION
    assert "Runs that read no instructions: bm25." in text
    assert "Protocol mteb, all rows, seed 0." in text


def test_every_table_has_the_same_number_of_cells(runs):
    text = markdown(runs, [compare(runs[0], runs[2], samples=5)])
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(cells(line)) for line in block.splitlines()}) == 1


def test_plots_are_written_by_suffix(runs, tmp_path):
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        plot(runs, tmp_path / f"p{suffix}")
        assert (tmp_path / f"p{suffix}").read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"expected \.pdf, \.png, \.svg"):
        plot(runs, tmp_path / "p.txt")
