"""The model server's Prometheus metrics, each with the variant and the version of the model."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mizzen_api.contract import (
    METRIC_BATCH_SIZE,
    METRIC_IN_FLIGHT,
    METRIC_PREDICTIONS,
    METRIC_REQUEST_SECONDS,
    METRIC_REQUESTS,
    METRICS,
)

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class ServerMetrics:
    """One registry for each server, so that two of them can live in one process."""

    def __init__(self, variant: str, model_version: str) -> None:
        self.registry = CollectorRegistry()
        own = ("variant", "model_version")
        values = (variant, model_version)
        self._own = values
        self._requests = Counter(METRIC_REQUESTS, METRICS[METRIC_REQUESTS], (*own, "code"), registry=self.registry)
        self._predictions = Counter(
            METRIC_PREDICTIONS, METRICS[METRIC_PREDICTIONS], (*own, "predicted"), registry=self.registry
        )
        self.seconds = Histogram(
            METRIC_REQUEST_SECONDS, METRICS[METRIC_REQUEST_SECONDS], own, registry=self.registry, buckets=_SECONDS
        ).labels(*values)
        self.in_flight = Gauge(METRIC_IN_FLIGHT, METRICS[METRIC_IN_FLIGHT], own, registry=self.registry).labels(*values)
        self.batch_size = Histogram(
            METRIC_BATCH_SIZE, METRICS[METRIC_BATCH_SIZE], own, registry=self.registry, buckets=_ROWS
        ).labels(*values)
        self._requests.labels(*values, "200")  # a counter that is missing until the first request reads as no data

    def answered(self, code: int, seconds: float) -> None:
        self._requests.labels(*self._own, str(code)).inc()
        self.seconds.observe(seconds)

    def predicted(self, label: str) -> None:
        self._predictions.labels(*self._own, label).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
