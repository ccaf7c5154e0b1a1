"""Prints results.json as the tables of the README and of the model card."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

from score import MINILM, TINY

NAMES = {
    TINY: "nvembed-tiny", MINILM: "MiniLM", "bm25": "BM25", f"{TINY} + bm25": "nvembed-tiny + BM25",
    f"{MINILM} + bm25": "MiniLM + BM25", "table": "token table, untrained",
    "static/model": "token table, trained (26,624 pieces)",
    "control/static/model": "static control of the same bytes (35,600 pieces and words)",
    "distill/model": "distilled, before the two stages",
    "stages/models/stage1": "behind stage 1",
    "cut/no_layers": "nvembed-tiny without its decoder layers",
    "cut/no_latent": "nvembed-tiny without its latent block",
}  # fmt: skip
LEFT_OUT = "summarization"  # 98 texts, on which the untrained table beats MiniLM
KINDS = (
    "classification", "clustering", "pair_classification", "reranking", "retrieval", "sts",
    "summarization",
)  # fmt: skip


def runs() -> dict[str, dict]:
    """The runs of results.json by name of the system."""
    document = json.loads((Path(__file__).parent / "results.json").read_text("utf8"))
    return {run["model"]: run for run in (document, *document.get("others", ()))}


def ratio(run: dict, reference: dict, kind: str | None = None) -> float:
    """Mean over sets of score / the reference's score; all kinds but `LEFT_OUT`, or one kind."""
    wanted = [
        (task["score"], reference["tasks"][name]["score"])
        for name, task in run["tasks"].items()
        if (task["type"] == kind if kind else task["type"] != LEFT_OUT)
    ]
    return mean(score / other for score, other in wanted)


def systems_table(found: dict[str, dict]) -> list[str]:
    """Every system: means by kind, and its share of MiniLM."""
    lines = ["| | " + " | ".join(KINDS).replace("_", " ") + " | macro | of MiniLM, per set |"]
    lines.append("|---" * (len(KINDS) + 3) + "|")
    for name, title in NAMES.items():
        if name not in found:
            continue
        run = found[name]
        whole = all(kind in run["averages"] for kind in KINDS)
        cells = [
            f"{100 * run['averages'][kind]:.1f}" if kind in run["averages"] else ""
            for kind in KINDS
        ]
        cells += [f"{100 * run['averages']['macro']:.1f}" if whole else ""]
        cells += [f"{100 * ratio(run, found[MINILM]):.1f} %" if whole else ""]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def sets_table(found: dict[str, dict]) -> list[str]:
    """Every set: nvembed-tiny, MiniLM, BM25, and fused with BM25."""
    columns = [TINY, MINILM, "bm25", f"{TINY} + bm25", f"{MINILM} + bm25"]
    lines = ["| set | kind | " + " | ".join(NAMES[name] for name in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    tasks = sorted(found[TINY]["tasks"].items(), key=lambda item: (item[1]["type"], item[0]))
    for task, facts in tasks:
        scores = [found[name]["tasks"].get(task) for name in columns]
        cells = [f"{100 * score['score']:.1f}" if score else "" for score in scores]
        lines.append(f"| {task} | {facts['type'].replace('_', ' ')} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    found = runs()
    print(*systems_table(found), "", *sets_table(found), sep="\n")


if __name__ == "__main__":
    main()
