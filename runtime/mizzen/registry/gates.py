"""Whether a version may carry the alias: a pure function of its metrics and the gates of the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mizzen_api.trainingjob import Gate


def failures(gates: Sequence[Gate], metrics: Mapping[str, float]) -> list[str]:
    """One sentence for each gate that does not pass, with metric, value and limit. `accuracy` means `test_accuracy`."""
    found = []
    for gate in gates:
        value = metrics.get(gate.metric, metrics.get(f"test_{gate.metric}"))
        if value is None:
            there = f"there are {', '.join(sorted(metrics))}" if metrics else "nothing was measured"
            found.append(f"gate {gate.metric}: there is no such metric; {there}")
        elif gate.min is not None and not value >= gate.min:
            found.append(f"gate {gate.metric}: {value:.4f} is below the minimum {gate.min:g}")
        elif gate.max is not None and not value <= gate.max:
            found.append(f"gate {gate.metric}: {value:.4f} is above the maximum {gate.max:g}")
    return found
