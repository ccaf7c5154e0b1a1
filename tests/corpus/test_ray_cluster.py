"""The Ray backend on a cluster of this machine: the bytes of the local one, deaths included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_corpus import files, make_job, write_corpus

from nvembed_jax.corpus.shards import encode_corpus

pytestmark = pytest.mark.slow
COUNT = 300
# In a process of its own: Ray leaves threads and warnings behind.
DRIVER = """
import sys
from pathlib import Path
import ray
from made_corpus import DyingModel, QuickModel, SlowModel, WrongModel, loaded, make_job
from nvembed_jax.corpus.shards import encode_corpus

kind, corpus, out, marks, cpus = sys.argv[1], *map(Path, sys.argv[2:5]), int(sys.argv[5])
ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False)
model = {"quick": QuickModel, "wrong": WrongModel, "dying": loaded(DyingModel, marks),
         "slow": loaded(SlowModel, marks), "other": loaded(QuickModel, "other")}[kind]
try:
    print(encode_corpus(make_job(corpus, out, model), backend="ray", workers=2))
except ValueError as error:
    print("ValueError:", error)
"""


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl", COUNT)


@pytest.fixture
def whole(tmp_path, corpus):
    encode_corpus(make_job(corpus, tmp_path / "whole"))
    return files(tmp_path / "whole")


@pytest.fixture
def start(tmp_path, corpus):
    """(kind of model, CPUs of the cluster) -> the process that encodes into `out`."""
    script, marks = tmp_path / "driver.py", tmp_path / "marks"
    script.write_text(DRIVER)
    marks.mkdir()
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}

    def run(kind: str, cpus: int = 2) -> subprocess.Popen:
        command = [sys.executable, str(script), kind]
        command += [str(corpus), str(tmp_path / "out"), str(marks), str(cpus)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    return run


def said(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


@pytest.mark.parametrize("cpus", [1, 2])
def test_actors_write_what_local_processes_write(tmp_path, start, whole, cpus):
    assert "encoded=300, complete=True" in said(start("quick", cpus))
    assert files(tmp_path / "out") == whole
    assert "encoded=0, complete=True" in said(start("quick"))
    assert "ValueError: " in (refused := said(start("other")))
    assert "was begun with model quick" in refused
    assert files(tmp_path / "out") == whole


def test_killed_actors_are_replaced(tmp_path, start, whole):
    for number in range(2):
        (tmp_path / "marks" / f"die{number}").touch()
    assert "complete=True" in said(start("dying"))
    assert not list((tmp_path / "marks").glob("die*"))
    assert files(tmp_path / "out") == whole


def test_a_killed_driver_goes_on_to_the_same_bytes(tmp_path, start, whole):
    process = start("slow")
    end = time.monotonic() + 200
    while not list((tmp_path / "out").glob("part-*")):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert "complete=True" in said(start("quick"))
    assert files(tmp_path / "out") == whole


def test_an_error_of_an_actor_is_raised_in_the_driver(start):
    assert "ValueError: cannot encode 64 texts" in said(start("wrong"))
