"""`nvembed compare`: what a change of model does to the results of a search."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options

NAME = "compare"
HELP = """Compare the results of two models, or of two indexes, over the same queries.

QUERIES: as for encode, a text each. Prints overlap@k (the share of the k best that both have), the
rank correlation of what either has among its k best, how often the best text is the same, and the
queries that changed most. The corpus is encoded by both models, or was: indexes are folders of
`nvembed search --index`.

\b
Examples:
  nvembed compare queries.txt --old intfloat/e5-base-v2 --new NV-Embed-v2 --corpus corpus.jsonl
  nvembed compare queries.jsonl --old M1 --new M2 --old-index index1 --new-index index2 -k 20
"""

Queries = Annotated[str, typer.Argument(metavar="QUERIES", help="A file, or - for standard input.")]
Old = Annotated[str, typer.Option("--old", help="The first model.")]
New = Annotated[str, typer.Option("--new", help="The second model.")]
CorpusFile = Annotated[
    str | None, typer.Option("--corpus", help="What is searched: a file or a folder.")
]
OldIndex = Annotated[Path | None, typer.Option("--old-index", help="An index of the first model.")]
NewIndex = Annotated[Path | None, typer.Option("--new-index", help="An index of the second model.")]
K = Annotated[int, typer.Option("-k", "--top-k", min=1, help="Results looked at.")]
Show = Annotated[int, typer.Option("--show", min=0, help="Changed queries printed.")]
Out = Annotated[
    Path | None, typer.Option("--output", "-o", help="All queries with both rankings: .json.")
]


def command(
    queries: Queries,
    old: Old,
    new: New,
    corpus: CorpusFile = None,
    old_index: OldIndex = None,
    new_index: NewIndex = None,
    k: K = 10,
    show: Show = 10,
    out: Out = None,
    task: options.Task = None,
    field: options.Field = "text",
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    dtype: options.DtypeOption = None,
) -> None:
    """See `HELP`."""
    indexes = (old_index, new_index)
    if (corpus is None) == (None in indexes) or (corpus is not None and any(indexes)):
        raise options.usage_error("give --corpus, or --old-index together with --new-index")
    if out is not None and out.suffix.lower() != ".json":
        raise options.usage_error(f"--output names a .json file; got {out}")
    loading = {"dtype": dtype, "max_length": max_length}
    models = [partial(options.load_model, model, **loading) for model in (old, new)]
    encoding = {"batch_tokens": batch_tokens} if batch_tokens else {}
    texts = _texts(queries, field)
    first, second = (
        _rank(load, texts, k, corpus, index, task, encoding)
        for load, index in zip(models, indexes, strict=True)
    )

    from nvembed_jax.calibration.rankings import compare_rankings

    _report(compare_rankings(texts, first, second, k), show, out)


def _texts(queries: str, field: str) -> list[str]:
    from nvembed_jax.data.records import read_records

    return [record.full_text for record in read_records(queries, field=field)]


def _rank(
    load: Callable[[], Any],
    texts: list[str],
    k: int,
    corpus: str | None,
    index: Path | None,
    task: str | None,
    encoding: dict[str, Any],
) -> list[list[str]]:
    from nvembed_jax.calibration.rankings import rank_corpus, rank_index
    from nvembed_jax.cli.progress import encode_block
    from nvembed_jax.data.corpus import Corpus
    from nvembed_jax.search.index import SearchIndex

    if index is not None:
        opened = SearchIndex(index)  # before the model is loaded
        return rank_index(opened, load(), texts, k, task=task, show_progress_bar=False, **encoding)
    assert corpus is not None
    with Corpus(corpus) as records:
        records.scan()
        return rank_corpus(
            records.records, load(), texts, k, task=task, encoding=encoding, block=encode_block()
        )


def _report(found: Any, show: int, out: Path | None) -> None:
    from nvembed_jax.cli.hits import one_line, shorten
    from nvembed_jax.cli.progress import note

    if out is not None:
        found.save(out)
    names = {
        "overlap": f"overlap@{found.k}",
        "correlation": "rank correlation",
        "same_first": "same best text",
    }
    print(f"{'queries':<18}{found.queries:,}")
    for name, shown in names.items():
        low, high = found.intervals[name]
        print(f"{shown:<18}{getattr(found, name):.3f} ({low:.3f} to {high:.3f})")
    for change in found.changes[:show]:
        head = f"{change.overlap:.2f} {change.correlation:+.2f}"
        print(f"{head}  {shorten(one_line(change.query), 100)}")
    if out is not None:
        note(f"wrote {out}")
