"""The Ray backend without a cluster: what actors ask for, and what an actor does."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from made_corpus import WrongModel, files, make_job, write_corpus

from nvembed_jax.corpus.manifest import BLOCK, make_plan
from nvembed_jax.corpus.ray_backend import ActorRequest, PartActor, actor_request
from nvembed_jax.corpus.shards import encode_corpus
from nvembed_jax.corpus.source import scan


@pytest.mark.parametrize(
    ("resources", "workers", "expected"),
    [
        ({"CPU": 8}, None, ActorRequest(1, {"num_cpus": 1.0})),
        ({"CPU": 8}, 7, ActorRequest(7, {"num_cpus": 1.0})),
        ({"CPU": 2}, 2, ActorRequest(2, {"num_cpus": 0.5})),
        ({"CPU": 1}, 2, ActorRequest(2, {"num_cpus": 0.25})),
        ({"CPU": 4}, 9, ActorRequest(9, {"num_cpus": 0.3333})),
        ({"CPU": 16, "GPU": 4.0}, None, ActorRequest(4, {"num_gpus": 1.0})),
        ({"CPU": 2, "GPU": 4}, 3, ActorRequest(3, {"num_gpus": 1.0})),
    ],
)
def test_actors_leave_a_cpu_for_the_tasks_that_feed_them(resources, workers, expected):
    request = actor_request(resources, workers)
    assert request == expected
    assert request.actors * request.resources.get("num_cpus", 0) <= max(resources["CPU"] - 1, 0.5)


@pytest.mark.parametrize(
    ("resources", "workers", "words"),
    [
        ({}, None, "no CPUs"),
        ({"CPU": 8, "GPU": 2}, 3, "3 workers for the 2 GPUs"),
        ({"CPU": 1}, 10_000, "10000 workers are too many"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(resources, workers, words):
    with pytest.raises(ValueError, match=words):
        actor_request(resources, workers)


def test_an_actor_writes_the_parts_that_local_processes_write(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.jsonl", 100)
    encode_corpus(make_job(corpus, tmp_path / "whole"))
    job = make_job(corpus, tmp_path / "out")
    plan = make_plan("corpus.jsonl", scan(job.source, BLOCK), BLOCK, None, ".parquet")
    job.folder.mkdir()
    actor = PartActor(job, plan)
    for number in (1, 0, 1):
        assert actor({"number": np.array([number])}) == {"number": [number], "error": [""]}
    assert encode_corpus(job).encoded == 0
    assert files(job.folder) == files(tmp_path / "whole")


def test_an_actor_hands_errors_back_as_text(tmp_path):
    job = make_job(write_corpus(tmp_path / "corpus.jsonl", 3), tmp_path / "out", WrongModel)
    plan = make_plan("corpus.jsonl", scan(job.source, BLOCK), BLOCK, None, ".parquet")
    job.folder.mkdir()
    assert PartActor(job, plan)({"number": np.array([0])})["error"] == ["cannot encode 3 texts"]


def test_a_missing_ray_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = make_job(write_corpus(tmp_path / "corpus.jsonl", 3), tmp_path / "out")
    with pytest.raises(ImportError, match=r"nvembed_jax\[ray\]"):
        encode_corpus(job, backend="ray")
