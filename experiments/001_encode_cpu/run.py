"""Encoding speed on a CPU: nvembed_jax against sentence-transformers, same weights, same texts, in
turns; and nvembed-tiny, the bundled model, beside them.

    python experiments/001_encode_cpu/run.py --data FOLDER [--rounds 7] [--threads 2]

FOLDER holds BEIR-like task folders (queries.jsonl.gz, corpus.jsonl.gz). Every arm is a process of
its own; the arms take turns, so that a drift of the machine meets all of them. Writes
results.jsonl beside this file.
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
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
ARMS = {
    "sentence-transformers float32": ("st", "float32"),
    "sentence-transformers bfloat16": ("st", "bfloat16"),
    "nvembed_jax float32": ("jax", "float32"),
    "nvembed_jax bfloat16": ("jax", "bfloat16"),
    "nvembed-tiny float32": ("tiny", "float32"),
    "nvembed-tiny bfloat16": ("tiny", "bfloat16"),
}
REFERENCES = {"tiny": "nvembed-tiny float32"}  # by kind; of the others:
REFERENCE = "sentence-transformers float32"
LENGTH = 256  # tokens that every arm reads
PAIRS = (
    ("nvembed_jax float32", "sentence-transformers float32"),
    ("nvembed_jax bfloat16", "sentence-transformers bfloat16"),
    ("nvembed_jax bfloat16", "sentence-transformers float32"),
    ("nvembed-tiny float32", "nvembed_jax float32"),
    ("nvembed-tiny float32", "sentence-transformers float32"),
    ("nvembed-tiny bfloat16", "sentence-transformers bfloat16"),
)
PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers", "sentence-transformers", "tokenizers")


def read_rows(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


def load_texts(data: Path, count: int, seed: int) -> dict[str, list[str]]:
    """`count` queries and `count` passages, drawn from all task folders that have them."""
    draw = random.Random(seed)
    queries, passages = [], []
    for folder in sorted(path.parent for path in data.glob("*/queries.jsonl.gz")):
        queries += [row["text"] for row in read_rows(folder / "queries.jsonl.gz")]
        rows = read_rows(folder / "corpus.jsonl.gz")
        passages += [f"{row.get('title', '')} {row['text']}".strip() for row in rows]
    queries = [text for text in queries if len(text.split()) <= 32]
    return {"queries": draw.sample(queries, count), "passages": draw.sample(passages, count)}


def worker(kind: str, dtype: str, threads: int, texts_file: str) -> None:
    """Answers each line on standard input (a name of texts, or "query") with the seconds that
    encoding took."""
    texts = json.loads(Path(texts_file).read_text())
    encode = make_encoder(kind, dtype, threads)
    for name in texts:  # compiles every batch shape; the peer has nothing to compile
        encode(texts[name][:64] if kind == "st" else texts[name])
    encode(texts["queries"][0])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command = line.strip()
        if command.startswith("save "):
            _, name, path = command.split(" ", 2)
            np.save(path, encode(texts[name]))
            print(json.dumps("saved"), flush=True)
        elif command == "query":
            times = []
            for text in texts["queries"][:50]:
                start = time.perf_counter()
                encode(text)
                times.append(time.perf_counter() - start)
            print(json.dumps(statistics.median(times)), flush=True)
        else:
            start = time.perf_counter()
            encode(texts[command])
            print(json.dumps(time.perf_counter() - start), flush=True)


def make_encoder(kind: str, dtype: str, threads: int):
    if kind == "st":
        import torch
        from sentence_transformers import SentenceTransformer

        from nvembed_jax.checkpoint import resolve_model

        torch.set_num_threads(threads)
        model = SentenceTransformer(str(resolve_model(MODEL)), device="cpu")
        model = model.to(getattr(torch, dtype))

        def encode(texts):
            out = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
            return out.float().numpy()

        return encode
    from nvembed_jax import Embedder

    model = Embedder.from_pretrained(None if kind == "tiny" else MODEL, dtype=dtype)
    return lambda texts: model.encode(texts, max_length=LENGTH, show_progress_bar=False)


class Arm:
    """One worker process."""

    def __init__(self, kind: str, dtype: str, threads: int, texts_file: Path):
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
        command = ["taskset", "-c", cores, sys.executable, __file__, "--worker", kind, dtype]
        command += [str(threads), str(texts_file)]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, text=True)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker died with exit code {self.process.wait()}")
        return json.loads(line)

    def ask(self, command: str):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(arms: dict[str, Arm], rounds: int) -> dict[str, dict[str, list[float]]]:
    times = {what: {name: [] for name in arms} for what in ("queries", "passages", "query")}
    for turn in range(rounds):
        for what, measured in times.items():
            for name in list(arms) if turn % 2 == 0 else list(arms)[::-1]:
                measured[name].append(arms[name].ask(what))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return times


def cold_start(rounds: int) -> dict[str, float]:
    """Seconds from start to results of `nvembed search` over this project's documentation."""
    out = {}
    docs = HERE.parents[1] / "docs"
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "nvembed_jax", "search", str(docs), "-q", "what is folded"]

        def run(directory: str) -> float:
            env = {**os.environ, "NVEMBED_COMPILATION_CACHE": directory}
            start = time.perf_counter()
            subprocess.run(command, env=env, check=True, capture_output=True)
            return time.perf_counter() - start

        out["without_cache"] = statistics.median(run("0") for _ in range(rounds))
        run(cache)
        out["with_cache"] = statistics.median(run(cache) for _ in range(rounds))
    return out


def summarize(times: dict, texts: dict[str, list[str]]) -> dict:
    speed = {
        what: {name: len(texts[what]) / statistics.median(t) for name, t in times[what].items()}
        for what in ("queries", "passages")
    }
    ratios = {
        what: {
            f"{ours} / {peer}": statistics.median(
                b / a for a, b in zip(times[what][ours], times[what][peer], strict=True)
            )
            for ours, peer in PAIRS
        }
        for what in times
    }
    latency = {name: 1e3 * statistics.median(t) for name, t in times["query"].items()}
    return {"texts_per_s": speed, "speedup": ratios, "query_ms": latency}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    texts = load_texts(args.data, args.count, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        texts_file = Path(folder) / "texts.json"
        texts_file.write_text(json.dumps(texts))
        arms = {name: Arm(*arm, args.threads, texts_file) for name, arm in ARMS.items()}
        times = measure(arms, args.rounds)
        paths = {name: Path(folder) / f"{i}.npy" for i, name in enumerate(arms)}
        for name, arm in arms.items():
            arm.ask(f"save queries {paths[name]}")
            arm.close()
        cosine = {}
        for name, (kind, _) in ARMS.items():
            reference = np.load(paths[REFERENCES.get(kind, REFERENCE)])
            cosine[name] = float((np.load(paths[name]) * reference).sum(1).min())
    result = {
        "experiment": "001_encode_cpu",
        "date": datetime.date.today().isoformat(),
        "rounds": args.rounds,
        "threads": args.threads,
        "texts": {name: len(values) for name, values in texts.items()},
        "data_fingerprint": hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16],
        "seed": args.seed,
        "model": "all-MiniLM-L6-v2",
        **summarize(times, texts),
        "lowest_cosine_to_float32": cosine,
        "search_cold_start_s": cold_start(3),
        "device": cpu_name(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    with (HERE / "results.jsonl").open("a") as out:
        out.write(json.dumps(result) + "\n")
    print(json.dumps(result, indent=2))


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        main()
