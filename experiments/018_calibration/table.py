"""Prints results.json as the tables of the README; with --write puts them into it."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from nvembed_jax.data.writers import write_text

HERE = Path(__file__).parent
MARKS = "<!-- results: begin -->", "<!-- results: end -->"
METHODS = {
    "old": "old model, old threshold",
    "reused": "the same number",
    "rescaled": "the same number x 100",
    "quantile": "quantile mapping, no labels",
    "precision": "labels: same precision",
    "recall": "labels: same recall",
    "false_positive_rate": "labels: same false-positive rate",
}


def percent(values: list[float] | None) -> str:
    """A share with its interval."""
    if values is None:
        return "none"
    value, low, high = (f"{100 * v:.1f}" for v in values)
    return f"{value} ({low} to {high})"


def score(values: list[float | None]) -> str:
    """A threshold with its interval, without one where it was given."""
    if values[0] is None:
        return "none"
    if values[0] == values[1] == values[2]:
        return f"{values[0]:.3g}"
    return f"{values[0]:.3f} ({values[1]:.3f} to {values[2]:.3f})"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table."""
    names = list(header)
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def heading(results: dict[str, Any]) -> list[str]:
    """The models, the sets, and what they were measured with."""
    old, new, settings = results["models"]["old"], results["models"]["new"], results["settings"]
    seeds = ", ".join(map(str, settings["seeds"]))
    rows = [
        (name, s["kind"], f"{s['pairs']:,}", f"{100 * s['matches'] / s['pairs']:.1f} %",
         f"{s['largest_group']:,}") for name, s in results["sets"].items()
    ]  # fmt: skip
    return [
        f"Old model: {old['name']} ({old['fingerprint']}). New model: {new['name']} "
        f"({new['fingerprint']}). Splits by the seeds {seeds}; {settings['samples']:,} bootstrap "
        f"samples, 95 % intervals; {results['date']}, jax {results['versions']['jax']}.",
        "",
        *table(("set", "pairs of", "pairs", "matches", "largest group that shares texts"), rows),
    ]


def main_table(results: dict[str, Any]) -> list[str]:
    """What becomes of one threshold in every set: first seed, held-out pairs."""
    settings = results["settings"]
    lines = [
        f"**The old threshold {settings['main']:g}** on held-out pairs of the first split, in "
        f"percent with intervals.",
        "",
    ]
    rows = []
    for row in results["thresholds"]:
        chosen = row["target"] == "new" and row["old_threshold"] == settings["main"]
        if chosen and row["seed"] == settings["seeds"][0]:
            measures = [percent(row[name]) for name in ("share", "precision", "recall")]
            rows.append((row["set"], METHODS[row["method"]], score(row["threshold"]), *measures))
    return [*lines, *table(("set", "", "threshold", "flagged", "precision", "recall"), rows)]


def drift_table(results: dict[str, Any]) -> list[str]:
    """How far each way is from what the old threshold did: sets, thresholds and splits together."""
    before = {_place(row): row for row in results["thresholds"] if row["method"] == "old"}
    groups: dict[tuple[str, str], list[tuple[dict, dict]]] = defaultdict(list)
    for row in results["thresholds"]:
        if row["method"] != "old":
            groups[row["target"], row["method"]].append((row, before[_place(row)]))
    rows = []
    for (target, method), pairs in groups.items():
        cells = []
        for name in ("share", "precision", "recall"):
            gaps = [abs(a[name][0] - b[name][0]) for a, b in pairs if a[name] and b[name]]
            undefined = len(pairs) - len(gaps)
            shown = f"{100 * mean(gaps):.1f} (most {100 * max(gaps):.1f})" if gaps else "none"
            cells.append(shown + (f", undefined in {undefined} of {len(pairs)}" * bool(undefined)))
        rows.append((target, METHODS[method], *cells))
    return [
        "**Distance from what the old threshold did**, in points: the mean over sets, thresholds "
        "and splits, and the greatest.",
        "",
        *table(("target", "", "flagged", "precision", "recall"), rows),
    ]


def preset_table(results: dict[str, Any]) -> list[str]:
    """The presets of the artefact: first seed, held-out pairs."""
    rows = []
    for row in results["presets"]:
        if row["target"] == "new" and row["seed"] == results["settings"]["seeds"][0]:
            name = f"{row['preset'].replace('_', ' ')} ({row['basis']})"
            measures = [percent(row[key]) for key in ("precision", "recall")]
            rows.append((row["set"], name, score(row["threshold"]), *measures))
    return [
        "**Presets** of one artefact, chosen on one half, measured on the other.",
        "",
        *table(("set", "preset", "threshold", "precision", "recall"), rows),
    ]


def size_table(results: dict[str, Any]) -> list[str]:
    """How many unlabelled pairs a mapping needs."""
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in results["sizes"]:
        groups["all" if row["whole"] else f"{row['pairs']:,}"].append(row)
    rows = []
    for size, found in sorted(groups.items(), key=lambda item: _size(item[0])):
        width = mean(row["threshold"][2] - row["threshold"][1] for row in found)
        gap = mean(abs(row["share"] - row["old_share"]) for row in found)
        rows.append((size, f"{width:.3f}", f"{100 * gap:.1f}", str(len(found))))
    return [
        f"**How many unlabelled pairs** a map of {results['settings']['main']:g} needs: means over "
        f"sets and splits.",
        "",
        *table(("pairs", "width of the threshold's interval",
                "share flagged, points from the old one", "measurements"), rows),
    ]  # fmt: skip


def transfer_table(results: dict[str, Any]) -> list[str]:
    """Maps used where they were made, and elsewhere."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in results["transfer"]:
        where = "the same set" if row["from"] == row["set"] else "another set of the same kind"
        groups[where].append(abs(row["share"] - row["old_share"]))
    rows = [
        (where, f"{100 * mean(gaps):.1f} (most {100 * max(gaps):.1f})")
        for where, gaps in sorted(groups.items(), reverse=True)
    ]
    return [
        "**A map used elsewhere** than where it was made.",
        "",
        *table(("used on", "share flagged, points from the old one"), rows),
    ]


def _place(row: dict[str, Any]) -> tuple:
    return row["set"], row["target"], row["seed"], row["old_threshold"]


def _size(shown: str) -> float:
    return float("inf") if shown == "all" else float(shown.replace(",", ""))


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    parts = (heading, main_table, drift_table, preset_table, size_table, transfer_table)
    return "\n\n".join("\n".join(part(results)) for part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--write", action="store_true", help="into the README")
    args = parser.parse_args()
    text = markdown(json.loads(args.results.read_text("utf8")))
    if not args.write:
        print(text)
        return
    readme = HERE / "README.md"
    before, _, rest = readme.read_text("utf8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    write_text(readme, f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
