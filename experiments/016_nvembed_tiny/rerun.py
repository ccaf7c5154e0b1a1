"""Runs the first steps of both distillations twice, and once more with kill -9 in between: the
parameters must be the same, bit for bit.

    python experiments/016_nvembed_tiny/rerun.py --work DIR [--steps 60]

DIR: where build.py has made sets, labels and starts. Writes rerun.json beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import build

OUT = Path(__file__).parent / "rerun.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tokenizers", "grain")


def killed(work: Path, recipe: Path, start: Path, workdir: Path, changes: dict[str, str]) -> int:
    """Starts a run and kills it behind its first checkpoint; the step it had come to."""
    values = build.overrides(work, start, changes)
    command = [sys.executable, "-m", "nvembed_jax", "train", "--config"]
    command += [f"{recipe}:{work / 'sets'}", "--workdir", str(workdir), *values]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list((workdir / "checkpoints").glob("[0-9]*")):
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with {process.returncode} before a checkpoint")
        time.sleep(0.2)
    process.kill()
    process.wait()
    return len((workdir / "metrics.jsonl").read_text("utf8").splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    work, rows = args.work.resolve(), []
    changes = {"stage1.steps": str(args.steps), "checkpoint_every": str(args.steps // 3)}
    for recipe, start in ((build.STATIC, work / "table"), (build.DISTILL, work / "start")):
        with tempfile.TemporaryDirectory() as folder:
            runs = [Path(folder) / name for name in ("first", "second", "killed")]
            step = killed(work, recipe, start, runs[2], changes)
            for workdir in runs:
                build.run(recipe, work / "sets", workdir, start, work, changes)
            files = [workdir / "model" / "model.safetensors" for workdir in runs]
            prints = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        rows.append({"recipe": recipe.name, "steps": args.steps, "killed_at": step,
                     "sha256": prints, "equal": len(set(prints)) == 1})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    OUT.write_text(json.dumps({"runs": rows, "versions": versions}, indent=1) + "\n", "utf8")
    if not all(row["equal"] for row in rows):
        raise SystemExit("the parameters differ")


if __name__ == "__main__":
    main()
