"""Recall@10 of long documents: their best chunk against the start of them that the model reads.

    python experiments/015_long_documents/run.py --task sets/scitldr sets/cisi [--model MODEL ...]
        [--words 400 1600 6400] [--seeds 0 1 2] [--queries 500] [--passages 5000] [--write DIR]

MODEL: a folder, a name, or a remote model (docs/remote.md); by default the bundled model. Appends
to results.jsonl beside this file; what stands there is not computed again. table.py prints it.
--write also leaves each set as a task folder in AIR-Bench's form, for `nvembed evaluate`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from documents import Grades, LongTask, make_task, write_air_bench_form

from nvembed_jax.codes import unit
from nvembed_jax.eval.metrics import ranking_scores
from nvembed_jax.eval.tasks import load_task
from nvembed_jax.interop import open_model

HERE = Path(__file__).parent
METHODS = ("truncated", "chunks", "passages")
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tokenizers")
METRICS = ("recall_at_10", "ndcg_at_10", "recall_at_1")


class Encoder:
    """A model's unit embeddings of passages [N, D]; those of `remembered` texts are kept."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: list[str], remembered: bool = False) -> np.ndarray:
        known = self._known if remembered else {}
        fresh = list(dict.fromkeys(text for text in texts if text not in known))
        rows = unit(self.model.encode_document(fresh)) if fresh else []
        known |= dict(zip(fresh, rows, strict=True))
        return np.stack([known[text] for text in texts])


def best_of_groups(scores: np.ndarray, groups: list[int], count: int) -> np.ndarray:
    """[Q, N] scores of parts to [Q, count]: a document scores as its best part; `groups` rise."""
    starts = np.searchsorted(groups, np.arange(count))
    return np.maximum.reduceat(scores, starts, axis=1)


def scored(scores: np.ndarray, ids: list[str], grades: list[Grades]) -> dict[str, float]:
    """Means over the queries that have something relevant."""
    rows = []
    for values, judged in zip(scores, grades, strict=True):
        ranked = [ids[i] for i in np.argsort(-values, kind="stable")[:1000]]
        rows.append(ranking_scores(ranked, judged))
    return {name: float(np.mean([row[name] for row in rows])) for name in METRICS}


def run_method(
    method: str, embed: Encoder, queries: np.ndarray, task: LongTask
) -> dict[str, float]:
    """Scores of one way to rank the documents; of chunks also in AIR-Bench's own form."""
    ids, count = [document.id for document in task.documents], len(task.documents)
    if method == "truncated":
        scores = queries @ embed([document.text for document in task.documents]).T
        return scored(scores, ids, task.grades)
    if method == "chunks":
        parts = queries @ embed([piece.text for piece in task.pieces]).T
        groups = [piece.document for piece in task.pieces]
        inner = scored(parts, [piece.id for piece in task.pieces], task.piece_grades)
        figures = scored(best_of_groups(parts, groups, count), ids, task.grades)
        return figures | {f"chunk_{name}": value for name, value in inner.items()}
    texts, groups = [], []
    for row, document in enumerate(task.documents):
        for span in document.spans:
            texts.append(document.text[span.start : span.end])
            groups.append(row)
    return scored(
        best_of_groups(queries @ embed(texts, remembered=True).T, groups, count), ids, task.grades
    )


def run_task(name: str, embed: Encoder, task: LongTask, facts: dict[str, Any], path: Path) -> None:
    """All methods on one set of documents, but those that are done."""
    template = embed.model.config.text.query_template
    instruction = task.instruction if template is not None and task.instruction else None
    left = [method for method in METHODS if not is_done({**facts, "method": method}, path)]
    if not left:
        return
    queries = unit(embed.model.encode_query(task.queries, task=instruction))
    lengths = [len(document.text.split()) for document in task.documents]
    for method in left:
        start = time.perf_counter()
        figures = run_method(method, embed, queries, task)
        row = {
            **facts,
            "method": method,
            **figures,
            "documents": len(task.documents),
            "pieces": len(task.pieces),
            "query_count": len(task.queries),
            "mean_words": float(np.mean(lengths)),
            "chance": min(1.0, 10 / len(task.documents)),
            "seconds": round(time.perf_counter() - start, 2),
            "experiment": "015_long_documents",
            "date": datetime.date.today().isoformat(),
            "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        }
        with path.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(f"{name} {row['set']} {row['words']} words, seed {row['seed']}, {method}: "
              f"Recall@10 {100 * figures['recall_at_10']:.1f}", flush=True)  # fmt: skip


def is_done(facts: dict[str, Any], path: Path) -> bool:
    """Whether the results hold this arm already."""
    rows = map(json.loads, path.read_text("utf8").splitlines() if path.exists() else [])
    return any(all(row.get(key) == value for key, value in facts.items()) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--task", type=Path, nargs="+", required=True, help="retrieval task folders"
    )
    parser.add_argument("--model", nargs="+", default=[""], help="default: the bundled model")
    parser.add_argument(
        "--words", type=int, nargs="+", default=[400, 1600, 6400], help="a document"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--passages", type=int, default=5000, help="all relevant ones, then others")
    parser.add_argument("--chunk-tokens", type=int, default=200)
    parser.add_argument("--overlap", type=int, default=50)
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--write", type=Path, help="also write task folders in AIR-Bench's form")
    args = parser.parse_args()
    tasks = [load_task(folder) for folder in args.task]
    settings = {"queries": args.queries, "passages": args.passages,
                "chunk_tokens": args.chunk_tokens, "overlap": args.overlap}  # fmt: skip
    for name in args.model:
        model = open_model(name or None)
        encoder = Encoder(model)
        shown = name or model.config.name
        for task in tasks:
            for words in args.words:
                for seed in args.seeds:
                    chunk = (args.chunk_tokens, args.overlap)
                    made = make_task(task, words, args.queries, args.passages, seed, chunk)
                    if args.write is not None and name == args.model[0]:
                        write_air_bench_form(made, args.write / f"{task.name}-{words}-{seed}")
                    facts = {"set": task.name, "words": words, "seed": seed, "model": shown,
                             "fingerprint": model.fingerprint, "settings": settings}  # fmt: skip
                    run_task(shown, encoder, made, facts, args.results)


if __name__ == "__main__":
    main()
