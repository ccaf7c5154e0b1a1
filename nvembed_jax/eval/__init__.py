"""Evaluation: metrics, task folders, the runner behind `nvembed evaluate`, comparison, reports."""

from nvembed_jax.eval.compare import Comparison, Difference, compare
from nvembed_jax.eval.results import Run, read_runs
from nvembed_jax.eval.runner import evaluate
from nvembed_jax.eval.tasks import Task, find_tasks, load_task

__all__ = [
    "Comparison",
    "Difference",
    "Run",
    "Task",
    "compare",
    "evaluate",
    "find_tasks",
    "load_task",
    "read_runs",
]
