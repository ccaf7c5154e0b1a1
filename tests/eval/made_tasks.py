"""Small task folders of every type, and models that know all of the answers or none."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

TOPICS = ("cats", "wine", "rails", "moons", "chess")
INSTRUCTION = "Find texts of the same topic"


class FakeModel:
    """Embeds texts "TOPIC ANGLE ..." without noise: cosine 1 at the same topic and angle 0.

    Attributes:
        calls: (method, number of texts, task) of every call.
    """

    def __init__(self, fingerprint: str = "perfect"):
        self.fingerprint = fingerprint
        self.calls: list[tuple[str, int, str | None]] = []

    def vector(self, text: str) -> np.ndarray:
        topic, angle = text.split()[:2]
        out = np.zeros(len(TOPICS) + 1, np.float32)
        out[TOPICS.index(topic)] = np.cos(float(angle))
        out[-1] = np.sin(float(angle))
        return out

    def _embed(self, method: str, inputs: list[str], task: str | None) -> np.ndarray:
        self.calls.append((method, len(inputs), task))
        return np.stack([self.vector(text) for text in inputs])

    def encode(self, inputs: Any, *, task: str | None = None, **kwargs: Any) -> np.ndarray:
        return self._embed("encode", inputs, task)

    def encode_query(self, inputs: Any, task: str | None = None, **kwargs: Any) -> np.ndarray:
        return self._embed("encode_query", inputs, task)

    def encode_document(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        return self._embed("encode_document", inputs, None)


class RandomModel(FakeModel):
    """A random vector a text."""

    def __init__(self, fingerprint: str = "random"):
        super().__init__(fingerprint)

    def vector(self, text: str) -> np.ndarray:
        rng = np.random.default_rng([zlib.crc32(text.encode()), len(self.fingerprint)])
        return rng.normal(size=16).astype(np.float32)


def write_task(folder: Path, type: str, main_score: str, **files: Any) -> Path:
    """A task folder; `files` by stem: rows of a .jsonl.gz, or the text of a .tsv."""
    folder.mkdir(parents=True)
    facts = {"name": folder.name, "type": type, "instruction": INSTRUCTION}
    (folder / "task.json").write_text(json.dumps({**facts, "main_score": main_score}))
    for stem, content in files.items():
        if isinstance(content, str):
            (folder / f"{stem}.tsv").write_text(content)
        else:
            lines = "\n".join(json.dumps(row) for row in content)
            (folder / f"{stem}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def retrieval_files(per_topic: int = 6) -> dict[str, Any]:
    names = [f"{topic} 0 passage {i}" for topic in TOPICS for i in range(per_topic)]
    corpus = [{"_id": f"d{i}", "title": "", "text": name} for i, name in enumerate(names)]
    queries = [{"_id": f"q{i}", "text": f"{t} 0 query"} for i, t in enumerate(TOPICS)]
    judged = [f"q{i}\td{i * per_topic + j}\t1" for i in range(4) for j in range(per_topic)]
    qrels = "query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n"  # q4 is not judged
    return {"corpus": corpus, "queries": queries, "qrels": qrels}


def labelled(count: int, split: str | None) -> list[dict[str, Any]]:
    part = {} if split is None else {"split": split}
    return [
        {"text": f"{topic} 0 {split} {i}", "label": topic, **part}
        for i in range(count)
        for topic in TOPICS
    ]


def pair_rows() -> list[dict[str, Any]]:
    return [
        {"text1": f"{a} 0 left {i}", "text2": f"{b} 0 right {i}", "label": int(a == b)}
        for i in range(4)
        for a in TOPICS
        for b in TOPICS[:3]
    ]


def sts_rows() -> list[dict[str, Any]]:
    return [
        {"text1": f"{topic} 0 left", "text2": f"{topic} {angle:.3f}", "score": 5 - angle}
        for topic in TOPICS
        for angle in np.linspace(0, 1.5, 12)
    ]


def reranking_rows() -> list[dict[str, Any]]:
    return [
        {
            "query": f"{topic} 0 query {i}",
            "positive": [f"{topic} 0 answer {i}"],
            "negative": [f"{other} 0 other {i}" for other in TOPICS if other != topic],
            "split": "test",
        }
        for i in range(4)
        for topic in TOPICS
    ]


def summarization_rows() -> list[dict[str, Any]]:
    angles = [0.1, 0.5, 0.9, 1.3]
    return [
        {
            "human_summaries": [f"{topic} 0 people"],
            "machine_summaries": [f"{topic} {angle} machine" for angle in angles],
            "relevance": [4, 3, 2, 1],
        }
        for topic in TOPICS
    ]


MADE = {
    "retrieval": ("ndcg_at_10", retrieval_files),
    "classification": (
        "accuracy",
        lambda: {"classification": labelled(10, "train") + labelled(12, "test")},
    ),
    "clustering": ("v_measure", lambda: {"clustering": labelled(12, None)}),
    "pair_classification": ("cosine_ap", lambda: {"pairs": pair_rows()}),
    "sts": ("cosine_spearman", lambda: {"sts": sts_rows()}),
    "reranking": ("map", lambda: {"reranking": reranking_rows()}),
    "summarization": ("cosine_spearman", lambda: {"summarization": summarization_rows()}),
}


def write_all(folder: Path) -> list[Path]:
    """A task folder of every type below `folder`, named after it."""
    return [
        write_task(folder / type, type, score, **files()) for type, (score, files) in MADE.items()
    ]
