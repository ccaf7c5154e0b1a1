"""`evaluate`: models and baselines on task folders, resumable task by task, into results.json.

A task that fails does not take the others with it: its message stands where its score would stand.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

from nvembed_jax.data.writers import PendingFile
from nvembed_jax.eval import results
from nvembed_jax.eval.hybrid_system import Hybrid
from nvembed_jax.eval.mteb_rows import MtebTask
from nvembed_jax.eval.results import Run
from nvembed_jax.eval.scoring import Outcome, Settings, score_task
from nvembed_jax.eval.systems import (
    BASELINES,
    Dense,
    EmbeddingModel,
    LexicalBaseline,
    System,
)
from nvembed_jax.eval.tasks import Task, load_task
from nvembed_jax.runtime import progress_bar
from nvembed_jax.version import __version__

SCORING_VERSION = 2  # what was scored by another one is scored again
_NEEDS = {
    "classification": "sklearn",
    "clustering": "sklearn",
    "sts": "scipy",
    "summarization": "scipy",
}
_WITHOUT_EFFECT = ("batch_tokens", "show_progress_bar")  # on embeddings
_logger = logging.getLogger(__name__)

OnFailure = Callable[[str, Exception], None]


def evaluate(
    model: EmbeddingModel | Mapping[str, EmbeddingModel | Callable[[], EmbeddingModel]],
    tasks: Iterable[Task | MtebTask | str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    baselines: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    protocol: str = "mteb",
    samples_per_label: int | None = None,
    encoding: Mapping[str, Any] | None = None,
    show_progress_bar: bool | None = None,
    on_failure: OnFailure | None = None,
) -> dict[str, Any]:
    """Scores a model on tasks and writes `out` (results.json), which it also returns.

    A task that was scored before, with the same files, model and settings, is not scored again: its
    record stands in OUT.scores, with the scores of every example. A task that cannot be read or
    scored, and a model that cannot be loaded, are recorded and passed over till the next call.

    Args:
        model: an `Embedder` or anything with its encoding methods and `fingerprint`; or several,
            by name, each itself or a function that loads it when its turn comes.
        tasks: from `load_task`, or their folders (`find_tasks` lists those below a folder); or from
            `mteb_encoder.hub_tasks`, which mteb loads and scores by its own settings.
        baselines: on retrieval and reranking: "bm25"; "hybrid": "MODEL + bm25", each model fused.
        limit, seed, protocol, samples_per_label: see `Settings`.
        encoding: further options of the model's encoding methods (truncate_dim, batch_tokens, ...).
        show_progress_bar: None: when standard error is a terminal.
        on_failure: gets a line and the error whenever something fails; None: logs the line.

    Returns:
        {model, fingerprint, tasks: {name: {type, main_score, score, scores, instruction, ...}},
        failed: {name: message}, averages (over what is scored), settings, version}, and under
        "others" the same of further models and baselines.

    Raises:
        ValueError: an unknown option or baseline, two tasks of one name, or nothing at all could be
            scored (a single task or model raises what was wrong with it).
        ImportError: scikit-learn or scipy is missing (the extra "eval").
    """
    settings = Settings(
        protocol=protocol, limit=limit, seed=seed, samples_per_label=samples_per_label
    )
    path = Path(out)
    PendingFile(path).discard()  # where it cannot be written, nothing is computed
    models = model if isinstance(model, Mapping) else {_name_of(model): model}
    loaded, broken = _load(tasks)
    _check(loaded, models, baselines, complete=not broken)
    on_failure = on_failure or _warn
    for name, error in broken.items():
        on_failure(f"{name} failed: {describe(error)}", error)
    job = _Job(loaded, broken, settings, dict(encoding or {}), path, on_failure)
    systems = _systems(models, baselines, job.encoding)
    with progress_bar(len(loaded) * len(systems), show_progress_bar, "task") as bar:
        runs = [_run(name, make, job, bar, len(systems)) for name, make in systems.items()]
    if not any(run.tasks for run in runs):
        failed = [": ".join(failure) for run in runs for failure in run.failed.items()]
        raise ValueError(f"nothing could be scored; the last failure: {failed[-1]}")
    return results.write_results(path, runs, __version__)


def describe(error: Exception) -> str:
    """An error in one line; one that should not have happened with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError | ImportError) and text else repr(error)


class _Job(NamedTuple):
    """What all systems are scored with; `broken` are tasks that could not be read."""

    tasks: list[Task | MtebTask]
    broken: dict[str, Exception]
    settings: Settings
    encoding: dict[str, Any]
    out: Path
    on_failure: OnFailure


def _load(
    tasks: Iterable[Task | MtebTask | str | os.PathLike[str]],
) -> tuple[list[Task | MtebTask], dict[str, Exception]]:
    """The tasks, and by folder name why others cannot be read; where none can be, this raises."""
    loaded: list[Task | MtebTask] = []
    errors: list[tuple[str, Exception]] = []
    for task in tasks:
        try:
            loaded.append(task if isinstance(task, Task | MtebTask) else load_task(task))
        except Exception as error:
            errors.append((str(task), error))
    if len(errors) == 1 and not loaded:
        raise errors[0][1]
    if errors and not loaded:
        messages = "; ".join(describe(error) for _, error in errors)
        raise ValueError(f"none of the {len(errors)} tasks can be read: {messages}")
    broken: dict[str, Exception] = {}
    for folder, error in errors:
        name = Path(folder).absolute().name
        taken = name in broken or any(name == task.name for task in loaded)
        broken[folder if taken else name] = error
    return loaded, broken


def _systems(
    models: Mapping[str, Any], baselines: Sequence[str], encoding: Mapping[str, Any]
) -> dict[str, Callable[[], System]]:
    """By name, what makes each; a model is loaded when its turn comes."""

    def system(kind: type[Dense], model: Any) -> Dense:
        if not hasattr(model, "encode_query"):
            model = cast("Callable[[], EmbeddingModel]", model)()
        return kind(model, encoding)

    found: dict[str, Callable[[], System]] = {
        name: partial(system, Dense, model) for name, model in models.items()
    }
    if "bm25" in baselines:
        found["bm25"] = LexicalBaseline
    if "hybrid" in baselines:
        fused = {f"{name} + bm25": partial(system, Hybrid, model) for name, model in models.items()}
        found |= fused
    return found


def _run(name: str, make: Callable[[], System], job: _Job, bar: Any, systems: int) -> Run:
    """One system on all tasks that it can be scored on."""
    done: dict[str, dict[str, Any]] = {}
    failed = {task: describe(error) for task, error in job.broken.items()}
    system = None
    try:
        system = make()
    except Exception as error:
        if systems == 1:
            raise
        job.on_failure(f"{name} failed: {describe(error)}", error)
        failed |= {task.name: describe(error) for task in job.tasks}
    for task in job.tasks:
        bar.set_postfix_str(f"{task.name}, {name}")
        if system is not None and _can_score(system, task):
            try:
                done[task.name] = _result(name, system, task, job)
            except Exception as error:
                if systems * (len(job.tasks) + len(job.broken)) == 1:
                    raise
                failed[task.name] = describe(error)
                job.on_failure(f"{task.name} failed with {name}: {describe(error)}", error)
        bar.update(1)
    return Run(
        model=name,
        fingerprint=system.fingerprint if system is not None else "",
        takes_instructions=system is not None and system.takes_instructions,
        tasks=done,
        averages=results.averages(done),
        settings=asdict(job.settings),
        folder=job.out.parent,
        failed=failed,
    )


def _can_score(system: System, task: Task | MtebTask) -> bool:
    """Whether a system scores tasks like this one; to mteb go only models of embeddings."""
    if isinstance(task, MtebTask):
        return isinstance(system, Dense) and not isinstance(system, Hybrid)
    return system.scores_type(task.type)


def _result(name: str, system: System, task: Task | MtebTask, job: _Job) -> dict[str, Any]:
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
    outcome, instruction = _scored(task, system, job.settings)
    undefined = [metric for metric, score in outcome.scores.items() if not math.isfinite(score)]
    if undefined:
        raise ValueError(f"{task.folder}: {', '.join(undefined)} cannot be computed")
    rows = outcome.examples.get("id")
    result = {
        "type": task.type,
        "main_score": task.main_score,
        "score": outcome.scores[task.main_score],
        "scores": outcome.scores,
        "instruction": instruction,
        "split": task.split,
        "size": None if rows is None else len(rows),
        "left_out": outcome.left_out,
        "fingerprint": task.fingerprint,
        "seconds": round(time.perf_counter() - start, 3),
        "examples": None if rows is None else path.relative_to(job.out.parent).as_posix(),
    }
    results.write_examples(path, {"key": key, "result": result}, outcome.examples)
    return result


def _scored(task: Task | MtebTask, system: System, settings: Settings) -> tuple[Outcome, str]:
    """The scores, and the instruction they were made with."""
    if isinstance(task, Task):
        return score_task(task, system, settings), task.instruction
    assert isinstance(system, Dense)
    from nvembed_jax.eval.mteb_encoder import score_hub_task

    scores, instruction = score_hub_task(task, system)
    return Outcome(scores, {}), instruction


def _name_of(model: Any) -> str:
    return str(getattr(getattr(model, "config", None), "name", None) or type(model).__name__)


def _warn(line: str, error: Exception) -> None:
    _logger.warning(line)


def _check(
    tasks: Sequence[Task | MtebTask],
    models: Mapping[str, Any],
    baselines: Sequence[str],
    complete: bool,
) -> None:
    """Refuses a call that is wrong; `complete`: all tasks are there, none could not be read."""
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
        if complete and not any(_can_score(LexicalBaseline(), task) for task in tasks):
            raise ValueError(
                f"the baseline {name} scores retrieval and reranking; no task is of these types"
            )
