"""`evaluate`: models and baselines on task folders, resumable task by task, into results.json."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

from nvembed_jax.data.writers import PendingFile
from nvembed_jax.eval import results
from nvembed_jax.eval.results import Run
from nvembed_jax.eval.scoring import Settings, score_task
from nvembed_jax.eval.systems import BASELINES, Dense, EmbeddingModel, System
from nvembed_jax.eval.tasks import Task, load_task
from nvembed_jax.runtime import progress_bar
from nvembed_jax.version import __version__

SCORING_VERSION = 1  # what was scored by another one is scored again
_NEEDS = {
    "classification": "sklearn",
    "clustering": "sklearn",
    "sts": "scipy",
    "summarization": "scipy",
}
_WITHOUT_EFFECT = ("batch_tokens", "show_progress_bar")  # on embeddings


def evaluate(
    model: EmbeddingModel | Mapping[str, EmbeddingModel | Callable[[], EmbeddingModel]],
    tasks: Iterable[Task | str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    baselines: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    protocol: str = "mteb",
    samples_per_label: int | None = None,
    encoding: Mapping[str, Any] | None = None,
    show_progress_bar: bool | None = None,
) -> dict[str, Any]:
    """Scores a model on tasks and writes `out` (results.json), which it also returns.

    A task that was scored before, with the same files, model and settings, is not scored again: its
    record stands in the folder OUT.scores, with the scores of every query or example.

    Args:
        model: an `Embedder` or anything with its encoding methods and `fingerprint`; or several,
            by name, each itself or a function that loads it when its turn comes.
        tasks: from `load_task`, or their folders (`find_tasks` lists those below a folder).
        baselines: "bm25", on the retrieval and reranking tasks.
        limit, seed, protocol, samples_per_label: see `Settings`.
        encoding: further options of the model's encoding methods (truncate_dim, batch_tokens, ...).
        show_progress_bar: None: when standard error is a terminal.

    Returns:
        {model, fingerprint, tasks: {name: {type, main_score, score, scores, instruction, ...}},
        averages, settings, version}, and under "others" the same of further models and baselines.

    Raises:
        FileNotFoundError, ValueError: a folder or row that cannot be used, two tasks of one name.
        ImportError: scikit-learn or scipy is missing (the extra "eval").
    """
    settings = Settings(
        protocol=protocol, limit=limit, seed=seed, samples_per_label=samples_per_label
    )
    path = Path(out)
    PendingFile(path).discard()  # where it cannot be written, nothing is computed
    loaded = [task if isinstance(task, Task) else load_task(task) for task in tasks]
    models = model if isinstance(model, Mapping) else {_name_of(model): model}
    _check(loaded, models, baselines)
    job = _Job(loaded, settings, dict(encoding or {}), path)
    runs, steps = [], len(loaded) * (len(models) + len(baselines))
    with progress_bar(steps, show_progress_bar, "task") as bar:
        for name, system in _systems(models, baselines, job.encoding):
            runs.append(_run(name, system, job, bar))
            del system  # before the next model is loaded
    return results.write_results(path, runs, __version__)


class _Job(NamedTuple):
    """What all systems are scored with."""

    tasks: list[Task]
    settings: Settings
    encoding: dict[str, Any]
    out: Path


def _systems(
    models: Mapping[str, Any], baselines: Sequence[str], encoding: Mapping[str, Any]
) -> Iterator[tuple[str, System]]:
    """(name, system) of each; a model is loaded when its turn comes."""
    for name, model in models.items():
        if not hasattr(model, "encode_query"):
            model = cast("Callable[[], EmbeddingModel]", model)()
        yield name, Dense(model, encoding)
        del model
    for name in baselines:
        yield name, BASELINES[name]()


def _run(name: str, system: System, job: _Job, bar: Any) -> Run:
    """One system on all tasks that it can be scored on."""
    done: dict[str, dict[str, Any]] = {}
    for task in job.tasks:
        bar.set_postfix_str(f"{task.name}, {name}")
        if system.scores_type(task.type):
            done[task.name] = _result(name, system, task, job)
        bar.update(1)
    return Run(
        model=name,
        fingerprint=system.fingerprint,
        takes_instructions=system.takes_instructions,
        tasks=done,
        averages=results.averages(done),
        settings=asdict(job.settings),
        folder=job.out.parent,
    )


def _result(name: str, system: System, task: Task, job: _Job) -> dict[str, Any]:
    """One task's result: the one on disk where it fits, else computed and saved."""
    key = {
        "model": system.fingerprint,
        "weights": system.weights,
        "task": task.fingerprint,
        "settings": asdict(job.settings),
        "encoding": {k: repr(v) for k, v in job.encoding.items() if k not in _WITHOUT_EFFECT},
        "scoring_version": SCORING_VERSION,
    }
    path = results.examples_path(job.out, name, system.fingerprint, task.name)
    known = results.finished(path, key)
    if known is not None:
        return known
    start = time.perf_counter()
    outcome = score_task(task, system, job.settings)
    result = {
        "type": task.type,
        "main_score": task.main_score,
        "score": outcome.scores[task.main_score],
        "scores": outcome.scores,
        "instruction": task.instruction,
        "split": task.split,
        "size": len(outcome.examples["id"]),
        "fingerprint": task.fingerprint,
        "seconds": round(time.perf_counter() - start, 3),
        "examples": path.relative_to(job.out.parent).as_posix(),
    }
    results.write_examples(path, {"key": key, "result": result}, outcome.examples)
    return result


def _name_of(model: Any) -> str:
    return str(getattr(getattr(model, "config", None), "name", None) or type(model).__name__)


def _check(tasks: Sequence[Task], models: Mapping[str, Any], baselines: Sequence[str]) -> None:
    if not tasks or not models:
        raise ValueError(f"expected tasks and a model; got {len(tasks)} and {len(models)}")
    folders: dict[str, Path] = {}
    for task in tasks:
        if task.name in folders:
            raise ValueError(
                f"{task.folder} and {folders[task.name]}: both are named {task.name!r}; "
                f"give one of them another name in its task.json"
            )
        folders[task.name] = task.folder
        needed = _NEEDS.get(task.type)
        if needed is not None and find_spec(needed) is None:
            raise ImportError(
                f'{task.folder}: {task.type} needs {needed}: pip install "nvembed_jax[eval]"'
            )
    for name in baselines:
        if name not in BASELINES:
            raise ValueError(f"unknown baseline {name!r}; expected {', '.join(BASELINES)}")
        if name in models:
            raise ValueError(f"a model is named {name!r} as the baseline is; rename the model")
        if not any(BASELINES[name]().scores_type(task.type) for task in tasks):
            raise ValueError(
                f"the baseline {name} scores retrieval and reranking; no task is of these types"
            )
