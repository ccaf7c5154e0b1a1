"""Prints results.jsonl as the table of the README: medians over rounds, and ratios."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import median

OURS, THEIRS = "nvembed_jax", "sentence-transformers"


def main() -> None:
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in (Path(__file__).parent / "results.jsonl").read_text("utf8").splitlines():
        row = json.loads(line)
        rates[row["task"]][row["arm"]].append(row["examples_per_s"])
    print("| loss | dtype | sentence-transformers, examples/s | nvembed_jax | ratio |")
    print("|---|---|---|---|---|")
    for task, arms in rates.items():
        for dtype in ("float32", "bfloat16"):
            ours, theirs = (arms[f"{side} {dtype}"] for side in (OURS, THEIRS))
            shown = [" ".join(f"{rate:.1f}" for rate in found) for found in (theirs, ours)]
            ratio = median(ours) / median(theirs)
            print(f"| {task} | {dtype} | {shown[0]} | {shown[1]} | {ratio:.2f} |")
        for arm, found in arms.items():
            if arm.endswith("huge pages"):
                print(f"| {task} | {arm} | {' '.join(f'{rate:.1f}' for rate in found)} | | |")


if __name__ == "__main__":
    main()
