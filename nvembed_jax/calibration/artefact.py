"""calibration.json: what was learnt from pairs, to be applied wherever the new model scores.

Numbers stand on the scales that the models' scores were declared to have; `apply` takes cosines.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from nvembed_jax.calibration.mapping import QuantileMap
from nvembed_jax.calibration.pairs import KINDS
from nvembed_jax.calibration.probability import METHODS, ProbabilityCurves
from nvembed_jax.calibration.thresholds import Estimate, Migration, Threshold
from nvembed_jax.data.writers import write_text

FORMAT_VERSION = 1
TARGETS = ("new", "old", *METHODS)


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """A model and the scale of its scores: 1 for cosines, 100 for 100 x cosine."""

    name: str
    fingerprint: str
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class KindCalibration:
    """What was learnt from one kind of pairs.

    Attributes:
        pairs, labelled, positives: how many there were.
        mapping: scores of equal rank. migrations: of the thresholds asked for.
        presets: by name, on the new model's scale. probability, roc_auc: of "old" and "new"; {}
            without labels.
    """

    pairs: int
    labelled: int
    positives: int
    mapping: QuantileMap
    migrations: list[Migration] = field(default_factory=list)
    presets: dict[str, Threshold] = field(default_factory=dict)
    probability: dict[str, ProbabilityCurves] = field(default_factory=dict)
    roc_auc: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From an old model's scores to a new one's.

    Attributes:
        kinds: "query-passage", "passage-passage" or both.
        settings: what it was made with (plain types).
    """

    old: ScoredModel
    new: ScoredModel
    kinds: dict[str, KindCalibration]
    settings: dict[str, Any] = field(default_factory=dict)

    def kind(self, kind: str) -> KindCalibration:
        """What was learnt from pairs of a kind; ValueError where there were none."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        if kind not in self.kinds:
            raise ValueError(
                f"calibrated were {' and '.join(self.kinds)} pairs, not {kind} ones: their scores "
                f"lie elsewhere; calibrate with pairs of that kind"
            )
        return self.kinds[kind]

    def check(self, fingerprint: str) -> None:
        """Raises a ValueError unless `fingerprint` is the new model's."""
        if fingerprint != self.new.fingerprint:
            raise ValueError(
                f"the calibration is for model {self.new.name} ({self.new.fingerprint}), not for "
                f"{fingerprint}: calibrate with this model, loaded with the same options"
            )

    def cosine_threshold(self, threshold: str | float, kind: str) -> float:
        """A threshold for cosines of the new model.

        Args:
            threshold: a preset's name, or a threshold of the old model on its scale.

        Raises:
            ValueError: an unknown preset or one that no threshold meets; an old threshold outside
                of the old model's scores.
        """
        part = self.kind(kind)
        if isinstance(threshold, str):
            return self._preset(part, threshold) / self.new.scale
        low, high = float(part.mapping.old[0]), float(part.mapping.old[-1])
        if not low <= threshold <= high:
            raise ValueError(
                f"the threshold {threshold:g} is none of the old model's: its scores of the pairs "
                f"went from {low:.4g} to {high:.4g}"
            )
        return float(part.mapping.to_new(np.array(threshold, np.float64))) / self.new.scale

    def apply(
        self, cosines: Float[np.ndarray, "*N"], *, kind: str, to: str = "old"
    ) -> Float[np.ndarray, "*N"]:
        """Cosines of the new model as something else.

        Args:
            to: "old": scores as the old model would give, so that its thresholds stay; "new": on
                the scale that was declared; "isotonic" or "platt": probabilities of a match.

        Raises:
            ValueError: no such kind of pairs, or probabilities of pairs that had no labels.
        """
        part = self.kind(kind)
        scores = np.asarray(cosines, np.float64) * self.new.scale
        if to == "new":
            return scores
        if to == "old":
            return part.mapping.to_old(scores)
        if to not in TARGETS:
            raise ValueError(f"to must be one of {', '.join(TARGETS)}; got {to!r}")
        if not part.probability:
            raise ValueError(f"probabilities need labels, which no {kind} pairs had")
        return part.probability["new"].apply(scores, to)

    def matches(
        self, cosines: Float[np.ndarray, "*N"], threshold: str | float, *, kind: str
    ) -> Bool[np.ndarray, "*N"]:
        """Which cosines reach a threshold (see `cosine_threshold`)."""
        return np.asarray(cosines) >= self.cosine_threshold(threshold, kind)

    def save(self, path: str | Path) -> None:
        """Writes calibration.json, whole or not at all."""
        data = {"format_version": FORMAT_VERSION, **asdict(self)}
        for name, part in self.kinds.items():
            data["kinds"][name]["mapping"] = part.mapping._asdict()
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
        write_text(Path(path), text + "\n")

    def _preset(self, part: KindCalibration, name: str) -> float:
        if name not in part.presets:
            if not part.presets:
                raise ValueError("there are no presets: they need labels, or an old threshold")
            near = difflib.get_close_matches(name, part.presets, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(part.presets)}"
            raise ValueError(f"unknown preset {name!r}; {mend}")
        value = part.presets[name].score.value
        if value is None:
            raise ValueError(f"the preset {name} is empty: no threshold has a {name}")
        return value


def load_calibration(path: str | Path, fingerprint: str | None = None) -> Calibration:
    """Reads calibration.json.

    Args:
        fingerprint: of the model whose scores it will be applied to (`Embedder.fingerprint`); None:
            not compared.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no calibration, or one for another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["format_version"]
        if version == FORMAT_VERSION:
            calibration = _read(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is no calibration ({error}); make it anew") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: version {version}; this version reads {FORMAT_VERSION}")
    if fingerprint is not None:
        try:
            calibration.check(fingerprint)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return calibration


def _read(data: Mapping[str, Any]) -> Calibration:
    return Calibration(
        old=ScoredModel(**data["old"]),
        new=ScoredModel(**data["new"]),
        kinds={name: _read_kind(part) for name, part in data["kinds"].items()},
        settings=data["settings"],
    )


def _read_kind(data: Mapping[str, Any]) -> KindCalibration:
    old, new = (np.array(data["mapping"][side], np.float64) for side in ("old", "new"))
    return KindCalibration(
        **{name: int(data[name]) for name in ("pairs", "labelled", "positives")},
        mapping=QuantileMap(old, new),
        migrations=[
            Migration(
                old=_read_threshold(row["old"]),
                new={name: _read_threshold(part) for name, part in row["new"].items()},
            )
            for row in data["migrations"]
        ],
        presets={name: _read_threshold(part) for name, part in data["presets"].items()},
        probability={name: _read_curves(part) for name, part in data["probability"].items()},
        roc_auc=data["roc_auc"],
    )


def _read_threshold(data: Mapping[str, Any]) -> Threshold:
    measures = {name: Estimate(**part) for name, part in data["measures"].items()}
    return Threshold(basis=data["basis"], score=Estimate(**data["score"]), measures=measures)


def _read_curves(data: Mapping[str, Any]) -> ProbabilityCurves:
    arrays = {name: np.array(data[name], np.float64) for name in ("scores", "probabilities")}
    return ProbabilityCurves(**{**data, **arrays})


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
