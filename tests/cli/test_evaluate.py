"""`nvembed evaluate`: results, reports and plots; many folders and models; failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAIRS = [
    ("cats purr", "a cat purrs"),
    ("rain falls", "it rains"),
    ("iron rusts", "rusty iron"),
    ("bread bakes", "the moon"),
    ("we sing", "tax law"),
    ("fast trains", "sour milk"),
]


def write_task(folder: Path, type: str, main_score: str, **files: str) -> Path:
    folder.mkdir(parents=True)
    facts = {"name": folder.name, "type": type, "instruction": f"Find {type}"}
    (folder / "task.json").write_text(json.dumps({**facts, "main_score": main_score}))
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def sets(tmp_path) -> Path:
    """A folder of two tasks: animals (retrieval) and pairs (sts)."""
    folder = tmp_path / "sets"
    corpus = [{"_id": f"d{i}", "text": b} for i, (_, b) in enumerate(PAIRS)]
    queries = [{"_id": f"q{i}", "text": a} for i, (a, _) in enumerate(PAIRS)]
    qrels = "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(6))
    write_task(folder / "animals", "retrieval", "ndcg_at_10", corpus_jsonl=lines(corpus),
               queries_jsonl=lines(queries), qrels_tsv=qrels)  # fmt: skip
    rows = [{"text1": a, "text2": b, "score": 6 - i} for i, (a, b) in enumerate(PAIRS)]
    write_task(folder / "pairs", "sts", "cosine_spearman", sts_jsonl=lines(rows))
    return folder


def test_results_report_and_plot_are_written(nvembed, sets, tmp_path, model_folder, model):
    out, report, plot = (tmp_path / name for name in ("r.json", "r.md", "r.svg"))
    result = nvembed(
        "evaluate", "--tasks", sets, "--baseline", "bm25", "-o", out, "--report", report,
        "--plot", plot,
    )  # fmt: skip
    assert result.code == 0, result.err
    document = json.loads(out.read_text())
    assert (document["model"], document["fingerprint"]) == (str(model_folder), model.fingerprint)
    assert list(document["tasks"]) == ["animals", "pairs"]
    assert document["tasks"]["animals"]["main_score"] == "ndcg_at_10"
    assert 0 < document["tasks"]["animals"]["score"] <= 1
    assert set(document["averages"]) == {"retrieval", "sts", "macro", "mean_of_tasks"}
    assert [run["model"] for run in document["others"]] == ["bm25"]
    assert f"{100 * document['averages']['macro']:.1f}" in result.out
    assert result.err.splitlines() == [f"nvembed: wrote {p}" for p in (out, report, plot)]
    assert "## bm25 against" in report.read_text()
    assert "Find retrieval" in report.read_text()
    assert b"<svg" in plot.read_bytes()


def test_folders_may_follow_one_option_or_several(nvembed, sets, tmp_path):
    out = tmp_path / "r.json"
    for args in (
        ("--tasks", sets / "pairs", sets / "animals", "-o", out),
        ("-o", out, "--tasks", sets / "pairs", "--tasks", sets / "animals"),
    ):
        assert nvembed("evaluate", *args).code == 0
        assert list(json.loads(out.read_text())["tasks"]) == ["pairs", "animals"]


def test_several_models_stand_side_by_side(nvembed, sets, tmp_path, model_folder, make_model):
    other, out = make_model(1), tmp_path / "r.json"
    args = ("--tasks", sets / "animals", "-o", out, "--report", tmp_path / "r.md")
    assert nvembed("evaluate", *args, "-m", model_folder, "-m", other).code == 0
    document = json.loads(out.read_text())
    assert document["model"] == str(model_folder)
    assert [run["model"] for run in document["others"]] == [str(other)]
    assert document["fingerprint"] != document["others"][0]["fingerprint"]
    assert f"## {other} against {model_folder}" in (tmp_path / "r.md").read_text()


def test_what_is_there_is_not_computed_again(nvembed, sets, tmp_path, monkeypatch):
    args = ("evaluate", "--tasks", sets, "-o", tmp_path / "r.json")
    assert nvembed(*args).code == 0
    before = (tmp_path / "r.json").read_text()
    monkeypatch.setattr("nvembed_jax.eval.runner.score_task", lambda *_: 1 / 0)
    assert nvembed(*args).code == 0
    assert (tmp_path / "r.json").read_text() == before
    assert "ZeroDivisionError" in nvembed(*args, "--seed", "1").err


def test_options_reach_the_scores(nvembed, sets, tmp_path):
    def settings(*args):
        assert nvembed("evaluate", "--tasks", sets, "-o", tmp_path / "r.json", *args).code == 0
        return json.loads((tmp_path / "r.json").read_text())

    chosen = settings("--limit", 3, "--seed", 5, "--protocol", "quick", "--samples-per-label", 4)
    assert chosen["settings"] == {
        "protocol": "quick", "limit": 3, "seed": 5, "samples_per_label": 4,
    }  # fmt: skip
    assert chosen["tasks"]["animals"]["size"] == 3
    whole, short = settings(), settings("--truncate-dim", 8)
    assert whole["tasks"]["pairs"]["scores"] != short["tasks"]["pairs"]["scores"]


def test_failures_are_one_line_and_write_nothing(nvembed, one_error, sets, tmp_path):
    (sets / "broken").mkdir()
    (sets / "broken" / "task.json").write_text("{")
    good, out = sets / "pairs", tmp_path / "r.json"
    for args, code, part in (
        (("--tasks", sets / "broken", "-o", out), 1, "task.json:1: not JSON"),
        (("--tasks", tmp_path / "no", "-o", out), 1, "no such folder"),
        (("--tasks", tmp_path / "no", sets / "broken", "-o", out), 1, "none of the 2 tasks"),
        (("--tasks", good, "-o", tmp_path / "no" / "r.json"), 1, "there is no folder"),
        (("--tasks", good, "-o", tmp_path / "r.txt"), 2, "-o takes a .json file"),
        (("--tasks", good, "-o", out, "--plot", "p.txt"), 2, "--plot takes .pdf"),
        (("--tasks", good, "-o", out, "--report", tmp_path / "no" / "r.md"), 1, "no folder"),
        (("--tasks", good, "-o", out, "--baseline", "bm25"), 1, "no task is of these types"),
        (("--tasks", good, "-o", out, "-m", tmp_path / "nomodel"), 1, "nomodel"),
        (("--tasks", good, "-o", out, "--limit", "0"), 2, "--limit"),
        (("-o", out), 2, "--tasks"),
    ):
        assert part in one_error(nvembed("evaluate", *args), code)
    assert sorted(os.listdir(tmp_path)) == ["sets"]


def test_what_fails_is_told_and_the_rest_is_written(nvembed, sets, tmp_path, monkeypatch):
    (sets / "broken").mkdir()
    (sets / "broken" / "task.json").write_text("{")
    (sets / "animals" / "qrels.tsv").unlink()
    out, report = tmp_path / "r.json", tmp_path / "r.md"
    args = ("--tasks", sets, tmp_path / "no", "-o", out, "--report", report, "--baseline", "bm25")
    result = nvembed("evaluate", *args)
    assert result.code == 1
    *notes, wrote, wrote_report, last = result.err.splitlines()
    assert [note.partition(" failed: ")[0] for note in notes] == [
        "nvembed: animals", "nvembed: broken", "nvembed: no",
    ]  # fmt: skip
    assert "qrels.tsv: no such file" in notes[0]
    assert "task.json:1: not JSON" in notes[1]
    assert "no such folder" in notes[2]
    assert (wrote, wrote_report) == (f"nvembed: wrote {out}", f"nvembed: wrote {report}")
    assert last.startswith("nvembed: error: ")
    assert last.endswith("failed: animals, broken, no")
    document = json.loads(out.read_text())
    assert list(document["tasks"]) == ["pairs"]
    assert list(document["failed"]) == ["animals", "broken", "no"]
    assert "qrels.tsv: no such file" in report.read_text()
    assert "Traceback" not in result.err
    monkeypatch.setenv("NVEMBED_DEBUG", "1")
    with pytest.raises(ValueError, match="failed: animals, broken, no"):
        nvembed("evaluate", *args)


def test_a_model_that_cannot_be_loaded_leaves_the_others(nvembed, sets, tmp_path, model_folder):
    out = tmp_path / "r.json"
    args = ("--tasks", sets, "-o", out, "-m", tmp_path / "nomodel", "-m", model_folder)
    result = nvembed("evaluate", *args, "--report", tmp_path / "r.md", "--plot", tmp_path / "r.svg")
    assert result.code == 1
    assert result.err.splitlines()[0].startswith(
        f"nvembed: {tmp_path / 'nomodel'} failed: no model"
    )
    document = json.loads(out.read_text())
    assert (document["tasks"], list(document["failed"])) == ({}, ["animals", "pairs"])
    (other,) = document["others"]
    assert (list(other["tasks"]), other["failed"]) == (["animals", "pairs"], {})
    assert "| failed |" in (tmp_path / "r.md").read_text()


def test_tasks_of_mteb_go_to_mteb(nvembed, one_error, sets, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "nvembed_jax.eval.mteb_encoder.hub_tasks", lambda names: asked.append(list(names)) or []
    )
    out = tmp_path / "r.json"
    assert nvembed("evaluate", "--tasks", sets, "--mteb", "SciFact", "-o", out).code == 0
    args = ("--mteb", "SciFact", "STS12", "--mteb", "NQ", "-o", out)
    assert "got 0 and 1" in one_error(nvembed("evaluate", *args), 1)
    assert asked == [["SciFact"], ["SciFact", "NQ", "STS12"]]
    assert "give --tasks DIR or --mteb NAME" in one_error(nvembed("evaluate", "-o", out), 2)


def test_help_shows_examples_and_imports_nothing_heavy(nvembed):
    result = nvembed("evaluate", "--help")
    assert result.code == 0
    assert "Examples:\n    nvembed evaluate --tasks" in result.out
    script = (
        "import sys\n"
        "from nvembed_jax.cli.main import run\n"
        "assert run(['evaluate', '--help']) == 0\n"
        "heavy = {'jax', 'numpy', 'sklearn', 'scipy', 'matplotlib', 'bm25s'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
