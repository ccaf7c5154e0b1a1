"""Killed, stopped, moved to another mesh: a run ends as if nothing had happened."""

from __future__ import annotations

import random
import shutil
import signal
import time

import pytest
import runs

KILLS = 10


@pytest.mark.slow
def test_killed_ten_times_ends_bit_identical(tmp_path):
    """SIGKILL at random moments, with a checkpoint after every step: many fall into a save."""
    data = runs.write_pairs(tmp_path / "pairs.jsonl")
    plain = runs.plain_recipe(data, checkpoint_every=1, log_every=1)
    plain["stage1"]["steps"], plain["stage2"]["steps"] = 40, 20
    config = runs.write_config(tmp_path / "config.py", plain)
    runs.finish(runs.start(config, tmp_path / "whole"))
    rng = random.Random(0)
    for _ in range(KILLS):
        process = runs.start(config, tmp_path / "killed")
        _wait_for_steps(process, rng.randint(0, 5))
        time.sleep(rng.uniform(0, 0.1))
        assert process.poll() is None, "finished before all kills"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    said = runs.finish(runs.start(config, tmp_path / "killed"))
    assert "resumes behind" in said
    assert runs.model_hash(tmp_path / "killed") == runs.model_hash(tmp_path / "whole")
    assert runs.losses(tmp_path / "killed") == runs.losses(tmp_path / "whole")


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    data = runs.write_pairs(tmp_path / "pairs.jsonl")
    plain = runs.plain_recipe(data, checkpoint_every=1000)
    plain["stage1"]["steps"] = 200
    config = runs.write_config(tmp_path / "config.py", plain)
    process = runs.start(config, tmp_path / "run")
    _wait_for_steps(process, 2)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "the same command goes on" in said
    stopped = runs.losses(tmp_path / "run")[-1][1]
    said = runs.finish(runs.start(config, tmp_path / "run"))
    assert f"resumes behind step {stopped}" in said
    assert [step for _, step, _ in runs.losses(tmp_path / "run")] == list(range(1, 204))


def test_another_mesh_goes_on_with_the_same_batches(tmp_path):
    data = runs.write_pairs(tmp_path / "pairs.jsonl")
    plain = runs.plain_recipe(data, checkpoint_every=1, mesh={"data": -1, "fsdp": 1, "tensor": 1})
    config = runs.write_config(tmp_path / "config.py", plain)
    runs.finish(runs.start(config, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "model")
    shutil.rmtree(tmp_path / "moved" / "checkpoints" / "7")  # six steps of seven are left
    options = ["--config.mesh.data=2", "--config.mesh.fsdp=2"]
    said = runs.finish(runs.start(config, tmp_path / "moved", *options, devices=4))
    assert "resumes behind step 6" in said
    expected, got = runs.losses(tmp_path / "whole"), runs.losses(tmp_path / "moved")
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    assert [row[2] for row in got] == pytest.approx([row[2] for row in expected], rel=1e-5)


def _wait_for_steps(process, count: int) -> None:
    """Until a run has reported so many steps more; it reports some, or all, as it goes."""
    while count:
        line = process.stdout.readline()
        assert line, "the run ended"
        count -= " step " in line and "/" in line
