"""`nvembed decontaminate`: training rows without those that stand in evaluation sets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options

NAME = "decontaminate"
HELP = """Drop training rows that stand in evaluation sets.

PAIRS: .jsonl or .jsonl.gz with {"query": ..., "positive": ...} a line. --against: task folders
(queries, corpus, classification, clustering, sts, pairs, reranking, summarization files), a folder
of them, or .jsonl and .txt files; of rows with a split only test and validation count. OUT: the
rows that stay; OUT.report.json: what was dropped, with the text that it matched.

A row is dropped when its query or a positive is the same but for case and white space (exact),
nearly the same (minhash), or when one of the two repeats the other's wording (bm25).

\b
Examples:
  nvembed decontaminate pairs.jsonl --against tasks/ -o clean.jsonl
  nvembed decontaminate pairs.jsonl.gz --against tasks/fiqa --against tasks/sts -o clean.jsonl.gz
  nvembed decontaminate pairs.jsonl --against tasks/ -o clean.jsonl --fields query --no-corpus
  nvembed decontaminate pairs.jsonl --against test.txt -o clean.jsonl --methods exact,minhash
"""


class Fields(StrEnum):
    """Texts of a training row that are looked for."""

    query = "query"
    positive = "positive"
    both = "both"


Against = Annotated[
    list[Path],
    typer.Option("--against", help="Evaluation sets: folders or files; may be given many times."),
]
FieldsOption = Annotated[
    Fields, typer.Option("--fields", help="Texts of a row that are looked for.")
]
Methods = Annotated[str, typer.Option("--methods", help="Of exact, minhash, bm25; with commas.")]
MinhashThreshold = Annotated[
    float,
    typer.Option("--minhash-threshold", help="Jaccard similarity of 5-character pieces, 0 to 1."),
]
Bm25Threshold = Annotated[
    float,
    typer.Option(
        "--bm25-threshold",
        help="Share of the shorter text's 3-word sequences that stand in the longer one, 0 to 1.",
    ),
]
Split = Annotated[str, typer.Option("--split", help="Splits that are evaluated on; with commas.")]
WithCorpus = Annotated[
    bool,
    typer.Option(
        "--corpus/--no-corpus",
        help="Also the collections that are searched; training sets may share them by right.",
    ),
]
GroupKey = Annotated[
    str, typer.Option("--group-key", help="Key that marks rows as positives of each other.")
]


def command(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="Training pairs: .jsonl(.gz).")],
    against: Against,
    out: Annotated[Path, typer.Option("--output", "-o", help="The file to write: .jsonl(.gz).")],
    fields: FieldsOption = Fields.both,
    methods: Methods = "exact,minhash,bm25",
    minhash_threshold: MinhashThreshold = 0.7,
    bm25_threshold: Bm25Threshold = 0.8,
    split: Split = "test,validation,dev",
    with_corpus: WithCorpus = True,
    group_key: GroupKey = "group",
) -> None:
    """See `HELP`."""
    from nvembed_jax.cli.progress import note
    from nvembed_jax.data.decontaminate import DecontaminationOptions, decontaminate

    try:
        chosen = DecontaminationOptions(
            fields=str(fields),
            methods=_names(methods),
            minhash_threshold=minhash_threshold,
            bm25_threshold=bm25_threshold,
            splits=_names(split),
            with_corpus=with_corpus,
            group_key=group_key,
        )
    except ValueError as error:
        raise options.usage_error(str(error)) from None
    skipped: list[str] = []
    report = decontaminate(pairs, against, out, options=chosen, on_skip=skipped.append)
    if skipped:
        note(f"no evaluation texts in {len(skipped)} folders, among them {skipped[0]}")
    _print(report)
    note(f"wrote {report.kept:,} examples to {out}, the report to {out}.report.json")


def _names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _print(report: Any) -> None:
    dropped = len(report.dropped)
    texts = sum(report.texts.values())
    print(f"rows     {report.rows:,}")
    print(f"against  {texts:,} texts of {len(report.texts):,} evaluation sets")
    print(f"dropped  {dropped:,} ({dropped / max(report.rows, 1):.1%})")
    for method in report.settings["methods"]:
        print(f"  by {method:<8} {report.by_method[method]:,}")
    for name, count in report.by_set.most_common():
        print(f"  in {name}: {count:,}")
    print(f"kept     {report.kept:,}")
