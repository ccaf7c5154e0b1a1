"""Draws results.json as plot.png: what each wrong side costs, by task."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, default=HERE / "plot.png")
    args = parser.parse_args()
    models = json.loads(args.results.read_text("utf8"))["models"]
    figure, axes = plt.subplots(
        1, len(models), figsize=(7 * len(models), 4.5), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (name, model) in zip(axes[0], models.items(), strict=True):
        rows = {task: result["conditions"] for task, result in model["tasks"].items()}
        rows["mean"] = model["mean"]
        wrong = [condition for condition in model["mean"] if condition != "right"]
        for number, condition in enumerate(wrong):
            values = [[100 * v for v in row[condition]["difference"]] for row in rows.values()]
            places = [x + 0.2 * (number - 1) for x in range(len(rows))]
            error = [[v[0] - v[1] for v in values], [v[2] - v[0] for v in values]]
            axis.errorbar(
                places, [v[0] for v in values], error, fmt="o", capsize=3, label=condition
            )
        axis.axhline(0, color="#bbbbbb", linewidth=0.8)
        axis.set_xticks(range(len(rows)), list(rows), rotation=20)
        axis.set_title(name, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("nDCG@10 against the right sides, points")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
