"""The device thread: answers under concurrency, failures, cancellation, the end."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nvembed_jax.serve import waiting
from nvembed_jax.serve.batcher import Batcher
from nvembed_jax.serve.errors import ServeError
from nvembed_jax.serve.metrics import Metrics
from nvembed_jax.serve.models import ServedModel
from nvembed_jax.serve.settings import ServerSettings
from nvembed_jax.serve.tokens import tokenize


class Running:
    """A batcher of one model; `ask` blocks until its texts are embedded."""

    def __init__(self, embedder, **settings):
        self.model = ServedModel("m", embedder, 128)
        chosen = ServerSettings(warmup=False, **settings)
        self.batcher = Batcher([self.model], chosen, Metrics())

    def submit(self, texts):
        done = threading.Event()
        encoded = tokenize(self.model, texts, ("", ""), "NONE")
        return self.batcher.submit(self.model, encoded, done.set), done

    def ask(self, texts):
        job, done = self.submit(texts)
        assert done.wait(60)
        if job.error is not None:
            raise job.error
        return job.rows

    def __enter__(self):
        self.batcher.start()
        return self

    def __exit__(self, *error):
        self.batcher.stop()


def test_threads_get_their_own_rows(embedder):
    texts = [[f"{i} {j} " * (1 + (i * j) % 9) for j in range(1 + i % 6)] for i in range(60)]
    rows = {}
    with Running(embedder, max_queue_tokens=10**6) as running:

        def ask(i):
            rows[i] = running.ask(texts[i])

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert running.batcher.waiting_tokens == 0
    for i, asked in enumerate(texts):
        np.testing.assert_allclose(rows[i], embedder.encode_document(asked), atol=1e-6)


def test_jobs_wait_for_the_thread_and_fail_when_it_never_runs_them(embedder, monkeypatch):
    running = Running(embedder)
    job, done = running.submit(["a"])
    assert running.batcher.waiting_tokens == job.tokens > 0
    with running:
        assert done.wait(60)
    assert job.error is None
    with pytest.raises(ServeError, match="stopping"):
        running.submit(["a"])
    assert not running.batcher.is_alive


def test_stop_ends_what_runs_and_fails_what_waits(embedder, monkeypatch):
    running = Running(embedder)
    begun, run = threading.Event(), running.model.run

    def first_only(arrays):
        begun.set()
        running.batcher._stopping = True
        return run(arrays)

    running.model.run = first_only
    first, first_done = running.submit(["a"])
    second, second_done = running.submit(["word " * 30] * 30)
    with running:
        assert begun.wait(60)
    assert first_done.is_set()
    assert second_done.is_set()
    assert first.error is None
    assert second.error.status == 503
    assert running.batcher.waiting_tokens == 0


def test_a_cancelled_job_frees_its_place(embedder):
    running = Running(embedder, max_queue_tokens=2)
    (job, done), _ = running.submit(["word " * 30] * 5), running.submit(["a"])
    with pytest.raises(ServeError, match="queue is full") as caught:
        running.submit(["a"])
    assert caught.value.status == 429
    running.batcher.cancel(job)
    assert done.is_set()
    with running:
        assert running.ask(["a"]).shape == (1, 64)
        running.batcher.cancel(job)
        assert running.batcher.waiting_tokens == 0


def test_a_thread_that_ends_by_an_error_leaves_nobody_waiting(embedder, monkeypatch):
    running = Running(embedder)
    jobs = [running.submit(["word " * 30] * 10) for _ in range(3)]
    calls = iter([True, True])
    plan = waiting.cheapest_batches
    monkeypatch.setattr(waiting, "cheapest_batches", lambda *a, **k: next(calls) and plan(*a, **k))
    with running:
        for job, done in jobs:
            assert done.wait(60)
            assert job.error.status == 503
        running.batcher._thread.join(10)
        assert not running.batcher.is_alive
        assert running.batcher.waiting_tokens == 0


def test_wait_is_between_one_second_and_thirty(embedder):
    batcher = Running(embedder).batcher
    assert batcher.wait_s() == 1
    batcher._load = 10**9
    assert batcher.wait_s() == 30


def test_a_large_request_leaves_room_for_others(embedder):
    running = Running(embedder, max_queue_tokens=800)
    for _ in range(7):
        running.submit(["word " * 30] * 50)
    running.submit(["a"])
    running.submit(["word " * 30] * 50)
    with pytest.raises(ServeError, match="queue is full"):
        running.submit(["a"])
