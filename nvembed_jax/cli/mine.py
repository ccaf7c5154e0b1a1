"""`nvembed mine`: hard negatives for training pairs."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options

NAME = "mine"
HELP = """Add hard negatives to training pairs.

PAIRS: .jsonl or .jsonl.gz with {"query": ..., "positive": ...} a line. OUT: the same rows with
"negatives", "negative_scores" and "positive_score"; negatives that a row had are replaced. The pool
is --corpus, else the positives of all rows.

A candidate is taken only if its score says that it is no further answer (a false negative):
perc-pos below 0.95 of the positive's score, margin-pos below it by 0.05, abs below 0.7, shifted
from rank 11 on, naive always. Known positives and texts equal to them are never taken. A run that
was stopped goes on where it was.

\b
Examples:
  nvembed mine pairs.jsonl -o mined.jsonl
  nvembed mine pairs.jsonl.gz -o mined.jsonl.gz --corpus corpus.jsonl.gz --model NV-Embed-v2
  nvembed mine pairs.jsonl -o mined.jsonl --method margin-pos --threshold 0.1 --negatives 15
  nvembed mine pairs.jsonl -o mined.jsonl -m NV-Embed-v2 -m intfloat/e5-large-v2 --sample 30
"""


class Method(StrEnum):
    """The family of arXiv 2407.15831, and the baseline."""

    perc_pos = "perc-pos"
    margin_pos = "margin-pos"
    abs = "abs"
    shifted = "shifted"
    naive = "naive"
    random = "random"


class Positives(StrEnum):
    """Which of several positives sets the limit."""

    min = "min"
    max = "max"
    each = "each"


class Combine(StrEnum):
    """What several teachers decide together."""

    average = "average"
    intersect = "intersect"


Pairs = Annotated[Path, typer.Argument(metavar="PAIRS", help="Training pairs: .jsonl(.gz).")]
Out = Annotated[Path, typer.Option("--output", "-o", help="The file to write: .jsonl(.gz).")]
CorpusFile = Annotated[
    Path | None,
    typer.Option("--corpus", help="The pool: {_id, title?, text} a line. Default: the positives."),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="Teacher: a folder or a name; may be given many times. Default: $NVEMBED_MODEL, else "
        "the bundled model.",
    ),
]
MethodOption = Annotated[Method, typer.Option("--method", help="How candidates are left out.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Of the method. Default: perc-pos 0.95, margin-pos 0.05, abs 0.7, shifted 10 ranks.",
    ),
]
Negatives = Annotated[int, typer.Option("--negatives", "-n", min=1, help="Negatives a query.")]
PositivesOption = Annotated[
    Positives,
    typer.Option(
        "--positives",
        help="Of several positives, the score that sets the limit: the lowest, the highest, or "
        "each in a row of its own.",
    ),
]
CombineOption = Annotated[
    Combine,
    typer.Option(
        "--combine",
        help="Several models: average their standardised scores, or also ask that a candidate "
        "passes with each of them.",
    ),
]
Depth = Annotated[int, typer.Option("--depth", min=1, help="Candidates looked at for a query.")]
MaxDepth = Annotated[
    int, typer.Option("--max-depth", min=1, help="How far to look where too few of them pass.")
]
Sample = Annotated[
    int | None,
    typer.Option("--sample", min=1, help="Draw from the first N that pass. Default: the first."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of --sample and --method random.")]
PoolNegatives = Annotated[
    bool, typer.Option("--pool-negatives", help="Negatives in PAIRS join the pool.")
]
GroupKey = Annotated[
    str, typer.Option("--group-key", help="Key that marks rows as positives of each other.")
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder that keeps the embeddings. Default: until OUT is there."),
]


def command(
    pairs: Pairs,
    out: Out,
    corpus: CorpusFile = None,
    models: Models = None,
    method: MethodOption = Method.perc_pos,
    threshold: Threshold = None,
    negatives: Negatives = 7,
    positives: PositivesOption = Positives.min,
    combine: CombineOption = Combine.average,
    depth: Depth = 100,
    max_depth: MaxDepth = 2000,
    sample: Sample = None,
    seed: Seed = 0,
    task: options.Task = None,
    pool_negatives: PoolNegatives = False,
    group_key: GroupKey = "group",
    cache: Cache = None,
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
) -> None:
    """See `HELP`."""
    rule = {"method": str(method), "threshold": threshold, "positives": str(positives)}
    chosen: dict[str, Any] = {
        "negatives": negatives,
        "depth": depth,
        "max_depth": max(max_depth, depth),
        "sample": sample,
        "seed": seed,
        "combine": str(combine),
        "task": task,
        "pool_negatives": pool_negatives,
        "group_key": group_key,
    }
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "max_length": max_length}
    names = models or [os.environ.get("NVEMBED_MODEL")]
    report = _mine(pairs, out, corpus, names, rule, chosen, loading, batch_tokens, cache)
    _print(report, out)


def _mine(
    pairs: Path,
    out: Path,
    corpus: Path | None,
    models: list[Any],
    rule: dict[str, Any],
    chosen: dict[str, Any],
    loading: dict[str, Any],
    batch_tokens: int | None,
    cache: Path | None,
) -> Any:
    from functools import partial

    from nvembed_jax.cli.progress import encode_block
    from nvembed_jax.search.mining import mine
    from nvembed_jax.search.mining_rules import MiningOptions, Rule

    try:
        mining = MiningOptions(rule=Rule(**rule), **chosen)
    except ValueError as error:
        raise options.usage_error(str(error)) from None
    return mine(
        pairs,
        out,
        [partial(options.load_model, model, **loading) for model in models],
        corpus=corpus,
        options=mining,
        cache=cache,
        encode_block=encode_block(),
        encoding={"batch_tokens": batch_tokens} if batch_tokens else {},
    )


def _print(report: Any, out: Path) -> None:
    from nvembed_jax.cli.progress import note

    wanted = report.wanted
    print(f"queries    {report.queries:,}")
    print(f"pool       {report.pool:,} texts")
    print(f"negatives  {report.mean_negatives:.2f} a query on average; {wanted} wanted")
    print(
        f"filtered   {report.filtered_fraction:.1%} of {report.candidates:,} candidates "
        f"({report.known:,} known positives and own texts not counted)"
    )
    print(
        f"short      {report.short:,} queries with fewer than {wanted}; {report.none:,} with none"
    )
    if report.replaced:
        note(f"{report.replaced:,} rows had negatives of their own; the mined ones replaced them")
    note(f"wrote {report.queries:,} examples to {out}")
