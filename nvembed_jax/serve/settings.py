"""What a server is told when it starts, as checked values."""

from __future__ import annotations

from dataclasses import dataclass, field

from nvembed_jax.calibration.artefact import Calibration
from nvembed_jax.calibration.thresholds import PRESETS

INPUT_TYPES = ("query", "passage")
QUEUE_BATCHES = 32  # of the default token bound of the queue


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and defaults of a server; all models share them.

    Attributes:
        default_input_type: of requests that name none; None: they are refused where it matters.
        task: task description of queries whose request has none; None: the model's own.
        api_keys: one of them must be sent with every request but those for health; none: no key
            is asked for.
        calibrations: thresholds and probabilities for /similarity; each is for one of the models.
        preset: the threshold of them that is applied where a request names none.
        allow_dimensions: shorten embeddings of models that were not trained for it, too.
        batch_tokens: tokens of a batch, padding included; None: by device.
        max_queue_tokens: waiting ones, above which requests are turned away; None: 32 batches.
        max_queue_requests: accepted and not answered yet.
        max_inputs: texts of a request.
        max_body_bytes, body_timeout_s: of the body of a request.
        warmup: compile all shapes before the server is ready.
        warmup_length: texts longer than this are compiled for when the first one comes.
        workers: threads for tokenisation and large JSON.
        drain_delay_s: between a SIGTERM, from which on the server says that it is not ready, and
            the end of listening.
        drain_timeout_s: for the requests that are then still open.
    """

    default_input_type: str | None = None
    task: str | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    calibrations: tuple[Calibration, ...] = field(default=(), repr=False)
    preset: str = "balanced"
    allow_dimensions: bool = False
    batch_tokens: int | None = None
    max_queue_tokens: int | None = None
    max_queue_requests: int = 1024
    max_inputs: int = 2048
    max_body_bytes: int = 16 * 2**20
    body_timeout_s: float | int = 60.0
    warmup: bool = True
    warmup_length: int = 512
    workers: int = 4
    drain_delay_s: float | int = 1.0
    drain_timeout_s: float | int = 30.0

    def __post_init__(self) -> None:
        if self.default_input_type not in (None, *INPUT_TYPES):
            raise ValueError(
                f"default_input_type must be one of {', '.join(INPUT_TYPES)}; "
                f"got {self.default_input_type!r}"
            )
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {self.preset!r}")
        for name in ("batch_tokens", "max_queue_tokens", "max_queue_requests", "max_inputs",
                     "max_body_bytes", "warmup_length", "workers"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        for name in ("body_timeout_s", "drain_delay_s", "drain_timeout_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        if not all(self.api_keys):
            raise ValueError("an API key is empty")
