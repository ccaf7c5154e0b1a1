"""What an evaluation leaves on disk: results.json, and beside it one .npz of examples a task.

The .npz files are written as soon as a task is done and are what an interrupted evaluation goes on
from; results.json is written at the end, whole. Both appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.data.writers import PendingFile, write_text

_logger = logging.getLogger(__name__)
_RECORD = "record"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model (or baseline) on some tasks, as results.json has it.

    Attributes:
        tasks: name -> {type, main_score, score, scores, instruction, ...}.
        averages: of the main scores by type, their mean ("macro"), and the mean of all tasks.
        failed: name -> what was wrong, of tasks that could not be read or scored.
        folder: where the paths of `examples` start.
    """

    model: str
    fingerprint: str
    takes_instructions: bool
    tasks: dict[str, dict[str, Any]]
    averages: dict[str, float]
    settings: dict[str, Any]
    folder: Path
    failed: dict[str, str] = field(default_factory=dict)

    def examples(self, task: str) -> dict[str, np.ndarray]:
        """The scored examples of a task.

        Raises:
            FileNotFoundError: the file is gone (evaluate again). ValueError: it is broken, or mteb
                scored the task.
        """
        if self.tasks[task]["examples"] is None:
            raise ValueError(f"{task}: mteb scored it, and keeps no scores of the examples")
        path = self.folder / self.tasks[task]["examples"]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; it held the scores of the examples")
        return read_examples(path)[1]


def averages(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Mean score of each type, "macro" (the mean of those) and "mean_of_tasks"; {} of no tasks."""
    by_type: dict[str, list[float]] = {}
    for result in tasks.values():
        by_type.setdefault(result["type"], []).append(result["score"])
    if not by_type:
        return {}
    means = {type: float(np.mean(by_type[type])) for type in sorted(by_type)}
    everything = [score for scores in by_type.values() for score in scores]
    return {
        **means,
        "macro": float(np.mean(list(means.values()))),
        "mean_of_tasks": float(np.mean(everything)),
    }


def write_results(path: Path, runs: list[Run], version: str) -> dict[str, Any]:
    """Writes results.json: the first run, the others under "others"; returns what it wrote."""
    first, *others = [_as_json(run) for run in runs]
    document = {**first, "settings": runs[0].settings, "version": version}
    if others:
        document["others"] = others
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return document


def read_runs(path: str | Path) -> list[Run]:
    """The runs of a results.json, the first model first.

    Raises:
        FileNotFoundError: no such file. ValueError: it is no results.json.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a results.json")
    try:
        document = json.loads(path.read_bytes())
        settings = document["settings"]
        return [
            Run(
                model=run["model"],
                fingerprint=run["fingerprint"],
                takes_instructions=run["takes_instructions"],
                tasks=run["tasks"],
                averages=run["averages"],
                settings=settings,
                folder=path.parent,
                failed=run.get("failed", {}),
            )
            for run in (document, *document.get("others", ()))
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a results.json of nvembed evaluate ({error})") from None


def examples_path(out: Path, system: str, fingerprint: str, task: str) -> Path:
    """Where the examples of a task stand: beside `out`, a folder for each model."""
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()[:8]
    return out.parent / f"{out.stem}.scores" / f"{_slug(system)}-{digest}" / f"{_slug(task)}.npz"


def write_examples(path: Path, record: dict[str, Any], examples: dict[str, np.ndarray]) -> None:
    """Writes a task's record (plain types) and the arrays of its examples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = PendingFile(path)
    try:
        np.savez_compressed(
            pending.file, **{_RECORD: np.array(json.dumps(record)), **examples}, allow_pickle=False
        )
        pending.commit()
    finally:
        pending.discard()


def read_examples(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_examples` wrote; ValueError for a broken file."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(str(arrays.pop(_RECORD))), arrays
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of scored examples ({error}); remove it") from None


def finished(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a task done before with the same key, or None."""
    if not path.is_file():
        return None
    try:
        record, _ = read_examples(path)
    except ValueError as error:
        _logger.warning("%s; the task is scored again", error)
        return None
    return record["result"] if record.get("key") == key else None


def _as_json(run: Run) -> dict[str, Any]:
    names = ("model", "fingerprint", "takes_instructions", "tasks", "failed", "averages")
    return {name: getattr(run, name) for name in names}


def _slug(name: str) -> str:
    slug = re.sub(r"[^\w.-]+", "_", name).strip("._")[-100:]
    return slug or hashlib.sha256(name.encode()).hexdigest()[:12]
