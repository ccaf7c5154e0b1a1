"""What POST /similarity says beside the scores where the model has a calibration: which reach the
threshold, and how likely each is a match.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import orjson
from jaxtyping import Float

from nvembed_jax.calibration.applies import check_applies
from nvembed_jax.calibration.artefact import Calibration
from nvembed_jax.calibration.pairs import PASSAGE_PASSAGE, QUERY_PASSAGE
from nvembed_jax.serve.errors import bad_request
from nvembed_jax.serve.models import ServedModel
from nvembed_jax.serve.service import EmbeddingService, TextsRequest

_KINDS = {("query", "passage"): QUERY_PASSAGE, ("passage", "passage"): PASSAGE_PASSAGE}


class Verdict(NamedTuple):
    """How scores are judged; `threshold` is the preset's, a cosine."""

    calibration: Calibration
    kind: str
    preset: str
    threshold: float

    def fields(self, scores: Float[np.ndarray, "N M"]) -> bytes:
        """Fields of a response, each after a comma."""
        told = orjson.dumps({"preset": self.preset, "threshold": self.threshold})[1:-1]
        parts = [told, b'"labels":' + _numbers(scores >= self.threshold)]
        if self.calibration.kind(self.kind).probability:
            found = self.calibration.apply(scores, kind=self.kind, to="isotonic")
            parts.append(b'"probabilities":' + _numbers(found.astype(np.float32)))
        return b"".join(b"," + part for part in parts)


class Verdicts:
    """The calibrations of a server's settings, by the models that they were made for.

    Raises:
        ValueError: a calibration is for none of the models, or two are for one.
    """

    def __init__(self, service: EmbeddingService):
        self._service = service
        self._calibrations: dict[str, Calibration] = {}
        for calibration in service.settings.calibrations:
            models = [m for m in service.names.models if _is_for(calibration, m)]
            if not models:
                served = ", ".join(
                    f"{m.id} ({m.embedder.fingerprint})" for m in service.names.models
                )
                raise ValueError(
                    f"a calibration is for {calibration.new.name} ({calibration.new.fingerprint}), "
                    f"which is not served; served: {served}: calibrate with the same options"
                )
            for model in models:
                if model.id in self._calibrations:
                    raise ValueError(f"two calibrations are for the model {model.id}; give one")
                self._calibrations[model.id] = calibration

    def find(
        self, queries: TextsRequest, passages: TextsRequest, preset: str | None
    ) -> Verdict | None:
        """How the scores of two sides are judged; None: they are not.

        Args:
            preset: None: the server's, which is left out where it does not apply.

        Raises:
            ServeError: 404: no such model; 400: a preset was asked for that does not apply.
        """
        model, by_name = self._service.names.find(queries.model)
        try:
            if model.id not in self._calibrations:
                raise ValueError("the server has no calibration of this model")
            kinds = tuple(by_name or str(side.input_type) for side in (queries, passages))
            return self._verdict(model, kinds, queries, preset)
        except ValueError as error:
            if preset is None:
                return None
            raise bad_request(f"no preset applies: {error}", param="preset") from None

    def _verdict(
        self, model: ServedModel, kinds: tuple[str, ...], queries: TextsRequest, preset: str | None
    ) -> Verdict:
        calibration, settings = self._calibrations[model.id], self._service.settings
        kind = _KINDS.get((kinds[0], kinds[1]))
        if kind is None:
            raise ValueError("calibrated are scores of passages with queries or passages")
        if queries.dimensions not in (None, model.embedder.embed_dim):
            raise ValueError("calibrated are scores of all dimensions")
        task = (queries.task or settings.task) if kind == QUERY_PASSAGE else None
        check_applies(calibration, kind, model.embedder.fingerprint, task)
        name = preset or settings.preset
        return Verdict(calibration, kind, name, calibration.cosine_threshold(name, kind))


def _is_for(calibration: Calibration, model: ServedModel) -> bool:
    return calibration.new.fingerprint == model.embedder.fingerprint


def _numbers(values: np.ndarray) -> bytes:
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
