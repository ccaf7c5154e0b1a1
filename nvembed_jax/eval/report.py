"""Runs as Markdown tables (with the instruction of every score, and what failed) and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.eval.compare import Comparison, Difference
from nvembed_jax.eval.results import Run

PLOT_SUFFIXES = (".pdf", ".png", ".svg")
_METRIC_NAMES = {"cosine_ap": "AP", "cosine_spearman": "Spearman", "map": "MAP"}


def markdown(runs: Sequence[Run], comparisons: Sequence[Comparison] = ()) -> str:
    """A report: scores x 100 by task and by type, failures, differences, instructions."""
    parts = [
        "# Evaluation",
        _settings_line(runs),
        score_tables(runs),
        *_failures(runs),
        *(_comparison_table(comparison) for comparison in comparisons),
        "## Instructions",
        _instructions(runs),
    ]
    return "\n\n".join(parts) + "\n"


def score_tables(runs: Sequence[Run]) -> str:
    """Two Markdown tables, scores x 100: a row a task, and a row a type with the macro average."""
    names = [_cell(run.model) for run in runs]
    rows = [
        [_cell(task), facts["type"], _metric(facts["main_score"]), str(facts["size"] or ""),
         *(_task_score(run, task) for run in runs)]
        for task, facts in _all_tasks(runs).items()
    ]  # fmt: skip
    by_task = _table(["task", "type", "score", "rows", *names], rows, numbers_from=3)
    types = sorted({facts["type"] for facts in _all_tasks(runs).values()})
    counts = [sum(f["type"] == type for f in _all_tasks(runs).values()) for type in types]
    rows = [
        [type, str(count), *(_score(run.averages.get(type)) for run in runs)]
        for type, count in zip(types, counts, strict=True)
    ]
    # A mean over some of the types only does not stand beside one over all.
    complete = [all(type in run.averages for type in types) for run in runs]
    rows.append(
        ["**macro average over types**", str(sum(counts)),
         *(_score(run.averages["macro"]) if whole else ""
           for run, whole in zip(runs, complete, strict=True))]
    )  # fmt: skip
    return f"{by_task}\n\n{_table(['type', 'tasks', *names], rows, numbers_from=1)}"


def _task_score(run: Run, task: str) -> str:
    return "failed" if task in run.failed else _score(run.tasks.get(task, {}).get("score"))


def _failures(runs: Sequence[Run]) -> list[str]:
    """What is missing and why, and what MTEB's definitions leave out; [] of nothing."""
    models: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for failure in run.failed.items():
            models.setdefault(failure, []).append(_cell(run.model))
    parts = []
    if models:
        rows = [
            [_cell(task), ", ".join(names), _cell(why)] for (task, why), names in models.items()
        ]
        note = "The averages leave out what failed."
        parts = ["## Failed", f"{note}\n\n{_table(['task', 'model', 'reason'], rows, 3)}"]
    left_out = [
        f"{facts['left_out']} of {_cell(name)}"
        for name, facts in _all_tasks(runs).items()
        if facts.get("left_out")
    ]
    if left_out:
        parts.append(f"Queries or texts that are not scored, as in MTEB: {', '.join(left_out)}.")
    return parts


def plot(runs: Sequence[Run], path: str | Path) -> None:
    """Bars of the average scores, a group a type, as .svg, .png or .pdf.

    Raises:
        ValueError: another suffix. ImportError: matplotlib is missing (the extra "eval").
    """
    path = Path(path)
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"{path}: cannot plot to this suffix; expected {', '.join(PLOT_SUFFIXES)}")
    from matplotlib.figure import Figure

    types = sorted({type for run in runs for type in run.averages} - {"macro", "mean_of_tasks"})
    width = 0.8 / len(runs)
    figure = Figure(figsize=(1.2 + 1.3 * len(types), 3.6), layout="constrained")
    axes = figure.subplots()
    for i, run in enumerate(runs):
        values = [100 * run.averages.get(type, np.nan) for type in types]
        places = np.arange(len(types)) + (i - (len(runs) - 1) / 2) * width
        axes.bar(places, values, width, label=run.model)
    axes.set_xticks(range(len(types)), [type.replace("_", "\n") for type in types])
    axes.set_ylabel("main score x 100")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=max(1, min(3, len(runs))), frameon=False)
    figure.savefig(path)


def _settings_line(runs: Sequence[Run]) -> str:
    settings = runs[0].settings
    limit = "all rows" if settings["limit"] is None else f"at most {settings['limit']} rows"
    return (
        f"Scores x 100. Protocol {settings['protocol']}, {limit}, seed {settings['seed']}. "
        + " ".join(f"{_cell(run.model)}: `{_cell(run.fingerprint)}`." for run in runs)
    )


def _comparison_table(comparison: Comparison) -> str:
    first, second = _cell(comparison.first), _cell(comparison.second)
    entries: dict[str, Difference] = {
        **comparison.tasks,
        **{f"*{type}*": part for type, part in comparison.types.items()},
        "**macro average**": comparison.macro,
    }
    rows = [
        [name if name.startswith("*") else _cell(name), f"{100 * part.value:+.1f}",
         f"{100 * part.low:+.1f} to {100 * part.high:+.1f}", "yes" if part.clear else ""]
        for name, part in entries.items()
    ]  # fmt: skip
    level = f"{100 * comparison.level:g} %"
    table = _table(["", "difference", f"{level} interval", "clear"], rows, numbers_from=1)
    return f"## {second} against {first}\n\nPaired bootstrap over the examples.\n\n{table}"


def _instructions(runs: Sequence[Run]) -> str:
    rows = [[_cell(n), _cell(f["instruction"])] for n, f in _all_tasks(runs).items()]
    table = _table(["task", "instruction of the queries (symmetric tasks: of every text)"], rows, 2)
    without = [_cell(run.model) for run in runs if not run.takes_instructions]
    note = f"\n\nRuns that read no instructions: {', '.join(without)}." if without else ""
    return table + note


def _all_tasks(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    tasks = {name: facts for run in runs for name, facts in run.tasks.items()}
    return dict(sorted(tasks.items(), key=lambda item: (item[1]["type"], item[0])))


def _table(header: list[str], rows: list[list[str]], numbers_from: int) -> str:
    rule = ["---"] * numbers_from + ["---:"] * (len(header) - numbers_from)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _score(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _metric(name: str) -> str:
    return _METRIC_NAMES.get(name, name.replace("_at_", "@"))
