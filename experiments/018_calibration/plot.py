"""Draws results.json as plot.png: what becomes of one threshold, and of all of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from table import METHODS

HERE = Path(__file__).parent
COLOURS = {
    "old": "#333333",
    "reused": "#e08214",
    "rescaled": "#fdb863",
    "quantile": "#2166ac",
    "precision": "#b2182b",
    "recall": "#4393c3",
    "false_positive_rate": "#7b3294",
}


def draw_measure(axis: Any, rows: list[dict], name: str) -> None:
    """One measure of every method, a group a set, with intervals."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    methods = [method for method in METHODS if any(row["method"] == method for row in rows)]
    for number, method in enumerate(methods):
        found = [row for row in rows if row["method"] == method and row[name]]
        step = 0.11 * (number - (len(methods) - 1) / 2)
        places = [sets.index(row["set"]) + step for row in found]
        values, low, high = zip(*(row[name] for row in found), strict=True) if found else ((),) * 3
        error = [
            [max(v - bound, 0) for v, bound in zip(values, low, strict=True)],
            [max(bound - v, 0) for v, bound in zip(values, high, strict=True)],
        ]
        axis.errorbar(places, values, error, fmt="o", capsize=2, markersize=4,
                      color=COLOURS[method], label=METHODS[method])  # fmt: skip
    axis.set_xticks(range(len(sets)), sets, rotation=20)
    axis.set(ylabel=name, ylim=(-0.02, 1.02))


def draw_shares(axis: Any, rows: list[dict]) -> None:
    """The share that is flagged by the old model and by the new one, every threshold and split."""
    before = {
        (row["set"], row["seed"], row["old_threshold"]): row["share"][0]
        for row in rows
        if row["method"] == "old"
    }
    for method in ("reused", "quantile"):
        found = [row for row in rows if row["method"] == method]
        shares = [before[row["set"], row["seed"], row["old_threshold"]] for row in found]
        axis.plot(shares, [row["share"][0] for row in found], "o", markersize=4, alpha=0.6,
                  color=COLOURS[method], label=METHODS[method])  # fmt: skip
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    axis.set(xlabel="flagged by the old model", ylabel="flagged by the new model")
    axis.legend(frameon=False, fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, default=HERE / "plot.png")
    args = parser.parse_args()
    results = json.loads(args.results.read_text("utf8"))
    settings = results["settings"]
    rows = [row for row in results["thresholds"] if row["target"] == "new"]
    main_rows = [
        row
        for row in rows
        if row["old_threshold"] == settings["main"] and row["seed"] == settings["seeds"][0]
    ]
    figure, axes = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    for axis, name in zip(axes, ("precision", "recall"), strict=False):
        draw_measure(axis, main_rows, name)
        axis.set_title(f"old threshold {settings['main']:g}, held-out pairs")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    draw_shares(axes[2], rows)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
