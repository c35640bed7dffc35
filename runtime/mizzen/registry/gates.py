"""Whether a version may carry the alias: a pure function of its metrics, other versions' and the manifest's gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mizzen_api.trainingjob import Gate

# Last words of metrics that are better when they are lower.
_LOWER = frozenset({"loss", "error", "mae", "mse", "rmse", "mape", "perplexity", "nll", "brier", "ece", "latency"})


@dataclass(frozen=True)
class Rival:
    """Another version of the same model, as it was measured."""

    uri: str
    metrics: Mapping[str, float]
    fingerprint: str = ""  # of the Dataset's version that it was measured on


@dataclass(frozen=True)
class Candidate:
    """The version that is judged, and those that its gates name; one that does not exist (yet) is None."""

    metrics: Mapping[str, float]
    fingerprint: str = ""
    rivals: Mapping[str, Rival | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What one gate said: metric, value and limit in one sentence."""

    passed: bool
    text: str


def judge(gates: Sequence[Gate], candidate: Candidate) -> list[Verdict]:
    """One verdict for each limit of each gate. `accuracy` means `test_accuracy`."""
    return [verdict for gate in gates for verdict in _verdicts(gate, candidate)]


def _verdicts(gate: Gate, candidate: Candidate) -> list[Verdict]:
    value = _value(gate.metric, candidate.metrics)
    if value is None:
        there = ", ".join(sorted(candidate.metrics))
        what = f"there are {there}" if there else "nothing was measured"
        return [Verdict(False, f"gate {gate.metric}: there is no such metric; {what}")]
    found = []
    if gate.min is not None:
        found.append(_limit(gate.metric, value, value >= gate.min, "below", "minimum", gate.min))
    if gate.max is not None:
        found.append(_limit(gate.metric, value, value <= gate.max, "above", "maximum", gate.max))
    if gate.not_worse_than is not None:
        found.append(_compared(gate, value, candidate))
    return found


def _limit(metric: str, value: float, passed: bool, side: str, name: str, limit: float) -> Verdict:
    return Verdict(passed, f"gate {metric}: {value:.4f} is {'not ' if passed else ''}{side} the {name} {limit:g}")


def _compared(gate: Gate, value: float, candidate: Candidate) -> Verdict:
    name = gate.not_worse_than or ""
    rival = candidate.rivals.get(name)
    if rival is None:
        return Verdict(not name.isdigit(), f"gate {gate.metric}: there is no version {name} to be compared with")
    best = _value(gate.metric, rival.metrics)
    if best is None:
        return Verdict(False, f"gate {gate.metric}: {rival.uri} ({name}) has no such metric to be compared with")
    tolerance = gate.tolerance or 0.0
    passed = value <= best + tolerance if _lower_is_better(gate) else value >= best - tolerance
    text = f"gate {gate.metric}: {value:.4f} is {'not ' if passed else ''}worse than {best:.4f} of {rival.uri} ({name})"
    if tolerance:
        text += f" by more than {tolerance:g}"
    if rival.fingerprint != candidate.fingerprint:
        text += ", which was measured on another version of the Dataset"
    return Verdict(passed, text)


def _lower_is_better(gate: Gate) -> bool:
    return gate.type == "minimize" if gate.type else gate.metric.lower().rpartition("_")[2] in _LOWER


def _value(metric: str, metrics: Mapping[str, float]) -> float | None:
    """On the test split: a plain `loss` is that of the last training steps."""
    return metrics.get(f"test_{metric}", metrics.get(metric))
