"""Two runs on the same examples: the difference of their scores with a paired bootstrap interval.

Queries, pairs and texts are drawn with replacement, the same ones for both runs. In clustering
the rows are draws of k-means: its interval says how far the fits vary, not the texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nvembed_jax.eval.results import Run, read_runs
from nvembed_jax.eval.scoring import main_score_of


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`second` minus `first`, and the interval that holds it.

    Attributes:
        low, high: bounds of the interval. size: examples it rests on.
    """

    first: float
    second: float
    low: float
    high: float
    size: int

    @property
    def value(self) -> float:
        """Second minus first: positive when the second is better."""
        return self.second - self.first

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences by task, by type, and of the means over types ("macro")."""

    first: str
    second: str
    level: float
    tasks: dict[str, Difference]
    types: dict[str, Difference]
    macro: Difference


def compare(
    first: Run | str | Path,
    second: Run | str | Path,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares two runs on the tasks that both have, but for those that mteb scored.

    Args:
        first, second: runs, or results.json files (their first runs).
        samples: bootstrap samples. level: share of them inside the interval.

    Raises:
        ValueError: no task in common, or a task was scored on other rows or with other settings.
    """
    if samples < 1 or not 0 < level < 1:
        raise ValueError(f"expected samples >= 1 and 0 < level < 1; got {samples} and {level}")
    a, b = (run if isinstance(run, Run) else read_runs(run)[0] for run in (first, second))
    names = comparable(a, b)
    if not names:
        raise ValueError(f"{a.model} and {b.model} have no task in common")
    bounds = np.array([(1 - level) / 2, (1 + level) / 2])
    tasks, drawn = {}, {}
    for number, name in enumerate(names):
        rng = np.random.default_rng([seed, number])
        drawn[name] = _resampled(a, b, name, samples, rng)
        before, after = (run.tasks[name]["score"] for run in (a, b))
        size = a.tasks[name]["size"]
        tasks[name] = _difference(before, after, drawn[name], bounds, size)
    types: dict[str, list[str]] = {}
    for name in names:
        types.setdefault(a.tasks[name]["type"], []).append(name)
    by_type = {type: _joined(members, tasks, drawn, bounds) for type, members in types.items()}
    samples_by_type = {
        type: np.mean([drawn[n] for n in members], axis=0) for type, members in types.items()
    }
    macro = _joined(list(by_type), by_type, samples_by_type, bounds)
    return Comparison(
        first=a.model, second=b.model, level=level, tasks=tasks, types=by_type, macro=macro
    )


def comparable(a: Run, b: Run) -> list[str]:
    """The tasks that both runs have scores of every example of, by type and name."""
    common = [name for name in a.tasks.keys() & b.tasks if a.tasks[name]["examples"]]
    return sorted(common, key=lambda name: (a.tasks[name]["type"], name))


def _resampled(
    a: Run, b: Run, name: str, samples: int, rng: np.random.Generator
) -> Float[np.ndarray, " S"]:
    """The differences on `samples` draws of the examples."""
    results, examples = (a.tasks[name], b.tasks[name]), (a.examples(name), b.examples(name))
    _check_same(a, b, name, examples)
    type, main_score = results[0]["type"], results[0]["main_score"]
    size = len(examples[0]["id"])
    gold = examples[0].get("gold") if type in ("sts", "pair_classification") else None
    differences = np.empty(samples)
    for s in range(samples):
        rows = rng.integers(size, size=size)
        while gold is not None and np.ptp(gold[rows]) == 0:  # nothing to correlate with
            rows = rng.integers(size, size=size)
        scores = [
            main_score_of(type, main_score, {key: values[rows] for key, values in part.items()})
            for part in examples
        ]
        differences[s] = scores[1] - scores[0]
    return differences


def _check_same(a: Run, b: Run, name: str, examples: tuple[Mapping[str, Any], ...]) -> None:
    same = (
        a.tasks[name]["fingerprint"] == b.tasks[name]["fingerprint"]
        and a.settings == b.settings
        and all(np.array_equal(examples[0][k], examples[1][k]) for k in ("id", "gold")
                if k in examples[0])
    )  # fmt: skip
    if not same:
        raise ValueError(
            f"{name}: {a.model} and {b.model} were scored on other rows or with other settings; "
            f"evaluate both with the same files, limit, seed and protocol"
        )


def _difference(
    first: float, second: float, drawn: Float[np.ndarray, " S"], bounds: np.ndarray, size: int
) -> Difference:
    low, high = np.quantile(drawn, bounds).tolist()
    return Difference(first=first, second=second, low=low, high=high, size=size)


def _joined(
    names: list[str],
    parts: Mapping[str, Difference],
    drawn: Mapping[str, Float[np.ndarray, " S"]],
    bounds: np.ndarray,
) -> Difference:
    """The difference of the means over `names`; their draws are independent."""
    chosen = [parts[name] for name in names]
    return _difference(
        float(np.mean([part.first for part in chosen])),
        float(np.mean([part.second for part in chosen])),
        np.mean([drawn[name] for name in names], axis=0),
        bounds,
        sum(part.size for part in chosen),
    )
