"""The order of training is a pure function of (seed, step)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nvembed_jax.data.blend import Blend, BlendConfig, SourceConfig
from nvembed_jax.data.examples import Example


class Numbers:
    """A source whose examples are its name and their index."""

    task, symmetric = None, False

    def __init__(self, name: str, count: int):
        self.name, self.count, self.fingerprint = name, count, f"{name}{count}"

    def __len__(self) -> int:
        return self.count

    def get(self, index: int, rng: np.random.Generator) -> Example:
        return Example(query=f"{self.name} {index}", positives=(f"p{index}",))


def blend(seed: int = 0, sizes=(10, 30), **settings) -> Blend:
    names = ["a", "b"][: len(sizes)]
    opened = {name: Numbers(name, size) for name, size in zip(names, sizes, strict=True)}
    given = settings.pop("sources", {})
    sources = {name: SourceConfig(data=name, **given.get(name, {})) for name in names}
    config = BlendConfig(batch_size=8, sources=sources, **settings)
    return Blend(config, seed, opened=opened)


def queries(rows) -> list[str]:
    return [row.example.query for row in rows]


def test_a_step_gives_the_same_rows_whenever_it_is_asked_for():
    one, two = blend(), blend()
    far = [queries(one.rows(step)) for step in (5, 1000, 0)]
    assert far == [queries(two.rows(step)) for step in (5, 1000, 0)]
    assert queries(blend(seed=1).rows(5)) != far[0]


def test_any_rows_of_a_batch_can_be_had_alone():
    whole = queries(blend().rows(3))
    assert queries(blend().rows(3, [6, 1])) == [whole[6], whole[1]]


def test_every_example_comes_once_an_epoch_and_epochs_differ():
    only = blend(sizes=(16,))
    epochs = [queries(only.rows(2 * i) + only.rows(2 * i + 1)) for i in range(3)]
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(("weights", "share"), [((0.0, 0.0), 0.25), ((1.0, 1.0), 0.5)])
def test_shares_follow_weights_or_else_sizes(weights, share):
    given = {name: {"weight": w} for name, w in zip("ab", weights, strict=True)}
    rows = [row for step in range(50) for row in blend(sources=given).rows(step)]
    counted = Counter(row.source_id for row in rows)
    assert counted[0] / len(rows) == pytest.approx(share, abs=0.02)


def test_homogeneous_batches_are_of_one_source():
    steps = [blend(batching="homogeneous").rows(step) for step in range(12)]
    assert all(len({row.source_id for row in rows}) == 1 for rows in steps)
    assert len({rows[0].source_id for rows in steps}) == 2


def test_in_batch_and_task_are_settings_of_the_source():
    given = {"a": {"in_batch": False, "task": "find"}, "b": {"symmetric": True}}
    for row in blend(sources=given).rows(0):
        first = row.source_id == 0
        assert row.in_batch is not first
        assert row.example.task == ("find" if first else None)
        assert row.symmetric is not first


def test_a_task_is_drawn_for_every_example_and_always_the_same():
    given = {"a": {"task": "left out", "tasks": ("", "find", "classify")}}
    drawn = Counter()
    for step in range(20):
        rows = blend(sources=given).rows(step)
        assert rows[3].example.task == blend(sources=given).rows(step, [3])[0].example.task
        drawn.update(row.example.task for row in rows if row.source_id == 0)
    assert drawn.keys() == {None, "find", "classify"}
    assert max(drawn.values()) < 2 * min(drawn.values())
    assert blend(sources=given).fingerprint != blend().fingerprint


def test_shots_are_other_examples_of_the_source():
    given = {"a": {"shots": 3}}
    rows = [row for step in range(20) for row in blend(sources=given).rows(step)]
    assert {len(row.shots) for row in rows if row.source_id == 0} == {0, 1, 2, 3}
    assert not any(row.shots for row in rows if row.source_id == 1)
    for row in rows:
        assert all(shot.query.startswith("a ") and shot != row.example for shot in row.shots)


def test_the_fingerprint_follows_content_and_settings():
    base = blend().fingerprint
    assert blend().fingerprint == base
    assert blend(sizes=(11, 30)).fingerprint != base
    assert blend(sources={"a": {"weight": 2.0}}).fingerprint != base
    assert blend(seed=3).fingerprint != base


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batching": "mixed"}, "batching must be one of"),
        ({"negatives": -1}, "must not be negative"),
        ({"query_length": 0}, "query_length must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        blend(**settings)
