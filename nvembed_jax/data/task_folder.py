"""A folder in the task layout: task.json, and a file of rows named by the kind of task."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvembed_jax.data.example_rows import check_score, kind_of

TASK_FILES = {
    "classification": "classification.jsonl",
    "clustering": "clustering.jsonl",
    "sts": "sts.jsonl",
    "pair_classification": "pairs.jsonl",
    "reranking": "reranking.jsonl",
    "retrieval": "corpus.jsonl",
    "summarization": "summarization.jsonl",
}
PAIR_PATTERN = "pairs_train*.jsonl*"
# Whose instruction also describes the training pairs that stand beside the task's own rows.
_PAIR_TASKS = ("retrieval", "reranking", "pair_classification", "sts")


@dataclass(frozen=True, kw_only=True)
class TaskFolder:
    """What a folder says about itself; `kind` is None where there is no task.json."""

    path: Path
    name: str
    kind: str | None = None
    instruction: str | None = None
    min_score: float = 0.0
    max_score: float = 5.0
    label_texts: dict[str, str] | None = None
    pair_files: tuple[Path, ...] = field(default=())

    @property
    def pair_instruction(self) -> str | None:
        """The instruction, where it also describes the training pairs of the folder."""
        return self.instruction if self.kind in _PAIR_TASKS else None

    def file(self, stem: str) -> Path:
        """The file of that name, plain or gzipped; FileNotFoundError where there is neither."""
        for path in (self.path / stem, self.path / f"{stem}.gz"):
            if path.is_file():
                return path
        raise FileNotFoundError(f"{self.path}: neither {stem} nor {stem}.gz is in the folder")

    @property
    def rows_file(self) -> Path:
        """The file that holds the rows of the task."""
        assert self.kind is not None
        return self.file(TASK_FILES[self.kind])


def read_task_folder(path: str | Path) -> TaskFolder:
    """Reads task.json and looks for pairs_train*.jsonl(.gz).

    Raises:
        FileNotFoundError: no such folder. ValueError: a broken task.json, or nothing in it that
            could be trained on.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    pairs = tuple(
        sorted(file for file in path.glob(PAIR_PATTERN) if file.name.endswith((".jsonl", ".gz")))
    )
    name = path.resolve().name
    if not (path / "task.json").is_file():
        if not pairs:
            raise ValueError(
                f"{path}: neither task.json nor pairs_train*.jsonl(.gz) is in the folder; expected "
                f"one of them"
            )
        return TaskFolder(path=path, name=name, pair_files=pairs)
    where = str(path / "task.json")
    content = _read_json(path / "task.json")
    kind = content.get("type")
    if kind not in TASK_FILES:
        raise ValueError(f"{where}: type is {kind!r}; expected one of {', '.join(TASK_FILES)}")
    for key in ("name", "instruction"):
        if not isinstance(content.get(key), str | None):
            raise ValueError(f"{where}: {key!r} holds {kind_of(content[key])}; expected a string")
    return TaskFolder(
        path=path,
        name=content.get("name") or name,
        kind=kind,
        instruction=content.get("instruction") or None,
        min_score=check_score(content.get("min_score", 0), "min_score", where),
        max_score=check_score(content.get("max_score", 5), "max_score", where),
        label_texts=_label_texts(content.get("label_texts"), where),
        pair_files=pairs,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a JSON {kind_of(content)}; expected an object")
    return content


def _label_texts(value: Any, where: str) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{where}: 'label_texts' must map labels to texts; got {value!r}")
    return dict(value)
