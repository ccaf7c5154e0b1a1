"""Prints results.jsonl as the table of the README: means over seeds, and the spread."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

HEADER = (
    "set", "words a document", "documents", "chance", "truncated", "best chunk", "best passage",
    "chunks themselves",
)  # fmt: skip


def read(path: Path) -> dict[tuple, dict[str, list[dict]]]:
    """(model, set, words) -> method -> rows, one a seed; a later row replaces an earlier one."""
    latest: dict[tuple, dict] = {}
    for line in path.read_text("utf8").splitlines():
        row = json.loads(line)
        latest[row["model"], row["set"], row["words"], row["method"], row["seed"]] = row
    out: dict[tuple, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for (model, name, words, method, _), row in latest.items():
        out[model, name, words][method].append(row)
    return out


def shown(rows: list[dict], key: str, scale: float = 100.0, digits: int = 1) -> str:
    values = [scale * row[key] for row in rows if key in row]
    if not values:
        return ""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 and digits else ""
    return f"{mean(values):,.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "results", type=Path, nargs="?", default=Path(__file__).parent / "results.jsonl"
    )
    results = read(parser.parse_args().results)
    for model in dict.fromkeys(key[0] for key in results):
        print(f"\n**{model}**\n\n| {' | '.join(HEADER)} |\n{'|---' * len(HEADER)}|")
        for (owner, name, words), methods in results.items():
            if owner != model:
                continue
            any_rows = next(iter(methods.values()))
            cells = [
                name,
                f"{words:,}",
                shown(any_rows, "documents", 1, 0),
                shown(any_rows, "chance"),
            ]
            cells += [
                shown(methods[m], "recall_at_10") for m in ("truncated", "chunks", "passages")
            ]
            cells.append(shown(methods["chunks"], "chunk_recall_at_10"))
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
