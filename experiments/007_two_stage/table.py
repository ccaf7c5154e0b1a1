"""Prints results.jsonl as the table of the README: means over seeds, and the spread."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

COLUMNS = (
    "retrieval", "reranking", "classification", "clustering", "pair_classification", "sts",
    "summarization", "macro",
)  # fmt: skip


def shown(values: list[float]) -> str:
    """Mean x 100, and the standard deviation where there are several."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def main() -> None:
    rows: dict[str, list[dict]] = defaultdict(list)
    for line in (Path(__file__).parent / "results.jsonl").read_text("utf8").splitlines():
        row = json.loads(line)
        rows[row["stage"]].append(row)
    print("| model | seeds | minutes | " + " | ".join(COLUMNS).replace("_", " ") + " |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for stage, found in rows.items():
        minutes = mean(row["train_minutes"] for row in found)
        cells = [shown([row["averages"][name] for row in found]) for name in COLUMNS]
        print(f"| {stage} | {len(found)} | {minutes:.1f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
