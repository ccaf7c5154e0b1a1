"""What a server counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

from nvembed_jax.version import __version__

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_TOKENS = (*(2**k for k in range(4, 18)),)
_RATIOS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


disable_created_metrics()  # a second series for each counter, which nobody reads


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        Info("nvembed_build", "The package.", registry=registry).info({"version": __version__})
        self._requests = Counter(
            "nvembed_requests_total", "Requests by path, method and status.",
            ["path", "method", "code"], registry=registry,
        )  # fmt: skip
        self._cancelled = Counter(
            "nvembed_requests_cancelled_total", "Clients that went away.", registry=registry
        )
        seconds = {"buckets": _SECONDS, "registry": registry}
        self._duration = Histogram(
            "nvembed_request_duration_seconds", "From the headers to the end of the response.",
            ["path"], **seconds,
        )  # fmt: skip
        self._tokenization = Histogram(
            "nvembed_request_tokenization_seconds", "Tokenisation of a request.", **seconds
        )
        self._queue = Histogram(
            "nvembed_request_queue_seconds", "From the queue to the first batch.", **seconds
        )
        self._inference = Histogram(
            "nvembed_request_inference_seconds", "From the first batch to the last.", **seconds
        )
        self._inputs = Histogram(
            "nvembed_request_inputs", "Texts of a request.", buckets=_COUNTS, registry=registry
        )
        self._input_tokens = BulkHistogram("nvembed_input_tokens", "Tokens of a text.", _TOKENS)
        registry.register(self._input_tokens)
        self._batches(registry)

    def _batches(self, registry: CollectorRegistry) -> None:
        self._batch_texts = Histogram(
            "nvembed_batch_texts", "Texts of a batch.", buckets=_COUNTS, registry=registry
        )
        self._batch_tokens = Histogram(
            "nvembed_batch_tokens", "Tokens of a batch, without padding.",
            buckets=_TOKENS, registry=registry,
        )  # fmt: skip
        self._batch_padding = Histogram(
            "nvembed_batch_padding_ratio", "Share of a batch that is padding.",
            buckets=_RATIOS, registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "nvembed_tokens_total", "Tokens run, without padding.", ["model"], registry=registry
        )
        self._padding = Counter(
            "nvembed_padding_tokens_total", "Padding run.", ["model"], registry=registry
        )

    def gauge(self, name: str, help: str, value: Callable[[], float | int]) -> None:
        """Adds a gauge that is read when it is asked for."""
        self.registry.register(_Gauge(name, help, value))

    def request(self, path: str, method: str, code: int | str, seconds: float) -> None:
        """One request was answered; 499, and CANCELLED of gRPC: its client had gone."""
        self._requests.labels(path, method, str(code)).inc()
        self._duration.labels(path).observe(seconds)
        if code in (499, "CANCELLED"):
            self._cancelled.inc()

    def embedded(self, inputs: int, tokenization: float, queue: float, inference: float) -> None:
        """The texts of one request went through the model; times in seconds."""
        self._inputs.observe(inputs)
        self._tokenization.observe(tokenization)
        self._queue.observe(queue)
        self._inference.observe(inference)

    def batch(self, model: str, lengths: Sequence[int], padded: int) -> None:
        """One batch was dispatched; `padded`: its tokens, padding included."""
        tokens = sum(lengths)
        self._input_tokens.observe(lengths)
        self._batch_texts.observe(len(lengths))
        self._batch_tokens.observe(tokens)
        self._batch_padding.observe(1 - tokens / padded)
        self._tokens.labels(model).inc(tokens)
        self._padding.labels(model).inc(padded - tokens)

    def text(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self.registry)


class BulkHistogram:
    """A histogram that takes many values in one call."""

    def __init__(self, name: str, help: str, edges: Sequence[int]):
        self._name, self._help, self._edges = name, help, np.asarray(edges)
        self._counts = np.zeros(len(edges) + 1, np.int64)
        self._sum = 0

    def observe(self, values: Sequence[int]) -> None:
        """Adds values."""
        at = np.searchsorted(self._edges, values, side="left")
        self._counts += np.bincount(at, minlength=len(self._counts))
        self._sum += sum(values)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As Prometheus' registry asks."""
        below = np.cumsum(self._counts).tolist()
        names = [*(str(float(edge)) for edge in self._edges), "+Inf"]
        buckets = list(zip(names, below, strict=True))
        yield HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=self._sum)


class _Gauge:
    def __init__(self, name: str, help: str, value: Callable[[], float | int]):
        self._name, self._help, self._value = name, help, value

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(self._name, self._help, value=self._value())
