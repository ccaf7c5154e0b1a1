"""Prints results.json as the tables of the README; with --write puts them into it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nvembed_jax.data.writers import write_text

HERE = Path(__file__).parent
MARKS = "<!-- results: begin -->", "<!-- results: end -->"


def points(values: list[float], signed: bool = False) -> str:
    """A score x 100 with its interval."""
    sign = "+" if signed else ""
    value, low, high = (f"{100 * v:{sign}.1f}" for v in values)
    return f"{value} ({low} to {high})"


def rows_of(name: str, result: dict[str, Any], conditions: list[str]) -> list[str]:
    """A line of scores and a line of differences to the right sides."""
    parts = result["conditions"]
    scores = [points(parts[c]["ndcg_at_10"]) for c in conditions]
    changes = [points(parts[c]["difference"], True) for c in conditions[1:]]
    return [f"| {name} | {' | '.join(scores)} |", f"| | difference | {' | '.join(changes)} |"]


def cosine_rows(model: dict[str, Any], conditions: list[str]) -> list[str]:
    """Mean cosines of relevant pairs: what a wrong side does to thresholds."""
    lines = [f"| mean cosine of relevant pairs | {' | '.join(conditions)} |"]
    lines.append("|---" * (len(conditions) + 1) + "|")
    for name, task in model["tasks"].items():
        cosines = [f"{task['conditions'][c]['relevant_cosine']:.3f}" for c in conditions]
        lines.append(f"| {name} | {' | '.join(cosines)} |")
    return lines


def model_part(name: str, model: dict[str, Any]) -> str:
    """The tables of one model."""
    conditions = list(model["mean"])
    example = next(iter(model["tasks"].values()))["prefixes"]
    lines = [
        f"**{name}** ({model['fingerprint']}). Before a query: `{example['query']!r}`; before a "
        f"passage: `{example['passage']!r}`.",
        "",
        f"| nDCG@10 x 100 | {' | '.join(conditions)} |",
        "|---" * (len(conditions) + 1) + "|",
    ]
    for task, result in model["tasks"].items():
        shown = f"{task} ({result['queries']:,} queries, {result['passages']:,} passages)"
        lines += rows_of(shown, result, conditions)
    lines += rows_of("**mean**", {"conditions": model["mean"]}, conditions)
    return "\n".join([*lines, "", *cosine_rows(model, conditions)])


def markdown(results: dict[str, Any]) -> str:
    """All models."""
    settings = results["settings"]
    head = (
        f"At most {settings['queries']:,} queries a task (seed {settings['seed']}), "
        f"{settings['max_length']} tokens a text, {settings['samples']:,} bootstrap samples of the "
        f"queries, 95 % intervals; {results['date']}, jax {results['versions']['jax']}."
    )
    return "\n\n".join([head, *(model_part(n, m) for n, m in results["models"].items())])


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
