"""Several worker processes: deaths of workers and of the driver, errors, GPUs and cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from made_corpus import (
    DeadModel,
    DyingModel,
    QuickModel,
    WrongModel,
    files,
    loaded,
    make_job,
    write_corpus,
)

from nvembed_jax.corpus import processes
from nvembed_jax.corpus.processes import Slot, make_slots, visible_gpus
from nvembed_jax.corpus.shards import encode_corpus

COUNT = 300


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """However many this machine has; the workers are not bound to any."""
    slots = partial(make_slots, gpus=[], cores=[0, 1])
    free = [Slot({}, ()) for _ in slots(2)]
    monkeypatch.setattr(processes, "make_slots", lambda count, gpus, cores: free[:count])
    monkeypatch.setattr(processes, "visible_gpus", lambda environment: [])


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl", COUNT)


@pytest.fixture
def whole(tmp_path, corpus):
    encode_corpus(make_job(corpus, tmp_path / "whole"))
    return files(tmp_path / "whole")


def test_killed_workers_are_replaced_and_the_bytes_stay(tmp_path, corpus, whole):
    marks, said = tmp_path / "marks", []
    marks.mkdir()
    for number in range(3):
        (marks / f"die{number}").touch()
    job = make_job(corpus, tmp_path / "out", loaded(DyingModel, marks))
    report = encode_corpus(job, workers=2, say=said.append)
    assert (report.encoded, report.complete) == (COUNT, True)
    assert files(tmp_path / "out") == whole
    assert len(said) == 3
    assert all("a worker ended (signal 9) at part-0000" in line for line in said)


def test_workers_that_always_die_end_the_run(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(processes, "MOST_DEATHS", 2)
    with pytest.raises(
        ChildProcessError, match=r"2 times in a row, the last \(signal 9\) at part-"
    ):
        encode_corpus(make_job(corpus, tmp_path / "out", DeadModel), workers=2)


def test_an_error_of_a_worker_is_raised_here(tmp_path, corpus, whole):
    with pytest.raises(ValueError, match="cannot encode 64 texts"):
        encode_corpus(make_job(corpus, tmp_path / "out", WrongModel), workers=2)
    job = make_job(corpus, tmp_path / "whole", loaded(QuickModel, "other"))
    with pytest.raises(ValueError, match="with model quick"):
        encode_corpus(job, workers=2)


DRIVER = """
import sys
from pathlib import Path
from made_corpus import SlowModel, loaded, make_job
from nvembed_jax.corpus import processes
from nvembed_jax.corpus.processes import Slot
from nvembed_jax.corpus.shards import encode_corpus

if __name__ == "__main__":
    processes.make_slots = lambda count, gpus, cores: [Slot({}, ())] * count
    corpus, out, marks = map(Path, sys.argv[1:])
    encode_corpus(make_job(corpus, out, loaded(SlowModel, marks)), workers=2)
"""


def test_a_killed_driver_takes_its_workers_along(tmp_path, corpus, whole):
    marks, out = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    driver = subprocess.Popen(
        [sys.executable, str(script), str(corpus), str(out), str(marks)], env=environment
    )
    try:
        wait_for(lambda: len(list(marks.iterdir())) == 2 and list(out.glob("part-*")))
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    workers = [int(path.name.removeprefix("worker-")) for path in marks.iterdir()]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert encode_corpus(make_job(corpus, out)).encoded < COUNT
    assert files(out) == whole


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "3, 5"}, ["3", "5"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"JAX_PLATFORMS": "cpu"}, []),
    ],
)
def test_visible_gpus(tmp_path, environment, expected):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "null"):
        (tmp_path / name).touch()
    assert visible_gpus(environment, tmp_path) == expected


def test_a_gpu_a_worker_or_a_share_of_the_cores():
    assert make_slots(2, ["4", "7", "9"], [0]) == [
        Slot({"CUDA_VISIBLE_DEVICES": "4"}, ()),
        Slot({"CUDA_VISIBLE_DEVICES": "7"}, ()),
    ]
    assert make_slots(2, [], [0, 2, 4, 6, 8]) == [Slot({}, (0, 2)), Slot({}, (4, 6))]
    with pytest.raises(ValueError, match="3 workers for 2 GPUs"):
        make_slots(3, ["0", "1"], [0])
    assert make_slots(3, [], [0, 5]) == [Slot({}, (0,)), Slot({}, (5,)), Slot({}, (0,))]
