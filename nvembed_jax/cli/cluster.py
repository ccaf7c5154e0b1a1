"""`nvembed cluster`: texts of a file in clusters."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options

NAME = "cluster"
HELP = """Put the texts of a file into clusters.

INPUT: .txt (a text a line), .jsonl, .csv (each also .gz), .parquet, a folder of text files, or -
for standard input. OUT: .jsonl(.gz) with {"id", "cluster", "score"} a line: clusters are numbered
from 0 by size, -1 is none; the score is the cosine with the cluster's centre. A page of Markdown
(OUT with .md, or --summary) has sizes, words and the texts nearest to each centre.

kmeans: every text is in one of --k clusters, of any number of texts. hdbscan: finds how many there
are, of at least --min-size texts, and leaves out what is in none; up to 50,000 texts. Needs
scikit-learn: pip install "nvembed_jax[eval]". A run that was stopped goes on where it was.

\b
Examples:
  nvembed cluster tickets.jsonl -o clusters.jsonl --k 30
  nvembed cluster tickets.csv --field subject -o clusters.jsonl --method hdbscan --min-size 15
  nvembed cluster docs/ -o clusters.jsonl --plot clusters.png --summary clusters.md
"""


class Method(StrEnum):
    """Algorithms."""

    kmeans = "kmeans"
    hdbscan = "hdbscan"


Out = Annotated[Path, typer.Option("--output", "-o", help="The file to write: .jsonl(.gz).")]
MethodOption = Annotated[Method, typer.Option("--method", help="The algorithm.")]
K = Annotated[
    int | None,
    typer.Option(
        "-k", "--k", min=1,
        help="Clusters of kmeans. Default: the square root of half the texts, at most 50.",
    ),
]  # fmt: skip
MinSize = Annotated[
    int | None,
    typer.Option("--min-size", min=2, help="Texts of hdbscan's smallest cluster. Default: 10."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn by chance.")]
Summary = Annotated[
    Path | None, typer.Option("--summary", help="Page of Markdown. Default: OUT with .md.")
]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Scatter plot of all texts: .png, .svg or .pdf.")
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder that keeps the embeddings. Default: until OUT is there."),
]


def command(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="A file, a folder, or - for standard input.")
    ],
    out: Out,
    model: options.Model = None,
    method: MethodOption = Method.kmeans,
    k: K = None,
    min_size: MinSize = None,
    seed: Seed = 0,
    summary: Summary = None,
    plot: Plot = None,
    field: options.Field = "text",
    format: options.FormatOption = None,
    cache: Cache = None,
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
) -> None:
    """See `HELP`."""
    from nvembed_jax.search.clusters import ClusterOptions

    try:
        chosen = ClusterOptions(method=str(method), k=k, min_size=min_size, seed=seed)
    except ValueError as error:
        raise options.usage_error(str(error)) from None
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "max_length": max_length}
    _cluster(
        source,
        (out, summary or out.with_name(out.name.split(".jsonl")[0] + ".md"), plot),
        model,
        loading,
        options=chosen,
        field=field,
        format=None if format is None else str(format),
        cache=cache,
        encoding={"batch_tokens": batch_tokens} if batch_tokens else {},
    )


def _cluster(
    source: str,
    files: tuple[Path, Path, Path | None],
    model: str | None,
    loading: dict[str, Any],
    **given: Any,
) -> None:
    from nvembed_jax.cli.progress import encode_block, note, note_skipped
    from nvembed_jax.search.cluster_texts import ClusterFiles, cluster_texts

    skipped: list[str] = []
    clusters = cluster_texts(
        source,
        ClusterFiles(*files),
        lambda: options.load_model(model, **loading),
        model_name=model or "",
        on_skip=lambda path, reason: skipped.append(f"{path} ({reason})"),
        encode_block=encode_block(),
        **given,
    )
    note_skipped(skipped)
    labels, sizes = clusters.labels, clusters.sizes
    left_out = int((labels < 0).sum())
    print(f"texts          {len(labels):,}")
    print(f"clusters       {len(sizes):,}")
    if len(sizes):
        print(f"largest        {sizes[0]:,}")
        print(f"smallest       {sizes[-1]:,}")
    print(f"in no cluster  {left_out:,} ({left_out / len(labels):.1%})")
    note(f"wrote {', '.join(str(path) for path in files if path is not None)}")
