"""Thresholds of commands that apply one: a cosine, or one from a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from nvembed_jax.cli import options


class Preset(StrEnum):
    """Thresholds that every calibration with labels has."""

    high_precision = "high-precision"
    balanced = "balanced"
    high_recall = "high-recall"


CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", help="The file of `nvembed calibrate` for this model."),
]
PresetOption = Annotated[
    Preset | None, typer.Option("--preset", help="Which threshold of --calibration.")
]


class LikelyHit(NamedTuple):
    """A search result, and the probability that it is a match."""

    rank: int
    score: float
    id: str
    text: str
    probability: float


class Chosen(NamedTuple):
    """A threshold, where it comes from, and for what kind of pairs.

    `calibration` is None for one that was typed in.
    """

    cosine: float
    source: str
    kind: str
    calibration: Any = None
    path: Path | None = None

    def check(self, model: Any, task: str | None = None) -> None:
        """Raises a ValueError where the calibration is for another model, or another task."""
        from nvembed_jax.calibration.applies import check_applies

        if self.calibration is None:
            return
        try:
            check_applies(self.calibration, self.kind, model.fingerprint, task)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


def choose(
    kind: str,
    threshold: float | None,
    calibration: Path | None,
    preset: Preset | None,
    *,
    default_preset: Preset,
) -> Chosen | None:
    """The threshold that the options ask for, before any model is loaded; None: they ask for none.

    Args:
        kind: of pairs, "query-passage" or "passage-passage".
        threshold: a cosine; with a calibration, a threshold of the old model, on its scale.
    """
    if calibration is None:
        if preset is not None:
            raise options.usage_error("--preset is one of a calibration: give --calibration FILE")
        if threshold is not None and not -1 <= threshold <= 1:
            raise options.usage_error(
                f"--threshold is a cosine, -1 to 1, or with --calibration one of the old model; "
                f"got {threshold:g}"
            )
        return None if threshold is None else Chosen(threshold, "--threshold", kind)
    if threshold is not None and preset is not None:
        raise options.usage_error("--threshold and --preset are two thresholds; give one of them")

    from nvembed_jax.calibration.artefact import load_calibration

    loaded = load_calibration(calibration)
    name = (preset or default_preset).value
    asked = name.replace("-", "_") if threshold is None else threshold
    try:
        cosine = loaded.cosine_threshold(asked, kind)
    except ValueError as error:
        raise ValueError(f"{calibration}: {error}") from None
    told = f"preset {name}" if threshold is None else f"the old model's {threshold:g}"
    return Chosen(cosine, f"{told} of {calibration}", kind, loaded, calibration)


def hits_above(found: Sequence[Sequence[Any]], chosen: Chosen) -> list[list[Any]]:
    """Search results that reach the threshold, of each query; a note tells how many do not.

    Where the calibration had labels they are `LikelyHit`s.
    """
    from nvembed_jax.cli.progress import note

    kept = [[hit for hit in hits if hit.score >= chosen.cosine] for hits in found]
    total, left = (sum(map(len, lists)) for lists in (found, kept))
    if left < total:
        note(
            f"{total - left} of {total} results lie below {chosen.cosine:.4f} ({chosen.source}) "
            f"and are left out"
        )
    if chosen.calibration is None or not chosen.calibration.kind(chosen.kind).probability:
        return kept
    return [_likely(hits, chosen) for hits in kept]


def _likely(hits: Sequence[Any], chosen: Chosen) -> list[Any]:
    import numpy as np

    scores = np.array([hit.score for hit in hits], np.float64)
    found = chosen.calibration.apply(scores, kind=chosen.kind, to="isotonic")
    return [
        LikelyHit(hit.rank, hit.score, hit.id, hit.text, float(p))
        for hit, p in zip(hits, found, strict=True)
    ]
