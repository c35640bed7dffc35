"""PromQL as named functions, apart from the panels that show it. Every metric's name comes from the contract."""

from __future__ import annotations

from mizzen_api import contract

WINDOW = "$__rate_interval"
# A PodMonitor turns the pod label mizzen.dev/name into mizzen_dev_name.
HERE = 'namespace=~"$namespace", mizzen_dev_name=~"$name"'


def requests_by_code() -> str:
    return _rate(contract.METRIC_REQUESTS, "code")


def requests_by_variant() -> str:
    return _rate(contract.METRIC_REQUESTS, "variant")


def error_ratio() -> str:
    failed = f'sum(rate({contract.METRIC_REQUESTS}{{{HERE}, code=~"5.."}}[{WINDOW}])) or vector(0)'
    return f"({failed}) / sum(rate({contract.METRIC_REQUESTS}{{{HERE}}}[{WINDOW}]))"


def latency(quantile: float, *by: str) -> str:
    return _quantile(quantile, contract.METRIC_REQUEST_SECONDS, HERE, *by)


def in_flight() -> str:
    return f"sum by (variant) ({contract.METRIC_IN_FLIGHT}{{{HERE}}})"


def batch_rows() -> str:
    metric = contract.METRIC_BATCH_SIZE
    return f"{_rate(f'{metric}_sum', 'variant')} / {_rate(f'{metric}_count', 'variant')}"


def predictions_by_class() -> str:
    each = _rate(contract.METRIC_PREDICTIONS, "variant", "predicted")
    return f"{each} / ignoring (predicted) group_left {_rate(contract.METRIC_PREDICTIONS, 'variant')}"


def training_progress() -> str:
    return _gauge(contract.METRIC_TRAINING_PROGRESS)


def training_loss() -> str:
    return _gauge(contract.METRIC_TRAINING_LOSS)


def training_workers() -> str:
    return _gauge(contract.METRIC_TRAINING_WORKERS)


def training_rate() -> str:
    return f"sum by (mizzen_dev_name) (rate({contract.METRIC_TRAINING_SAMPLES}{{{HERE}}}[{WINDOW}]))"


def training_bytes() -> str:
    return f"sum by (mizzen_dev_name) (rate({contract.METRIC_TRAINING_BYTES}{{{HERE}}}[{WINDOW}]))"


def training_restarts() -> str:
    return _gauge(contract.METRIC_TRAINING_RESTARTS)


def training_lost_steps() -> str:
    return _gauge(contract.METRIC_TRAINING_LOST_STEPS)


def training_recovery() -> str:
    return _gauge(contract.METRIC_TRAINING_RECOVERY_SECONDS)


def training_checkpoint_age() -> str:
    return _gauge(contract.METRIC_TRAINING_CHECKPOINT_AGE)


def trials() -> str:
    return f"max by (mizzen_dev_name, state) ({contract.METRIC_SEARCH_TRIALS}{{{HERE}}})"


def dataset_rows() -> str:
    return _gauge(contract.METRIC_DATASET_ROWS)


def reconcile_latency(quantile: float) -> str:
    return _quantile(quantile, contract.METRIC_RECONCILE_SECONDS, "", "kind")


def reconcile_errors() -> str:
    return f"sum by (kind) (rate({contract.METRIC_RECONCILE_ERRORS}[{WINDOW}]))"


def _rate(metric: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) (rate({metric}{{{HERE}}}[{WINDOW}]))"


def _quantile(quantile: float, metric: str, selector: str, *by: str) -> str:
    buckets = f"rate({metric}_bucket{{{selector}}}[{WINDOW}])"
    return f"histogram_quantile({quantile:g}, sum by ({', '.join(('le', *by))}) ({buckets}))"


def _gauge(metric: str) -> str:
    return f"max by (mizzen_dev_name) ({metric}{{{HERE}}})"
