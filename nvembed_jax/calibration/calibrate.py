"""`calibrate`: a file of pairs and two models in, a `Calibration` and the scores behind it out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nvembed_jax.calibration.artefact import Calibration, KindCalibration, ScoredModel
from nvembed_jax.calibration.mapping import quantile_map
from nvembed_jax.calibration.pairs import KINDS, PairScores, read_pair_facts, score_pairs
from nvembed_jax.calibration.probability import fit_probability
from nvembed_jax.calibration.thresholds import CalibrationOptions, ThresholdFinder


def calibrate(
    pairs: str | Path,
    old: Callable[[], Any],
    new: Callable[[], Any],
    *,
    options: CalibrationOptions | None = None,
    names: tuple[str, str] = ("", ""),
    scales: tuple[float, float] = (1.0, 1.0),
    task: str | None = None,
    encoding: dict[str, Any] | None = None,
) -> tuple[Calibration, dict[str, PairScores]]:
    """Scores pairs with both models, one after the other, and learns how the scores go together.

    Args:
        pairs: .jsonl or .jsonl.gz (`read_pairs`); labels may be missing, from all or from some.
        old, new: load the models (`Embedder`s, or what has their calls).
        names: of the models, for people; "": their own.
        scales: 1 for cosines, 100 for 100 x cosine, of the old and of the new model.
        task: of the queries. encoding: further options of the models' calls.

    Returns:
        The calibration, and the scores by kind of pairs, which a report draws.

    Raises:
        FileNotFoundError, ValueError: as `read_pairs`; too few pairs; a threshold that is none of
            the old model's. ImportError: scikit-learn is missing.
    """
    for scale in scales:
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"a scale is a positive number, 1 or 100; got {scale}")
    facts = read_pair_facts(pairs)
    models, scores = [], []
    for load, name, scale in zip((old, new), names, scales, strict=True):
        model = load()
        count = len(facts.labels)
        scores.append(scale * score_pairs(pairs, model, count, task=task, encoding=encoding))
        models.append(
            ScoredModel(
                name=name or model.config.name, fingerprint=model.fingerprint, scale=float(scale)
            )
        )
        del model  # before the next is loaded
    by_kind = {}
    for number, kind in enumerate(KINDS):
        rows = facts.kinds == number
        if rows.any():
            labels = facts.labels[rows].astype(np.int64)
            by_kind[kind] = PairScores(old=scores[0][rows], new=scores[1][rows], labels=labels)
    settings = {"task": task, "encoding": dict(encoding or {})}
    return calibrate_scores(by_kind, *models, options=options, settings=settings), by_kind


def calibrate_scores(
    scores: dict[str, PairScores],
    old: ScoredModel,
    new: ScoredModel,
    *,
    options: CalibrationOptions | None = None,
    settings: dict[str, Any] | None = None,
) -> Calibration:
    """The calibration of pairs that are scored already.

    Args:
        scores: by kind, on the models' declared scales. settings: kept with it (plain types).
    """
    options = options or CalibrationOptions()
    kinds = {}
    for kind, part in scores.items():
        try:
            kinds[kind] = _calibrate_kind(part, (old.scale, new.scale), options)
        except ValueError as error:
            raise ValueError(f"{kind} pairs: {error}") from None
    kept = {
        "precision": options.precision,
        "recall": options.recall,
        "samples": options.samples,
        "level": options.level,
        "seed": options.seed,
        **(settings or {}),
    }
    return Calibration(old=old, new=new, kinds=kinds, settings=kept)


def _calibrate_kind(
    scores: PairScores, scales: tuple[float, float], options: CalibrationOptions
) -> KindCalibration:
    mapping = quantile_map(scores.old, scores.new)
    migrations, presets = ThresholdFinder(scores, mapping, scales, options).find()
    probability, area = {}, {}
    if scores.has_labels:
        part = scores.labelled
        for name, values in (("old", part.old), ("new", part.new)):
            probability[name] = fit_probability(values, part.labels)
            area[name] = _roc_auc(values, part.labels)
    return KindCalibration(
        pairs=len(scores.labels),
        labelled=len(scores.labelled.labels),
        positives=int(np.sum(scores.labels == 1)),
        mapping=mapping,
        migrations=migrations,
        presets=presets,
        probability=probability,
        roc_auc=area,
    )


def _roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))
