"""The two stages of NV-Embed in miniature, from a causal start, on real sets: scores before, after
stage 1 and after stage 2.

    python experiments/007_two_stage/run.py --data FOLDER --work DIR [--seeds 0 1 2]

Everything is the command line of the package: `decontaminate` and `mine` prepare the pairs, `train`
runs configs/tiny_causal_lm.py once and configs/tiny_two_stage.py for every seed, `evaluate` scores.
The same command goes on where it was stopped. Writes results.jsonl beside this file.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nvembed_jax.train.config_file import load_config
from nvembed_jax.train.trainer import read_metrics

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "nvembed_jax")
# Scored with the same tasks; the first two are the start, its mask still on and removed.
START = {
    "start, causal, last token": (),
    "start, mask removed, mean": ("--attention", "bidirectional", "--pooling", "mean"),
}


def nvembed(*arguments: Any) -> None:
    """One command of the package; its report goes to standard error."""
    command = [sys.executable, "-m", "nvembed_jax", *map(str, arguments)]
    print("nvembed", *arguments, file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)


# Two or three of a kind: what is scored eight times has to be quick.
TASKS = (
    "scitldr", "cacm", "cisi", "squad_sentence_retrieval", "wikiqa", "banking77", "trec_qc", "sst2",
    "search_snippets", "newsgroups20_subjects", "mrpc", "quora", "sts12_15", "stsb_train_dev",
    "realsumm",
)  # fmt: skip


def tasks_in(folder: Path) -> list[Path]:
    """The evaluation sets."""
    return sorted(path.parent for path in folder.glob("*/task.json"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def prepare(args: argparse.Namespace) -> Path:
    """A folder of sets: pairs sampled, free of evaluation texts, with negatives; others linked."""
    sets = args.work / "sets"
    sets.mkdir(parents=True, exist_ok=True)
    recipe = load_config(f"{CONFIGS / 'tiny_two_stage.py'}:{args.data}")
    for name in set(recipe.stage2.sources) - set(recipe.stage1.sources):
        if not (sets / name).exists():
            (sets / name).symlink_to((args.data / name).resolve())
    clean = clean_rows(sorted(recipe.stage1.sources), args)
    for name in recipe.stage1.sources:
        done, pairs = sets / f"{name}.jsonl.gz", args.work / f"{name}.jsonl.gz"
        if done.exists():
            continue
        rows = [row for row in clean if row["set"] == name]
        if any(row.get("negatives") for row in rows):  # the set brings its own
            write_rows(done, rows)
        else:
            write_rows(pairs, rows)
            options = ("--max-length", 128, "--dtype", args.dtype)
            nvembed("mine", pairs, "-o", done, "-n", 4, *options)
    return sets


def clean_rows(names: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Random rows of each set, less those that stand in an evaluation set."""
    sampled, clean = args.work / "sampled.jsonl.gz", args.work / "clean.jsonl.gz"
    if not clean.exists():
        rows = []
        for name in names:
            found = read_rows(args.data / name / "pairs_train.jsonl.gz")
            chosen = random.Random(0).sample(found, min(args.rows, len(found)))
            rows += [{**row, "set": name} for row in chosen]
        write_rows(sampled, rows)
        against = [part for path in tasks_in(args.data) for part in ("--against", path)]
        nvembed("decontaminate", sampled, *against, "--methods", "exact,minhash", "-o", clean)
    return read_rows(clean)


def train(config: str, run: Path, args: argparse.Namespace, **values: Any) -> dict[str, float]:
    """Trains, or goes on; minutes of each stage: its steps times their median."""
    values["compute.dtype"] = args.dtype
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    nvembed("train", "--config", config, "--workdir", run, *overrides)
    seconds: dict[str, list[float]] = {}
    for row in read_metrics(run):
        seconds.setdefault(row["stage"], []).append(row["seconds"])
    return {name: len(steps) * statistics.median(steps) / 60 for name, steps in seconds.items()}


def score(model: Path, out: Path, args: argparse.Namespace, *options: str) -> dict[str, Any]:
    """The evaluation's result file."""
    started = time.perf_counter()
    tasks = [part for name in TASKS for part in ("--tasks", args.data / name)]
    sizes = ("--limit", args.limit, "--max-length", 128, "--protocol", "quick")
    sizes += ("--dtype", args.dtype)
    nvembed("evaluate", *tasks, "-m", model, "-o", out, *sizes, *options)
    print(f"scored in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return json.loads(out.read_text("utf8"))


def save(stage: str, seed: int | None, result: dict[str, Any], minutes: float, args: Any) -> None:
    """Adds a row to the results."""
    facts = {
        "experiment": "007_two_stage",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "settings": {"rows": args.rows, "limit": args.limit, "dtype": args.dtype},
        "data": args.fingerprint,
    }
    row = {
        "stage": stage,
        "seed": seed,
        "train_minutes": round(minutes, 2),
        "averages": result["averages"],
        "tasks": {name: task["score"] for name, task in result["tasks"].items()},
    }
    with (HERE / "results.jsonl").open("a", encoding="utf8") as out:
        out.write(json.dumps({**row, **facts}) + "\n")
    print(stage, seed, json.dumps(result["averages"]), flush=True)


def commit() -> str:
    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def fingerprint(folder: Path) -> str:
    """Of the training sets as they were trained on."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.jsonl.gz")):
        digest.update(gzip.decompress(path.read_bytes()))
    return digest.hexdigest()[:16]


def is_done(stage: str, seed: int | None) -> bool:
    path = HERE / "results.jsonl"
    rows = map(json.loads, path.read_text("utf8").splitlines() if path.exists() else [])
    return any((row["stage"], row["seed"]) == (stage, seed) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="task folders (docs/data.md)")
    parser.add_argument("--work", required=True, type=Path, help="runs and prepared sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=1500, help="pairs of each retrieval set")
    parser.add_argument("--limit", type=int, default=500, help="queries or texts a task")
    parser.add_argument("--dtype", default="bfloat16", help="of training, mining and scoring")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    sets = prepare(args)
    args.fingerprint = fingerprint(sets)
    start = args.work / "lm"
    minutes = train(f"{CONFIGS / 'tiny_causal_lm.py'}:{args.data}", start, args)
    for number, (stage, options) in enumerate(START.items()):
        if not is_done(stage, None):
            result = score(start / "model", args.work / f"start{number}.json", args, *options)
            save(stage, None, result, minutes["stage1"], args)
    for seed in args.seeds:
        run = args.work / f"seed{seed}"
        values = {"seed": seed, "model.path": start / "model"}
        minutes = train(f"{CONFIGS / 'tiny_two_stage.py'}:{sets}", run, args, **values)
        for stage in minutes:
            if not is_done(stage, seed):
                out = args.work / f"seed{seed}_{stage}.json"
                result = score(run / "models" / stage, out, args)
                save(stage, seed, result, minutes[stage], args)


if __name__ == "__main__":
    main()
