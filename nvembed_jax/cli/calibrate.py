"""`nvembed calibrate`: an old model's thresholds for a new model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options

NAME = "calibrate"
HELP = """Carry thresholds over from an old model to a new one.

PAIRS: .jsonl or .jsonl.gz with {"query": ..., "passage": ...} or {"text1": ..., "text2": ...} a
line, and "label" 1 (match) or 0 where it is known. The two kinds of pairs are kept apart. From
pairs without labels: the new score that as many pairs reach as reached the old one. With labels
also: thresholds of the same precision, recall or false-positive rate, probabilities, and the
presets high_precision, balanced (highest F1) and high_recall. All with bootstrap intervals.

Take pairs like those that the threshold will see: random ones never come near it. A model's
scores belong to it: load both as you use them (--dtype, --max-length).

\b
Examples:
  nvembed calibrate pairs.jsonl --old sentence-transformers/all-MiniLM-L6-v2 --new NV-Embed-v2 \\
      --threshold 0.7 -o calibration.json --report calibration.html
  nvembed calibrate pairs.jsonl --old openai:text-embedding-3-small --new NV-Embed-v2 \\
      --threshold 30 --old-scale 100 -o calibration.json
"""

Pairs = Annotated[Path, typer.Argument(metavar="PAIRS", help="Pairs of texts: .jsonl(.gz).")]
Old = Annotated[str, typer.Option("--old", help="The model that thresholds are known for.")]
New = Annotated[str, typer.Option("--new", help="The model that takes its place.")]
Out = Annotated[Path, typer.Option("--output", "-o", help="The file to write: .json.")]
Thresholds = Annotated[
    list[float] | None,
    typer.Option("--threshold", help="Of the old model; may be given many times."),
]
Report = Annotated[
    Path | None, typer.Option("--report", help="Curves and tables: .html, .png, .svg or .pdf.")
]
OldScale = Annotated[
    float, typer.Option("--old-scale", help="Old scores are cosines times this: 1 or 100.")
]
NewScale = Annotated[
    float, typer.Option("--new-scale", help="New scores are cosines times this: 1 or 100.")
]
Precision = Annotated[
    float, typer.Option("--precision", help="What the preset high_precision is to reach.")
]
Recall = Annotated[float, typer.Option("--recall", help="What the preset high_recall is to reach.")]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Bootstrap samples.")]
Level = Annotated[float, typer.Option("--level", help="Share of the samples in an interval.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap samples.")]


def command(
    pairs: Pairs,
    out: Out,
    old: Old,
    new: New,
    thresholds: Thresholds = None,
    report: Report = None,
    task: options.Task = None,
    old_scale: OldScale = 1.0,
    new_scale: NewScale = 1.0,
    precision: Precision = 0.95,
    recall: Recall = 0.95,
    samples: Samples = 1000,
    level: Level = 0.95,
    seed: Seed = 0,
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    dtype: options.DtypeOption = None,
) -> None:
    """See `HELP`."""
    from nvembed_jax.calibration.thresholds import CalibrationOptions

    if out.suffix.lower() != ".json":
        raise options.usage_error(f"--output names a .json file; got {out}")
    try:
        chosen = CalibrationOptions(
            thresholds=tuple(thresholds or ()),
            precision=precision,
            recall=recall,
            samples=samples,
            level=level,
            seed=seed,
        )
    except ValueError as error:
        raise options.usage_error(str(error)) from None
    loading = {"dtype": dtype, "max_length": max_length}
    _calibrate(
        pairs,
        out,
        report,
        [partial(options.load_model, model, **loading) for model in (old, new)],
        options=chosen,
        names=(old, new),
        scales=(old_scale, new_scale),
        task=task,
        encoding={"batch_tokens": batch_tokens} if batch_tokens else {},
    )


def _calibrate(
    pairs: Path, out: Path, report: Path | None, models: list[Any], **chosen: Any
) -> None:
    from nvembed_jax.calibration.calibrate import calibrate
    from nvembed_jax.calibration.report import check_report, write_report
    from nvembed_jax.cli.progress import note

    if report is not None:
        check_report(report)
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{out}: cannot be written, there is no folder {out.parent}")
    calibration, scores = calibrate(pairs, *models, **chosen)
    calibration.save(out)
    if report is not None:
        write_report(report, calibration, scores)
    for kind, part in calibration.kinds.items():
        _print(kind, part)
        if not part.presets:
            note(f"no presets for {kind} pairs: they need labels, or --threshold")
    note(f"wrote {out}{f' and {report}' if report is not None else ''}")


def _print(kind: str, part: Any) -> None:
    from nvembed_jax.calibration.report import shown, summary_rows

    print(f"{kind}: {part.pairs:,} pairs, {part.labelled:,} with a label")
    rows = list(summary_rows(part))
    width = max((len(what) for what, _ in rows), default=0)
    for what, threshold in rows:
        measures = [
            f"{name.replace('_', ' ')} {shown(estimate, True)}"
            for name, estimate in threshold.measures.items()
            if estimate.value is not None
        ]
        score = shown(threshold.score) or "none fits"
        print(f"  {what:<{width}}  {score:<28}  {', '.join(measures)}".rstrip())
