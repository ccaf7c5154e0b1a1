"""A calibration to look at: ROC curves, histograms of scores, old and new thresholds side by side.

One picture (.png, .svg or .pdf), or a page of HTML that holds it with tables of all numbers.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.calibration.artefact import Calibration, KindCalibration
from nvembed_jax.calibration.curves import ScoreCurve
from nvembed_jax.calibration.pairs import PairScores
from nvembed_jax.calibration.thresholds import Estimate, Threshold
from nvembed_jax.data.writers import PendingFile

SUFFIXES = (".html", ".pdf", ".png", ".svg")
_BINS = 40
_TITLE = 40  # characters
_MEASURES = ("share", "precision", "recall", "false_positive_rate")
_COLOURS = {"high_precision": "#b2182b", "balanced": "#333333", "high_recall": "#2166ac"}
_BASES = {
    "share": "#333333",
    "precision": "#b2182b",
    "recall": "#2166ac",
    "false_positive_rate": "#7b3294",
    "reused": "#e08214",
}
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;"
    "border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}"
    "svg{max-width:100%;height:auto}"
)


def write_report(path: str | Path, calibration: Calibration, scores: dict[str, PairScores]) -> None:
    """Writes a report.

    Args:
        path: .html, .png, .svg or .pdf. scores: by kind, those that the calibration was made from.

    Raises:
        ValueError: another suffix. ImportError: matplotlib is missing (the extra "eval").
    """
    path = Path(path)
    check_report(path)
    suffix = path.suffix.lower()
    drawn = _drawing(calibration, scores, "svg" if suffix == ".html" else suffix[1:])
    if suffix == ".html":
        picture = drawn.decode()
        drawn = _page(calibration, picture[picture.index("<svg") :]).encode()
    pending = PendingFile(path)
    try:
        pending.file.write(drawn)
        pending.commit()
    finally:
        pending.discard()


def check_report(path: Path) -> None:
    """Raises where a report could not be written to `path`, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: cannot report to this suffix; expected {', '.join(SUFFIXES)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImportError(
            f'{path}: reports need matplotlib: pip install "nvembed_jax[eval]"'
        ) from None


def summary_rows(part: KindCalibration) -> Iterator[tuple[str, Threshold]]:
    """(what it is, threshold) of all thresholds of a kind of pairs: old ones, new ones, presets."""
    for migration in part.migrations:
        yield f"old {_number(migration.old.score.value)}", migration.old
        for threshold in migration.new.values():
            yield f"new, {threshold.basis}", threshold
    for name, threshold in part.presets.items():
        yield f"{name.replace('_', ' ')}: {threshold.basis}", threshold


def shown(estimate: Estimate | None, percent: bool = False) -> str:
    """A number with its interval, "" for what is not defined."""
    if estimate is None or estimate.value is None:
        return ""
    if percent:
        value, low, high = (f"{100 * (part or 0.0):.1f}" for part in _span(estimate))
        return f"{value} % ({low} to {high})"
    value, low, high = map(_number, _span(estimate))
    return f"{value} ({low} to {high})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _drawing(calibration: Calibration, scores: dict[str, PairScores], format: str) -> bytes:
    from matplotlib.figure import Figure

    kinds = list(calibration.kinds)
    figure = Figure(figsize=(16, 3.8 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), 4, squeeze=False)
    for row, kind in zip(grid, kinds, strict=True):
        part = calibration.kinds[kind]
        _draw_histogram(row[0], scores[kind].old, scores[kind].labels)
        _draw_histogram(row[1], scores[kind].new, scores[kind].labels)
        for migration in part.migrations:
            row[0].axvline(migration.old.score.value, color="#333333", linestyle="--")
            row[1].axvline(migration.new["share"].score.value, color="#333333", linestyle="--")
        for name, preset in part.presets.items():
            if preset.score.value is not None:
                label = name.replace("_", " ")
                row[1].axvline(preset.score.value, color=_COLOURS[name], label=label)
        row[0].set(title=f"{kind} pairs\n{_short(calibration.old.name)}", xlabel="old score")
        row[1].set(title=f"{kind} pairs\n{_short(calibration.new.name)}", xlabel="new score")
        row[1].legend(fontsize="small")
        _draw_roc(row[2], scores[kind], part)
        _draw_mapping(row[3], part)
    file = io.BytesIO()
    figure.savefig(file, format=format, metadata={"Date": None} if format == "svg" else None)
    return file.getvalue()


def _short(name: str) -> str:
    """The last part of a model's name or path, which must fit above one of four panels."""
    last = name.rstrip("/").rpartition("/")[2]
    return last if len(last) <= _TITLE else f"{last[: _TITLE - 1]}…"


def _draw_histogram(axes: Any, values: np.ndarray, labels: np.ndarray) -> None:
    edges = np.histogram_bin_edges(values, _BINS)
    groups = {"match": labels == 1, "no match": labels == 0, "without label": labels < 0}
    for name, rows in groups.items():
        if rows.any():
            axes.hist(values[rows], edges, density=True, alpha=0.5, label=name)
    axes.set_ylabel("density")
    axes.legend(fontsize="small")


def _draw_roc(axes: Any, scores: PairScores, part: KindCalibration) -> None:
    axes.set(title="ROC", xlabel="false-positive rate", ylabel="recall")
    if not scores.has_labels:
        axes.text(0.5, 0.5, "no labels", ha="center", va="center")
        return
    known = scores.labelled
    for name, values in (("old", known.old), ("new", known.new)):
        counts = ScoreCurve(values, known.labels).counts()
        recall = np.append(0, counts.hits) / counts.positives
        false = np.append(0, counts.flagged - counts.hits) / (counts.total - counts.positives)
        axes.plot(false, recall, label=f"{name}, area {part.roc_auc[name]:.3f}")
    for name, preset in part.presets.items():
        point = [preset.measures[key].value for key in ("false_positive_rate", "recall")]
        if None not in point:
            axes.plot(*point, "o", color=_COLOURS[name], label=name.replace("_", " "))
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    axes.legend(fontsize="small")


def _span(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.value, estimate.low, estimate.high


def _draw_mapping(axes: Any, part: KindCalibration) -> None:
    axes.plot(part.mapping.old, part.mapping.new, color="#333333", linewidth=1)
    step = 0.012 * float(np.ptp(part.mapping.old))  # bars beside each other, not on one another
    for number, (name, colour) in enumerate(_BASES.items()):
        rows = [
            (migration.old.score.value, *_span(migration.new[name].score))
            for migration in part.migrations
            if name in migration.new and migration.new[name].score.value is not None
        ]
        if not rows:
            continue
        old, value, low, high = np.array(rows, np.float64).T
        error = np.maximum(np.stack([value - low, high - value]), 0)
        places, label = old + (number - 2) * step, name.replace("_", " ")
        axes.errorbar(places, value, error, fmt="o", capsize=3, color=colour, label=label)
    axes.set(title="scores of equal rank", xlabel="old score", ylabel="new score")
    if part.migrations:
        axes.legend(fontsize="small")


def _page(calibration: Calibration, picture: str) -> str:
    old, new = calibration.old, calibration.new
    title = html.escape(f"Calibration: {old.name} to {new.name}")
    models = _html_table(
        ["", "model", "fingerprint", "scores"],
        [[n, m.name, m.fingerprint, f"{m.scale:g} x cosine"] for n, m in (("old", old),
                                                                       ("new", new))],
    )  # fmt: skip
    sections = [
        f"<h2>{html.escape(kind)} pairs</h2><p>{part.pairs:,} pairs, {part.labelled:,} with a "
        f"label, {part.positives:,} of them matches.</p>{_thresholds(part)}{_brier(part)}"
        for kind, part in calibration.kinds.items()
    ]
    level = 100 * calibration.settings["level"]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{models}{picture}"
        f"{''.join(sections)}<p>In brackets: {level:g} % bootstrap intervals. Measures are taken "
        f"on the pairs that the thresholds were chosen on.</p></body></html>\n"
    )


def _thresholds(part: KindCalibration) -> str:
    names = [name for name in _MEASURES if part.labelled or name == "share"]
    rows = [
        [what, shown(threshold.score), *(shown(threshold.measures.get(n), True) for n in names)]
        for what, threshold in summary_rows(part)
    ]
    heads = [name.replace("_", " ").replace("share", "share of pairs flagged") for name in names]
    return _html_table(["", "threshold", *heads], rows)


def _brier(part: KindCalibration) -> str:
    rows = [
        [model, method, f"{error:.4f}"]
        for model, curves in part.probability.items()
        for method, error in curves.brier.items()
    ]
    return _html_table(["model", "probabilities", "Brier score, cross-validated"], rows)


def _html_table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [_html_row(header, "th"), *(_html_row(row, "td") for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _html_row(cells: list[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
