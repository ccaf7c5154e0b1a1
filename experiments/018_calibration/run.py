"""What an old threshold does with a new model: reused, mapped without labels, matched with them.

    python experiments/018_calibration/run.py --sets sets/quora sets/mrpc sets/stsb --work DIR
        [--old MODEL] [--new MODEL] [--thresholds 0.5 0.6 0.7 0.8] [--seeds 0 1 2] [--pairs 20000]

Sets are task folders of labelled pairs (docs/evaluate.md): pair_classification, sts, reranking.
Half of the pairs calibrate, the others measure; no text is in both. Writes results.json and, of the
first seed, a picture a set (reports/). Scores are kept in --work: a stopped run goes on from them.
table.py puts the results into the README, plot.py draws them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from labelled_pairs import PairSet, calibration_half, read_set

from nvembed_jax.calibration.artefact import Calibration, ScoredModel, load_calibration
from nvembed_jax.calibration.calibrate import calibrate_scores
from nvembed_jax.calibration.curves import Measures, ScoreCurve
from nvembed_jax.calibration.pairs import QUERY_PASSAGE, UNLABELLED, PairScores, score_pairs
from nvembed_jax.calibration.report import write_report
from nvembed_jax.calibration.thresholds import PRESETS, CalibrationOptions
from nvembed_jax.data.writers import write_text
from nvembed_jax.interop import is_remote, open_model

HERE = Path(__file__).parent
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tokenizers", "scikit-learn")
MEASURES = ("share", "precision", "recall", "false_positive_rate")
LABELLED = ("precision", "recall", "false_positive_rate")


class Scored(NamedTuple):
    """A set with its cosines by both models, [N]."""

    pairs: PairSet
    old: np.ndarray
    new: np.ndarray


class Target(NamedTuple):
    """What takes the old model's place: "old" or "new" itself, its cosines times `scale`."""

    name: str
    model: str
    scale: float

    def scores(self, scored: Scored) -> np.ndarray:
        """The target's scores of a set."""
        return self.scale * (scored.old if self.model == "old" else scored.new)


TARGETS = (
    Target("new", "new", 1.0),
    Target("new x 100", "new", 100.0),
    Target("old x 100", "old", 100.0),  # a control: only the scale changes
)


def score_sets(sets: list[PairSet], name: str | None, args: argparse.Namespace) -> Any:
    """(facts of the model, its cosines of every set); those that are kept are not made again."""
    model = open_model(name, **({} if is_remote(name) else {"max_length": args.max_length}))
    takes_tasks = model.config.text.query_template is not None
    found = []
    for pairs in sets:
        kept = args.work / f"{pairs.name}-{model.fingerprint}-{pairs.fingerprint[:16]}.npy"
        if not kept.exists():
            task = pairs.instruction if takes_tasks else None
            scores = score_pairs(pairs.file, model, len(pairs.labels), task=task)
            partial = kept.with_suffix(".part.npy")
            np.save(partial, scores)
            partial.replace(kept)
        found.append(np.load(kept))
    # A folder's name says enough, wherever it stands.
    shown = Path(name).name if name and Path(name).is_dir() else name or model.config.name
    facts = {"name": shown, "fingerprint": model.fingerprint}
    return facts, found


def calibrated(
    scored: Scored, rows: np.ndarray, target: Target, models: dict, options: Any, path: Path | None
) -> tuple[Calibration, Calibration]:
    """Artefacts made without and with the labels of `rows`; with a path also by way of a file."""
    old, new = scored.old[rows], target.scores(scored)[rows]
    made = []
    for labels in (np.full(len(old), UNLABELLED), scored.pairs.labels[rows]):
        kinds = {scored.pairs.kind: PairScores(old=old, new=new, labels=labels)}
        ends = (
            ScoredModel(**models["old"]),
            ScoredModel(**models[target.model], scale=target.scale),
        )
        made.append(calibrate_scores(kinds, *ends, options=options))
    if path is not None:
        made[1].save(path)
        made[1] = load_calibration(path, models[target.model]["fingerprint"])
    return made[0], made[1]


def measure(
    rows: list[dict[str, Any]], scores: np.ndarray, labels: np.ndarray, samples: int, seed: int
) -> None:
    """Adds to every row what its threshold does: [value, low, high] by name of the measure, or None
    where a threshold or a measure does not exist.

    Args:
        scores, labels: of pairs that no threshold was chosen on [N]. seed: the same bootstrap
            samples are drawn for the same seed and number of pairs.
    """
    curve, size, rng = ScoreCurve(scores, labels), len(scores), np.random.default_rng(seed)
    real = [row for row in rows if row["threshold"][0] is not None]
    drawn: list[list[Measures]] = [[] for _ in real]
    for _ in range(samples):
        counts = curve.counts(np.bincount(rng.integers(size, size=size), minlength=size))
        for row, found in zip(real, drawn, strict=True):
            found.append(curve.at(row["threshold"][0], counts))
    whole = curve.counts()
    for row in rows:
        row.update(dict.fromkeys(MEASURES))
    for row, found in zip(real, drawn, strict=True):
        value = curve.at(row["threshold"][0], whole)
        row.update({name: _interval(value, found, name) for name in MEASURES})


def _interval(value: Measures, drawn: list[Measures], name: str) -> list[float] | None:
    if not np.isfinite(getattr(value, name)):
        return None
    finite = [number for m in drawn if np.isfinite(number := getattr(m, name))]
    return [getattr(value, name), *np.quantile(finite, [0.025, 0.975]).tolist()]


def measure_target(
    scored: Scored, target: Target, seed: int, models: dict, args: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Rows of results for one set, target and split."""
    part = calibration_half(scored.pairs, seed)
    thresholds = in_range(args.thresholds, scored.old[part])
    options = CalibrationOptions(thresholds=thresholds, samples=args.samples, seed=seed)
    name = f"{scored.pairs.name}-{target.name.replace(' ', '')}-{seed}"
    path = args.work / f"{name}.calibration.json"
    unlabelled, labelled = calibrated(scored, part, target, models, options, path)
    held_out, kind = ~part, scored.pairs.kind
    facts = {"set": scored.pairs.name, "target": target.name, "seed": seed}
    before, after, presets = [], [], []
    for number, old in enumerate(thresholds):
        common = {**facts, "old_threshold": old}
        before.append({**common, "method": "old", "threshold": [old] * 3})
        for method, chosen in methods(unlabelled, labelled, target, kind, number, old):
            after.append({**common, "method": method, "threshold": chosen})
    for preset in PRESETS:
        found = labelled.kind(kind).presets[preset]
        score = [found.score.value, found.score.low, found.score.high]
        presets.append({**facts, "preset": preset, "basis": found.basis, "threshold": score})
    labels = scored.pairs.labels[held_out]
    measure(before, scored.old[held_out], labels, args.samples, seed)
    measure([*after, *presets], target.scores(scored)[held_out], labels, args.samples, seed)
    if seed == args.seeds[0] and target is TARGETS[0]:
        scores = PairScores(old=scored.old[part], new=scored.new[part],
                            labels=scored.pairs.labels[part])  # fmt: skip
        args.reports.mkdir(exist_ok=True)
        write_report(args.reports / f"{scored.pairs.name}.png", labelled, {kind: scores})
    return {"thresholds": [*before, *after], "presets": presets}


def methods(
    unlabelled: Calibration,
    labelled: Calibration,
    target: Target,
    kind: str,
    number: int,
    old: float,
) -> Iterator[tuple[str, list[float | None]]]:
    """(name, threshold with its interval, on the target's scale) of every way to choose one."""
    yield "reused", [old] * 3
    if target.scale != 1:
        yield "rescaled", [old * target.scale] * 3
    mapped = unlabelled.kind(kind).migrations[number].new["share"].score
    # What `apply` and `matches` use must be what the report says.
    used = unlabelled.cosine_threshold(old, kind) * target.scale
    assert mapped.value is not None
    assert np.isclose(mapped.value, used)
    yield "quantile", [used, mapped.low, mapped.high]
    for name in LABELLED:
        score = labelled.kind(kind).migrations[number].new[name].score
        yield name, [score.value, score.low, score.high]


def in_range(thresholds: list[float], scores: np.ndarray) -> tuple[float, ...]:
    """The thresholds that lie among the old model's scores."""
    return tuple(t for t in thresholds if scores.min() <= t <= scores.max())


def transfer(
    scored: list[Scored], seed: int, models: dict, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Thresholds mapped on one set, used on another of the same kind."""
    options = CalibrationOptions(samples=1, seed=seed)
    for source in scored:
        part = calibration_half(source.pairs, seed)
        mapping = calibrated(source, part, TARGETS[0], models, options, None)[0]
        for other in scored:
            if other.pairs.kind != source.pairs.kind:
                continue
            rows = ~calibration_half(other.pairs, seed)
            for old in in_range(args.thresholds, source.old[part]):
                new = mapping.cosine_threshold(old, source.pairs.kind)
                yield {"from": source.pairs.name, "set": other.pairs.name, "seed": seed,
                       "old_threshold": old, "old_share": float(np.mean(other.old[rows] >= old)),
                       "share": float(np.mean(other.new[rows] >= new))}  # fmt: skip


def by_size(
    scored: Scored, seed: int, models: dict, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The mapped threshold and its interval from so many unlabelled pairs."""
    part = np.flatnonzero(calibration_half(scored.pairs, seed))
    held_out = ~calibration_half(scored.pairs, seed)
    order = np.random.default_rng(seed).permutation(part)
    for size in [n for n in args.sizes if n < len(part)] + [len(part)]:
        chosen = order[:size]
        if not in_range([args.main], scored.old[chosen]):
            continue
        options = CalibrationOptions(thresholds=(args.main,), samples=args.samples, seed=seed)
        made = calibrated(scored, chosen, TARGETS[0], models, options, None)[0]
        score = made.kind(scored.pairs.kind).migrations[0].new["share"].score
        assert score.value is not None
        yield {"set": scored.pairs.name, "seed": seed, "pairs": size,
               "whole": size == len(part), "threshold": [score.value, score.low, score.high],
               "old_share": float(np.mean(scored.old[held_out] >= args.main)),
               "share": float(np.mean(scored.new[held_out] >= score.value))}  # fmt: skip


def as_json(results: dict[str, Any]) -> str:
    """JSON with a row of results a line, and six digits."""
    parts = []
    for key, value in results.items():
        text = json.dumps(_rounded(value), allow_nan=False)
        if isinstance(value, list):
            rows = (json.dumps(_rounded(row), allow_nan=False) for row in value)
            text = "[\n  " + ",\n  ".join(rows) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="task folders")
    parser.add_argument("--work", type=Path, required=True, help="keeps scores and artefacts")
    parser.add_argument("--old", default=MINILM)
    parser.add_argument("--new", help="default: the bundled model")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8])
    parser.add_argument("--main", type=float, default=0.7, help="the one that is shown in full")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the splits")
    parser.add_argument("--samples", type=int, default=1000, help="of every bootstrap")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 3000])
    parser.add_argument("--pairs", type=int, default=20000, help="of a set, at most")
    parser.add_argument("--match", type=float, default=0.8, help="of an sts set's range of scores")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--reports", type=Path, default=HERE / "reports")
    args = parser.parse_args()
    if args.main not in args.thresholds:
        parser.error(f"--main {args.main} must be one of --thresholds")
    return args


def main() -> None:
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    sets = [read_set(s, args.work, args.match, args.pairs, seed=0) for s in args.sets]
    models, cosines = {}, {}
    for side, name in (("old", args.old), ("new", args.new)):
        models[side], cosines[side] = score_sets(sets, name, args)
    if models["old"]["fingerprint"] == models["new"]["fingerprint"]:
        raise SystemExit(f"old and new are one model, {models['old']['name']}: name another --new")
    scored = [Scored(*row) for row in zip(sets, cosines["old"], cosines["new"], strict=True)]
    results: dict[str, Any] = {
        "experiment": "018_calibration",
        "date": datetime.date.today().isoformat(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "models": models,
        "settings": {
            name: getattr(args, name)
            for name in ("thresholds", "main", "seeds", "samples", "pairs", "match", "max_length")
        },
        "sets": {
            s.name: {
                "kind": s.kind,
                "instruction": s.instruction if s.kind == QUERY_PASSAGE else None,
                "pairs": len(s.labels),
                "matches": int(s.labels.sum()),
                "largest_group": int(np.bincount(s.groups).max()),
                "fingerprint": s.fingerprint,
            }
            for s in sets
        },
        "thresholds": [], "presets": [], "transfer": [], "sizes": [],
    }  # fmt: skip
    for seed in args.seeds:
        for one in scored:
            for target in TARGETS:
                for key, rows in measure_target(one, target, seed, models, args).items():
                    results[key] += rows
            results["sizes"] += by_size(one, seed, models, args)
            print(f"{one.pairs.name}, seed {seed}: done", flush=True)
        results["transfer"] += transfer(scored, seed, models, args)
    write_text(args.out, as_json(results))


if __name__ == "__main__":
    main()
