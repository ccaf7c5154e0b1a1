"""A whole run in this process, and what it says to bad input."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path

import jax
import numpy as np
import pytest
import runs

from nvembed_jax import Embedder
from nvembed_jax.train import checkpoints, command, memory, trainer
from nvembed_jax.train.command import main
from nvembed_jax.train.config_file import load_config, parse_overrides
from nvembed_jax.train.metrics import MetricsLog
from nvembed_jax.train.recipe import parse_recipe
from nvembed_jax.train.trainer import Outcome, read_metrics
from nvembed_jax.train.workdir import open_workdir

Usage = namedtuple("Usage", "total used free")


def quiet(line: str) -> None:
    """Takes what a run says."""


def train(recipe, workdir, *, devices: int = 1, say=quiet) -> Outcome:
    """A run on some of the devices: one compiles fastest."""
    return trainer.train(recipe, workdir, devices=jax.devices()[:devices], say=say)


@pytest.fixture(autouse=True, scope="module")
def compiled_once(tmp_path_factory):
    """Runs of this file share their compiled programs."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return runs.write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("run")
    said: list[str] = []
    stage = runs.plain_recipe(data)["stage1"]
    stage |= {"steps": 3, "optimizer": {**stage["optimizer"], "ema_decay": 0.9}}
    outcome = train(
        runs.recipe(data, stage2=stage, save_stages=True, tensorboard=True),
        workdir,
        say=said.append,
    )
    assert outcome.model == workdir / "model"
    assert any("memory plan" in line and "total" in line for line in said)
    return workdir


def test_metrics_have_a_line_a_step(finished):
    lines = read_metrics(finished)
    assert [(row["stage"], row["step"]) for row in lines] == [
        *(("stage1", i) for i in range(1, 5)), *(("stage2", i) for i in range(5, 8)),
    ]  # fmt: skip
    assert [row["examples"] for row in lines] == [8 * i for i in range(1, 8)]
    for row in lines:
        assert np.isfinite(row["loss"])
        assert row["tokens_per_s"] > 0
    assert list((finished / "tensorboard").iterdir())


def test_models_load_and_differ_by_stage(finished):
    texts = ["river stone", "paper light"]
    last, first = (
        Embedder.from_pretrained(finished / name).encode(texts)
        for name in ("model", "models/stage1")
    )
    assert np.abs(last - first).max() > 1e-4
    assert json.loads((finished / "recipe.json").read_text())["stages"]["stage1"]["steps"] == 4


def test_a_finished_run_says_so(finished, data):
    recipe = json.loads((finished / "recipe.json").read_text())
    recipe.pop("version")
    stages = recipe.pop("stages")
    said: list[str] = []
    outcome = train(parse_recipe({**recipe, **stages}), finished, say=said.append)
    assert (outcome.model, outcome.step) == (finished / "model", 7)
    assert "finished" in said[0]


def test_another_config_is_refused_with_what_differs(finished, data):
    plain = runs.plain_recipe(data, save_stages=True)
    plain["stage1"]["steps"] = 5
    with pytest.raises(ValueError, match=r"stages\.stage1\.steps: 4 there, 5 asked for"):
        train(parse_recipe(plain), finished)


def test_a_run_of_a_version_without_a_key_has_its_default(finished, tmp_path):
    written = json.loads((finished / "recipe.json").read_text())
    plain = {key: value for key, value in written.items() if key not in ("version", "stages")}
    recipe = parse_recipe({**plain, **written["stages"]})
    del written["teacher_length"], written["stages"]["stage1"]["accumulate"]
    (tmp_path / "recipe.json").write_text(json.dumps(written))
    assert not open_workdir(tmp_path, recipe)
    written["stages"]["stage1"]["accumulate"] = 2
    (tmp_path / "recipe.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"stages\.stage1\.accumulate: 2 there, 1 asked for"):
        open_workdir(tmp_path, recipe)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"query": "a", "positive": ', "JSON"),
        ('{"query": "a"}', "positive"),
        ('{"query": "a", "positive": " "}', "blank"),
        ('{"query": "a", "positive": "b", "negatives": ["b"]}', "also a positive"),
        ('{"query": 3, "positive": "b"}', "expected a string"),
        ('{"query": "a", "positive": "b", "negatives": ["c", 4]}', "expected a string"),
        ('["a", "b"]', "object"),
        ('{"query": "a", "positives": "b"}', "positive"),
    ],
)
def test_bad_rows_stop_before_training_with_their_place(tmp_path, line, words):
    file = runs.write_pairs(tmp_path / "bad.jsonl", 10)
    lines = file.read_text().splitlines()
    lines.insert(7, line)
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"bad\.jsonl:8: .*({words})"):
        train(runs.recipe(file), tmp_path / "run")
    assert file.read_text().splitlines() == lines


def test_missing_data_and_no_data_are_named(tmp_path, data):
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
        train(runs.recipe(tmp_path / "gone.jsonl"), tmp_path / "a")
    plain = runs.plain_recipe(data)
    plain["stage1"]["data"] = ""
    with pytest.raises(ValueError, match="no data"):
        train(parse_recipe(plain), tmp_path / "b")


def test_unknown_keys_show_the_nearest(data):
    plain = runs.plain_recipe(data)
    plain["stage1"]["batchsize"] = 4
    with pytest.raises(ValueError, match=r"config.stage1: unknown key 'batchsize'.*batch_size"):
        parse_recipe(plain)


def test_overrides_are_typed_and_checked(tmp_path, data):
    file = runs.write_config(tmp_path / "config.py", runs.plain_recipe(data))
    given = [
        "--config.stage1.steps=9",
        "--config.stage2.optimizer.learning_rate",
        "1",
        "--config.name=x",
    ]
    config = load_config(file, parse_overrides(given))
    assert (config.stage1.steps, config.name) == (9, "x")
    assert config.stage2.optimizer.learning_rate == 1.0
    for bad, words in (
        ({"stage1.stepz": "1"}, "did you mean stage1.steps"),
        ({"stage1.steps": "many"}, "type int"),
        ({"stage1": "1"}, "several values"),
    ):
        with pytest.raises(ValueError, match=words):
            load_config(file, bad)
    with pytest.raises(ValueError, match=r"--config\.KEY=VALUE"):
        parse_overrides(["--steps=3"])


def test_a_batch_that_does_not_split_is_refused(tmp_path, data):
    plain = runs.plain_recipe(data)
    plain["stage1"]["batch_size"] = 6
    with pytest.raises(ValueError, match="batch_size 6 does not split over the 8 devices"):
        train(parse_recipe(plain), tmp_path / "run", devices=8)


def test_a_plan_that_does_not_fit_is_refused_with_numbers(tmp_path, data, monkeypatch):
    monkeypatch.setattr(trainer, "device_limit", lambda: 1 << 16)
    with pytest.raises(MemoryError, match=r"MiB of 0\.1 MiB planned .*chunk_size"):
        train(runs.recipe(data), tmp_path / "run")


def test_the_plan_counts_state_exactly():
    plan = memory.MemoryPlan({"a": 1 << 30, "b": 1 << 20}, limit=2 << 30)
    plan.check()
    assert plan.total == (1 << 30) + (1 << 20)
    with pytest.raises(MemoryError, match=r"1\.00 GiB of 1\.0 MiB"):
        dataclasses.replace(plan, limit=1 << 20).check()


def test_a_full_disk_keeps_what_was_saved(tmp_path, data, monkeypatch):
    whole = tmp_path / "whole"
    train(runs.recipe(data), whole)
    calls = iter(range(100))

    def usage(path):
        return Usage(1, 1, 10**12 if next(calls) == 0 else 10)

    monkeypatch.setattr(checkpoints.shutil, "disk_usage", usage)
    with pytest.raises(OSError, match="are whole") as caught:
        train(runs.recipe(data), tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    outcome = train(runs.recipe(data), tmp_path / "run")
    assert outcome.resumed_from == 2
    assert runs.model_hash(tmp_path / "run") == runs.model_hash(whole)


def test_a_broken_checkpoint_is_left_aside(tmp_path, data, caplog):
    train(runs.recipe(data, checkpoint_every=1), tmp_path)
    before = runs.model_hash(tmp_path)
    shutil.rmtree(tmp_path / "model")
    for file in (tmp_path / "checkpoints" / "7" / "facts").rglob("*"):
        file.write_bytes(b"")
    outcome = train(runs.recipe(data, checkpoint_every=1), tmp_path)
    assert outcome.resumed_from == 6
    assert "not readable" in caplog.text
    assert len(list((tmp_path / "checkpoints").glob("broken-7-*"))) == 1
    assert runs.model_hash(tmp_path) == before


def test_changed_data_is_refused(tmp_path, data):
    mine = tmp_path / "pairs.jsonl"
    shutil.copy(data, mine)
    train(runs.recipe(mine), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    runs.write_pairs(mine, seed=5)
    with pytest.raises(ValueError, match=r"the training data .* changed"):
        train(runs.recipe(mine), tmp_path / "run")


def test_a_diverging_loss_stops_the_run(tmp_path, data):
    plain = runs.plain_recipe(data)
    plain["stage1"]["optimizer"] = {"name": "sgd", "learning_rate": 1e30, "clip_norm": 0.0}
    with pytest.raises(FloatingPointError, match="the loss of step"):
        train(parse_recipe(plain), tmp_path)


def test_the_module_is_a_command(tmp_path, data, capsys):
    file = runs.write_config(tmp_path / "config.py", runs.plain_recipe(data))
    assert main(["--config", str(file), "--workdir", str(tmp_path / "run"), "--plan"]) == 0
    assert "small, stage2: memory of a device" in capsys.readouterr().out
    assert main(["--config", str(tmp_path / "no.py"), "--workdir", str(tmp_path)]) == 1
    assert "error: no config file" in capsys.readouterr().err


def test_a_lean_install_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "PACKAGES", ("grain", "no_such_package"))
    assert main(["--config", "x.py", "--workdir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "training needs no_such_package" in said
    assert "nvembed_jax[train]" in said


def test_only_the_first_process_has_the_metrics_file(tmp_path, monkeypatch):
    first = MetricsLog(tmp_path, 0)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    later = MetricsLog(tmp_path, 0)
    first.write({"stage": "stage1", "step": 1, "loss": 0.5})
    later.write({"stage": "stage1", "step": 2, "loss": 0.5})
    first.close()
    later.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
