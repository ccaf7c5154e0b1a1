"""Whether scores are of the kind that a calibration was made from."""

from __future__ import annotations

from nvembed_jax.calibration.artefact import Calibration
from nvembed_jax.calibration.pairs import QUERY_PASSAGE

_NOT_SCORES = ("batch_tokens", "show_progress_bar")  # options that change no embedding


def check_applies(
    calibration: Calibration, kind: str, fingerprint: str, task: str | None = None
) -> None:
    """Raises a ValueError where scores lie elsewhere than those that were calibrated.

    Args:
        kind: of the pairs that are scored. fingerprint: of the model that scores them.
        task: of the queries; None: the model's own.
    """
    calibration.check(fingerprint)
    calibration.kind(kind)
    made = calibration.settings
    if kind == QUERY_PASSAGE and made.get("task") != task:
        raise ValueError(
            f"the calibration was made with {_told(made.get('task'))}, and these queries have "
            f"another, so that their scores lie elsewhere: use that task, or calibrate with this"
        )
    encoding = {k: v for k, v in (made.get("encoding") or {}).items() if k not in _NOT_SCORES}
    if encoding:
        raise ValueError(
            f"the calibration was made with the options {encoding}, which are not set here: "
            f"calibrate without them"
        )


def _told(task: str | None) -> str:
    return "the model's own task" if task is None else f"the task {task!r}"
