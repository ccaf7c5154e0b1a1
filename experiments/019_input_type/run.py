"""What a wrong input type costs: nDCG@10 with queries encoded as passages, and the reverse.

    python experiments/019_input_type/run.py --tasks sets/cacm sets/cisi [--model MODEL ...]
        [--queries 500] [--samples 1000] [--max-length 256]

Tasks are retrieval folders (docs/evaluate.md). MODEL: a folder, a name, or a remote model
(docs/remote.md); by default the bundled one. Writes results.json, model by model and task by task:
what stands there is not measured again. table.py puts it into the README, plot.py draws it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.data.writers import write_text
from nvembed_jax.eval.metrics import retrieval_scores, unit_rows
from nvembed_jax.eval.scoring import Settings, judged_queries, tie_order
from nvembed_jax.eval.systems import blocks, passages_of
from nvembed_jax.eval.task_files import Retrieval
from nvembed_jax.eval.tasks import Task, find_tasks, load_task
from nvembed_jax.interop import is_remote, open_model
from nvembed_jax.search.topk import top_k
from nvembed_jax.text import instructions

HERE = Path(__file__).parent
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tokenizers")
# (the queries are encoded as, the passages are encoded as)
CONDITIONS = {
    "right": ("query", "passage"),
    "queries as passages": ("passage", "passage"),
    "passages as queries": ("query", "query"),
    "both swapped": ("passage", "query"),
}
BLOCK = 4096  # passages
DEPTH = 10


class Sides:
    """A model that encodes any text as a query (with a task's instruction) or as a passage."""

    def __init__(self, model: Any, instruction: str) -> None:
        self._model = model
        self._task = instruction if model.config.text.query_template and instruction else None

    def encode(self, texts: list[str], side: str) -> np.ndarray:
        """Unit embeddings [N, D]."""
        if side == "query":
            return unit_rows(self._model.encode_query(texts, task=self._task))
        return unit_rows(self._model.encode_document(texts))

    @property
    def prefixes(self) -> dict[str, str]:
        """What stands before a text of either side."""
        text = self._model.config.text
        return {
            "query": instructions.query_prefix(text, self._task),
            "passage": instructions.passage_prefix(text),
        }


def embedded(texts: Iterable[str], sides: Sides, side: str) -> np.ndarray:
    """Embeddings of a corpus, of which a block of texts stands in memory at a time."""
    return np.concatenate([sides.encode(block, side) for block in blocks(texts, BLOCK)])


def measured(task: Task, model: Any, args: argparse.Namespace) -> dict[str, dict[str, np.ndarray]]:
    """By condition: nDCG@10 of every query, and the cosine of every relevant pair."""
    data = task.data
    assert isinstance(data, Retrieval)
    rows = judged_queries(data, Settings(limit=args.queries, seed=args.seed))
    grades = [data.qrels[data.query_ids[i]] for i in rows]
    texts = [data.queries[i] for i in rows]
    sides = Sides(model, task.instruction)
    queries = {side: sides.encode(texts, side) for side in ("query", "passage")}
    order = np.argsort(tie_order(data.corpus_ids, by_row=False))
    ids = np.array(data.corpus_ids)[order]
    row_of = {name: row for row, name in enumerate(ids.tolist())}
    relevant = np.array(
        [
            (q, row_of[name])
            for q, judged in enumerate(grades)
            for name, g in judged.items()
            if g > 0
        ]
    )
    found = {}
    for side in ("query", "passage"):
        passages = embedded(passages_of(data), sides, side)[order]
        for name, (query_side, passage_side) in CONDITIONS.items():
            if passage_side != side:
                continue
            best = top_k(queries[query_side], passages, min(DEPTH, len(passages)))[1]
            ranked = [ids[row].tolist() for row in best]
            pairs = queries[query_side][relevant[:, 0]] * passages[relevant[:, 1]]
            scores = retrieval_scores(ranked, grades, cuts=(DEPTH,))
            found[name] = {"ndcg": scores["ndcg_at_10"], "cosine": pairs.sum(axis=1)}
    return found


def bootstrap(found: dict[str, dict[str, np.ndarray]], samples: int, seed: int) -> Any:
    """Means of nDCG@10 [S] by condition; the same queries are drawn for all conditions."""
    size = len(found["right"]["ndcg"])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(size, size=(samples, size))
    return {name: part["ndcg"][drawn].mean(axis=1) for name, part in found.items()}


def interval(value: float, drawn: np.ndarray) -> list[float]:
    """[value, low, high] of 95 %."""
    return [float(value), *np.quantile(drawn, [0.025, 0.975]).tolist()]


def summary(means: dict[str, float], drawn: dict[str, np.ndarray]) -> dict[str, Any]:
    """By condition: nDCG@10 and what it is more or less than the right one, with intervals."""
    return {
        name: {
            "ndcg_at_10": interval(means[name], drawn[name]),
            "difference": interval(means[name] - means["right"], drawn[name] - drawn["right"]),
        }
        for name in CONDITIONS
    }


def run_task(task: Task, model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """The results of one model on one task, with the draws that the mean over tasks needs."""
    found = measured(task, model, args)
    drawn = bootstrap(found, args.samples, args.seed)
    means = {name: float(part["ndcg"].mean()) for name, part in found.items()}
    conditions = summary(means, drawn)
    for name, part in found.items():
        conditions[name]["relevant_cosine"] = float(part["cosine"].mean())
    assert isinstance(task.data, Retrieval)
    return {
        "fingerprint": task.fingerprint,
        "instruction": task.instruction,
        "queries": len(found["right"]["ndcg"]),
        "passages": len(task.data.corpus_ids),
        "prefixes": Sides(model, task.instruction).prefixes,
        "conditions": conditions,
        "scores": {name: part["ndcg"].round(6).tolist() for name, part in found.items()},
    }


def mean_over_tasks(tasks: dict[str, dict], samples: int, seed: int) -> dict[str, Any]:
    """The mean over tasks; their draws are independent."""
    drawn: dict[str, Any] = dict.fromkeys(CONDITIONS, 0.0)
    for number, result in enumerate(tasks.values()):
        scores = {name: {"ndcg": np.array(v)} for name, v in result["scores"].items()}
        for name, means in bootstrap(scores, samples, seed + number).items():
            drawn[name] = drawn[name] + means / len(tasks)
    means = {
        name: float(np.mean([np.mean(task["scores"][name]) for task in tasks.values()]))
        for name in CONDITIONS
    }
    return summary(means, drawn)


def started(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What stands in the results already, if it was made with these settings."""
    fresh: dict[str, Any] = {"experiment": "019_input_type", "settings": settings, "models": {}}
    if not path.exists():
        return fresh
    results = json.loads(path.read_text("utf8"))
    if results["settings"] != settings:
        raise SystemExit(f"{path}: was made with {results['settings']}; name another --out")
    return results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="retrieval folders")
    parser.add_argument("--model", nargs="+", default=[""], help="default: the bundled model")
    parser.add_argument("--queries", type=int, default=500, help="of a task, at most")
    parser.add_argument("--samples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a text")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    return parser.parse_args()


def main() -> None:
    args = parse()
    settings = {name: getattr(args, name) for name in ("queries", "samples", "seed", "max_length")}
    results = started(args.out, settings)
    tasks = [load_task(folder) for folder in find_tasks(args.tasks)]
    for task in tasks:
        if task.type != "retrieval":
            raise SystemExit(f"{task.folder}: a {task.type} task; expected retrieval tasks")
    for name in args.model:
        model = open_model(
            name or None, **({} if is_remote(name) else {"max_length": args.max_length})
        )
        # A folder's name says enough, wherever it stands.
        key = Path(name).name if name and Path(name).is_dir() else name or model.config.name
        known = results["models"].get(key, {})
        if known.get("fingerprint") != model.fingerprint:
            known = {"fingerprint": model.fingerprint, "tasks": {}}
        results["models"][key] = known
        for task in tasks:
            if known["tasks"].get(task.name, {}).get("fingerprint") != task.fingerprint:
                known["tasks"][task.name] = run_task(task, model, args)
            known["mean"] = mean_over_tasks(known["tasks"], args.samples, args.seed)
            results["date"] = datetime.date.today().isoformat()
            results["versions"] = {p: importlib.metadata.version(p) for p in PACKAGES}
            write_text(args.out, json.dumps(results, indent=1, allow_nan=False) + "\n")
            print(f"{key}, {task.name}: done", flush=True)


if __name__ == "__main__":
    main()
