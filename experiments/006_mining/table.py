"""Prints results.jsonl as the tables of the README: means over seeds, and the spread."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

ORDER = ("before", "none", "random", "naive", "shifted", "abs", "margin-pos", "perc-pos", "oracle")


def read(half: str) -> dict[str, dict[str, list[dict]]]:
    """set -> method -> results, one a seed; a later result replaces an earlier one."""
    latest: dict[tuple, dict] = {}
    for line in (Path(__file__).parent / "results.jsonl").read_text("utf8").splitlines():
        row = json.loads(line)
        if row["half"] == half:
            latest[row["set"], row["method"], row["seed"]] = row
    out: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for (name, method, _), row in latest.items():
        out[name][method].append(row)
    return out


def shown(rows: list[dict], key: str, scale: float = 1.0, digits: int = 1) -> str:
    values = [scale * row[key] for row in rows]
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def sort(methods: dict[str, list[dict]]) -> list[tuple[str, list[dict]]]:
    return sorted(methods.items(), key=lambda item: ORDER.index(item[0]))


def print_mining() -> None:
    for name, methods in read("mining").items():
        first = next(iter(methods.values()))[0]
        print(f"\n**{name}**: {first['queries']:,} queries, pool of {first['pool']:,} texts\n")
        print(
            "| method | false negatives, % | queries with one, % | score of negatives | "
            "of the positive | negatives a query | filtered, % |"
        )
        print("|---" * 7 + "|")
        for method, rows in sort(methods):
            cells = [
                shown(rows, "false_negative_rate", 100),
                shown(rows, "queries_with_false_negatives", 100),
                shown(rows, "negative_score", digits=2),
                shown(rows, "positive_score", digits=2),
                shown(rows, "negatives_a_query", digits=2),
                shown(rows, "filtered", 100),
            ]
            print(f"| {method} | " + " | ".join(cells) + " |")


def print_training() -> None:
    for name, methods in read("training").items():
        last = next(iter(methods.values()))[-1]
        print(
            f"\n**{name}**: {last['test_queries']:,} unseen queries, pool {last['test_pool']:,}\n"
        )
        print("| negatives | false, % | nDCG@10 | recall@3 |\n|---|---|---|---|")
        for method, rows in sort(methods):
            false = shown(rows, "false_negative_rate", 100) if method != "before" else ""
            cells = [
                false,
                shown(rows, "ndcg_at_10", digits=2),
                shown(rows, "recall_at_3", digits=2),
            ]
            print(f"| {method} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    print_mining()
    print_training()
