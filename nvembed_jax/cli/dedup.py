"""`nvembed dedup`: rows of a file without near-duplicates."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options
from nvembed_jax.cli.thresholds import CalibrationOption, Chosen, Preset, PresetOption, choose

DEFAULT_THRESHOLD = 0.95

NAME = "dedup"
HELP = """Drop near-duplicates from a file of texts.

INPUT: .jsonl or .txt (a text a line), each also .gz. OUT, of the same kind, has the rows that stay,
in their order and as they were. Texts that are the same but for case and white space go first;
then those whose embeddings have a cosine of at least the threshold, directly or through others:
exactly, all pairs are compared. Rows without any text all stay.

What a cosine means differs from model to model: `nvembed calibrate` finds a threshold from pairs,
and --calibration takes it from there (the preset high-precision, unless you say otherwise). The
default of 0.95 is cautious with most models. A run that was stopped goes on where it was.

\b
Examples:
  nvembed dedup corpus.jsonl -o clean.jsonl --threshold 0.9
  nvembed dedup corpus.jsonl.gz -o clean.jsonl.gz --calibration calibration.json --groups g.jsonl
  nvembed dedup corpus.jsonl -o clean.jsonl --calibration calibration.json --preset balanced
  nvembed dedup questions.txt -o distinct.txt --keep longest
"""


class Keep(StrEnum):
    """The row of a group that stays."""

    first = "first"
    longest = "longest"


Out = Annotated[Path, typer.Option("--output", "-o", help="The file to write.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Cosine from which two texts are near-duplicates; with --calibration, the threshold "
        "of the old model whose place is taken. Default: 0.95.",
    ),
]
Groups = Annotated[
    Path | None,
    typer.Option("--groups", help="Who went with whom: .jsonl(.gz), a line a row of a group."),
]
KeepOption = Annotated[Keep, typer.Option("--keep", help="The row of a group that stays.")]
Field = Annotated[str, typer.Option("--field", help="Key of the text (.jsonl).")]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder that keeps the embeddings. Default: until OUT is there."),
]


def command(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Texts: .jsonl or .txt (.gz).")],
    out: Out,
    model: options.Model = None,
    threshold: Threshold = None,
    calibration: CalibrationOption = None,
    preset: PresetOption = None,
    groups: Groups = None,
    keep: KeepOption = Keep.first,
    field: Field = "text",
    cache: Cache = None,
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
) -> None:
    """See `HELP`."""
    kind = "passage-passage"
    chosen = choose(kind, threshold, calibration, preset, default_preset=Preset.high_precision)
    chosen = chosen or Chosen(DEFAULT_THRESHOLD, "the default, whatever the model", kind)
    if not 0 < chosen.cosine <= 1:
        raise options.usage_error(
            f"the threshold of near-duplicates lies over 0 and up to 1; got {chosen.cosine:g} "
            f"({chosen.source})"
        )
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "max_length": max_length}
    given = {"groups": groups, "keep": str(keep), "field": field, "cache": cache}
    encoding = {"batch_tokens": batch_tokens} if batch_tokens else {}
    report = _dedup(source, out, model, loading, chosen, encoding=encoding, **given)
    _print(report, chosen, out, groups)


def _dedup(
    source: Path,
    out: Path,
    model: str | None,
    loading: dict[str, Any],
    chosen: Chosen,
    **given: Any,
) -> Any:
    from nvembed_jax.cli.progress import encode_block
    from nvembed_jax.search.dedup import dedup

    def load() -> Any:
        loaded = options.load_model(model, **loading)
        chosen.check(loaded)
        return loaded

    return dedup(source, out, load, threshold=chosen.cosine, encode_block=encode_block(), **given)


def _print(report: Any, chosen: Chosen, out: Path, groups: Path | None) -> None:
    from nvembed_jax.cli.progress import note

    dropped = report.exact + report.near
    checked = ", which was made for this model" if chosen.calibration is not None else ""
    print(f"rows       {report.rows:,}")
    print(f"threshold  {report.threshold:.4f} ({chosen.source}{checked})")
    print(f"dropped    {dropped:,} ({dropped / report.rows:.1%})")
    print(f"  exact    {report.exact:,} the same but for case and white space")
    print(f"  near     {report.near:,} by their embeddings")
    print(f"groups     {report.groups:,}, the largest of {report.largest:,} rows")
    print(f"kept       {report.kept:,}")
    if report.linked:
        note(
            f"{report.linked:,} dropped rows reach the threshold with others of their group, not "
            f"with the row kept; a higher --threshold would part them"
        )
    if report.blank:
        note(f"{report.blank:,} rows without any text were kept")
    note(f"wrote {report.kept:,} rows to {out}{f', the groups to {groups}' if groups else ''}")
