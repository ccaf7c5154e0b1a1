"""`nvembed evaluate`: scores of models on task folders."""

from __future__ import annotations

import os
import traceback
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from nvembed_jax.cli import options
from nvembed_jax.cli.options import Truncation

NAME = "evaluate"
HELP = """Score models on evaluation sets.

A task folder holds task.json (name, type, instruction, main_score) and the files of its type:
retrieval, reranking, classification, clustering, sts, pair_classification or summarization; see
docs/evaluate.md. A DIR is a task folder, or holds some.

Writes the scores, the averages by type and their mean to OUT, and beside it, in the folder
OUT.scores (without .json), the scores of every query. What is there already, of the same model
and files, is not computed again. A task that cannot be read or scored is told and passed over; the
others are scored and written, and the exit code is 1.

\b
Examples:
  nvembed evaluate --tasks sets/scitldr -o results.json
  nvembed evaluate --tasks sets/scitldr sets/mrpc --baseline bm25 -o results.json
  nvembed evaluate --tasks sets --model run1/model --model run2/model -o results.json \\
    --report report.md --plot report.svg
  nvembed evaluate --tasks sets --limit 1000 --seed 0 --protocol quick -o quick.json
  nvembed evaluate --mteb SciFact STSBenchmark -o mteb.json
"""


BASELINE_HELP = (
    "Also score this, on retrieval and reranking. hybrid: every model fused with BM25, as "
    "`nvembed search --hybrid` does."
)


class Protocol(StrEnum):
    """How fits are drawn."""

    mteb = "mteb"
    quick = "quick"


class Baseline(StrEnum):
    """What a model can be held against."""

    bm25 = "bm25"
    hybrid = "hybrid"


Tasks = Annotated[
    list[Path] | None,
    typer.Option("--tasks", metavar="DIR...", help="Task folders, or folders of them."),
]
Mteb = Annotated[
    list[str] | None,
    typer.Option(
        "--mteb",
        metavar="NAME...",
        help="Tasks or benchmarks of mteb, which loads and scores them by its own settings.",
    ),
]
MoreTasks = Annotated[list[Path] | None, typer.Argument(metavar="DIR", hidden=True)]
Out = Annotated[Path, typer.Option("--output", "-o", help="The results, a .json file.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Model folder or name, or a remote model (docs/remote.md); may be given many times. "
        "Default: the bundled model.",
    ),
]
Baselines = Annotated[
    list[Baseline] | None,
    typer.Option("--baseline", metavar="bm25|hybrid", help=BASELINE_HELP),
]
Report = Annotated[Path | None, typer.Option("--report", help="Also write a Markdown report.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Also write a plot: .svg, .png or .pdf.")]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, help="Queries or test texts a task (clustering: twice as many)."
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of samples and fits; MTEB's own is 42.")]
ProtocolOption = Annotated[
    Protocol, typer.Option("--protocol", help="mteb: MTEB's definitions; quick: fewer fits.")
]
SamplesPerLabel = Annotated[
    int | None,
    typer.Option("--samples-per-label", min=1, help="In classification. Default: 8 (quick: 16)."),
]


def command(
    out: Out,
    tasks: Tasks = None,
    mteb: Mteb = None,
    more_tasks: MoreTasks = None,
    models: Models = None,
    baselines: Baselines = None,
    report: Report = None,
    plot: Plot = None,
    limit: Limit = None,
    seed: Seed = 0,
    protocol: ProtocolOption = Protocol.mteb,
    samples_per_label: SamplesPerLabel = None,
    truncate_dim: options.TruncateDim = None,
    max_length: options.MaxLength = None,
    batch_tokens: options.BatchTokens = None,
    truncation: options.TruncationOption = Truncation.keep_eos,
    dtype: options.DtypeOption = None,
    attention: options.AttentionOption = None,
    pooling: options.PoolingOption = None,
) -> None:
    """See `HELP`."""
    loading = {"dtype": dtype, "attention": attention, "pooling": pooling, "truncation": truncation}
    loading["max_length"] = max_length
    names = dict.fromkeys(models or [os.environ.get("NVEMBED_MODEL") or ""])
    encoding = {"truncate_dim": truncate_dim, "batch_tokens": batch_tokens}
    folders, more, hub = list(tasks or ()), list(more_tasks or ()), list(mteb or ())
    if not folders and not hub:
        raise options.usage_error("nothing to score: give --tasks DIR or --mteb NAME")
    # What follows a value of an option belongs to it; with both, to --tasks.
    hub += [str(name) for name in more] if not folders else []
    _evaluate(
        [*folders, *(more if folders else ())],
        hub,
        {name or "default": partial(options.load_model, name or None, **loading) for name in names},
        {"out": out, "report": report, "plot": plot},
        {
            "baselines": [str(name) for name in dict.fromkeys(baselines or ())],
            "limit": limit,
            "seed": seed,
            "protocol": str(protocol),
            "samples_per_label": samples_per_label,
            "encoding": {name: value for name, value in encoding.items() if value is not None},
        },
    )


def _evaluate(
    folders: list[Path],
    hub: list[str],
    models: dict[str, Any],
    outputs: dict[str, Path | None],
    settings: dict[str, Any],
) -> None:
    """Everything is checked before a model is loaded: outputs, then every row of every task.

    Raises:
        ValueError: after all is written, where something could not be scored.
    """
    from nvembed_jax.cli.progress import note

    out, report, plot = (outputs[name] for name in ("out", "report", "plot"))
    assert out is not None
    _check_outputs(out, report, plot)

    from nvembed_jax.eval import evaluate, read_runs
    from nvembed_jax.eval.report import score_tables

    tasks: list[Any] = [*_task_folders(folders)]
    if hub:
        from nvembed_jax.eval.mteb_encoder import hub_tasks

        tasks += hub_tasks(hub)
    evaluate(models, tasks, out=out, on_failure=_show_failure, **settings)
    runs = read_runs(out)
    print(score_tables(runs))
    note(f"wrote {out}")
    if report is not None:
        _write_report(runs, report)
        note(f"wrote {report}")
    if plot is not None:
        from nvembed_jax.eval.report import plot as draw

        draw(runs, plot)
        note(f"wrote {plot}")
    failed = dict.fromkeys(name for run in runs for name in run.failed)
    if failed:
        raise ValueError(f"not everything could be scored; failed: {', '.join(failed)}")


def _task_folders(folders: list[Path]) -> list[Path]:
    """The task folders in `folders`; one without any stays, for `evaluate` to say so."""
    from nvembed_jax.eval import find_tasks

    found: list[Path] = []
    for folder in folders:
        try:
            found += find_tasks([folder])
        except FileNotFoundError:
            found.append(folder)
    return list(dict.fromkeys(found))


def _show_failure(line: str, error: Exception) -> None:
    from nvembed_jax.cli.progress import note

    note(line)
    if os.environ.get("NVEMBED_DEBUG") == "1":
        traceback.print_exception(error)


def _check_outputs(out: Path, report: Path | None, plot: Path | None) -> None:
    if out.suffix.lower() != ".json":
        raise options.usage_error(f"-o takes a .json file; got {out}")
    if plot is not None:
        from nvembed_jax.eval.report import PLOT_SUFFIXES

        if plot.suffix.lower() not in PLOT_SUFFIXES:
            raise options.usage_error(f"--plot takes {', '.join(PLOT_SUFFIXES)}; got {plot}")
        if find_spec("matplotlib") is None:
            raise ImportError('--plot needs matplotlib: pip install "nvembed_jax[eval]"')
    for path in (report, plot):
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"{path}: cannot be written, there is no folder {path.parent}")


def _write_report(runs: list[Any], path: Path) -> None:
    from nvembed_jax.data.writers import write_text
    from nvembed_jax.eval.compare import comparable, compare
    from nvembed_jax.eval.report import markdown

    comparisons = [compare(runs[0], run) for run in runs[1:] if comparable(runs[0], run)]
    write_text(path, markdown(runs, comparisons))
