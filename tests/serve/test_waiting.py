"""The order in which texts of many requests are run, and which of them run together."""

from __future__ import annotations

import numpy as np
import pytest

from nvembed_jax.serve.job import Job
from nvembed_jax.serve.models import ServedModel
from nvembed_jax.serve.waiting import SPREAD, WaitingTexts, turns
from nvembed_jax.text.tokenizer import Encoded

BUDGET = 64


@pytest.fixture
def queue(embedder):
    return WaitingTexts(ServedModel("m", embedder, BUDGET))


def job(*lengths: int) -> Job:
    encoded = [Encoded(np.ones(n, np.int32), 0, n) for n in lengths]
    return Job(encoded, 64, lambda: None)


def drain(queue: WaitingTexts) -> list[list[tuple[int, int]]]:
    """Batches as (job's number, text's index) in the order of the rows."""
    batches, numbers = [], {}
    while queue.next_turn() is not None:
        batch = queue.pop_batch()
        assert batch.plan.length * batch.plan.rows <= BUDGET or len(batch.texts) == 1
        assert all(text.length <= batch.plan.length for text in batch.texts)
        batches.append(
            [(numbers.setdefault(id(t.job), len(numbers)), t.index) for t in batch.texts]
        )
    return batches


def test_turns_put_off_what_exceeds_a_batch():
    lengths = np.array([40, 60, 50])
    assert turns(lengths, 1000, 100) == [
        (1, 1000.0), (2, 1000.0), (0, 1000.0 + SPREAD * 10)
    ]  # fmt: skip


def test_every_text_runs_once(queue):
    jobs = [job(*np.random.default_rng(i).integers(1, 65, 30).tolist()) for i in range(8)]
    for i, one in enumerate(jobs):
        queue.push(one, i)
    found = [text for batch in drain(queue) for text in batch]
    assert sorted(found) == [(i, j) for i in range(8) for j in range(30)]


def test_texts_of_one_length_of_many_requests_run_together(queue):
    for now in range(4):
        queue.push(job(16, 64), now)
    assert sorted(map(len, drain(queue))) == [1, 1, 1, 1, 4]


def test_the_text_that_came_first_is_in_the_next_batch(queue):
    first, later = job(8), job(*[64] * 20)
    queue.push(first, 0)
    queue.push(later, 1)
    assert any(text.job is first for text in queue.pop_batch().texts)


def test_a_small_request_passes_a_large_one_which_is_not_starved(queue):
    large, taken = job(*[64] * 200), 0
    queue.push(large, taken)
    waits, ran_large = [], 0
    for _ in range(60):
        small = job(32, 32)
        queue.push(small, taken)
        batches = 0
        while not small.is_over:
            batch = queue.pop_batch()
            batches += 1
            taken += batch.tokens
            for text in batch.texts:
                ran_large += text.job is large
                text.job.put(text.index, np.zeros(64, np.float32))
        waits.append(batches)
    assert max(waits) <= 4
    assert ran_large >= 10


def test_a_text_longer_than_the_budget_runs_alone(embedder):
    queue = WaitingTexts(ServedModel("m", embedder, 16))
    queue.push(job(64, 8, 8), 0)
    plans = []
    while queue.next_turn() is not None:
        batch = queue.pop_batch()
        plans.append((len(batch.texts), batch.plan.length, batch.plan.rows))
    assert plans[0] == (1, 64, 1)
    assert sum(texts for texts, _, _ in plans) == 3


def test_what_is_cancelled_runs_no_more(queue):
    gone, stays = job(*[16] * 50), job(16)
    queue.push(gone, 0)
    queue.push(stays, 1)
    queue.pop_batch()
    gone.finish(RuntimeError())
    batch = queue.pop_batch()
    assert [text.job for text in batch.texts] == [stays]
    assert queue.next_turn() is None
