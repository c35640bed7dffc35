"""The operator's own Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from mizzen_api.contract import METRIC_RECONCILE_ERRORS, METRIC_RECONCILE_SECONDS, METRICS


class Metrics:
    """Made once for each process, and freely in tests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            METRIC_RECONCILE_SECONDS, METRICS[METRIC_RECONCILE_SECONDS], ["kind"], registry=self.registry
        )
        self.errors = Counter(
            METRIC_RECONCILE_ERRORS, METRICS[METRIC_RECONCILE_ERRORS], ["kind"], registry=self.registry
        )
