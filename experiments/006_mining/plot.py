"""Draws results.jsonl as plot.svg: false negatives by method and set; retrieval after training."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from table import ORDER, read

HERE = Path(__file__).parent


def draw_mining(axis: plt.Axes) -> None:
    """False negatives, a group of bars a set."""
    sets = read("mining")
    methods = [name for name in ORDER if any(name in found for found in sets.values())]
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        rates = [[100 * row["false_negative_rate"] for row in sets[name][method]] for name in sets]
        places = [x + (i - len(methods) / 2 + 0.5) * width for x in range(len(sets))]
        spread = [stdev(values) for values in rates]
        axis.bar(places, [mean(values) for values in rates], width, yerr=spread, label=method)
    axis.set_xticks(range(len(sets)), list(sets))
    axis.set_ylabel("false negatives, % of the negatives")
    axis.legend(frameon=False, fontsize=8)


def draw_training(axis: plt.Axes) -> None:
    """nDCG@10 after training less that before, each seed against its own start."""
    for methods in read("training").values():
        start = {row["seed"]: row["ndcg_at_10"] for row in methods["before"]}
        names = [name for name in ORDER if name in methods and name != "before"]
        for place, name in enumerate(names):
            gains = [row["ndcg_at_10"] - start[row["seed"]] for row in methods[name]]
            axis.bar(place, mean(gains), 0.6, color="tab:blue", alpha=0.5)
            axis.plot([place] * len(gains), gains, "k.", markersize=5)
        axis.set_xticks(range(len(names)), names, rotation=30)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_ylabel("nDCG@10 gained by training (a point a seed)")


def main() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    draw_mining(left)
    draw_training(right)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    plt.rcParams["svg.hashsalt"] = "006_mining"
    figure.savefig(HERE / "plot.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
