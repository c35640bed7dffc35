"""Gates: limits, and comparison with other versions."""

from __future__ import annotations

from typing import Any

import pytest

from mizzen.registry.gates import Candidate, Rival, judge
from mizzen_api.trainingjob import Gate

CHAMPION = Rival("models:/tweets/3", {"test_accuracy": 0.9, "test_loss": 0.3, "seconds": 2.0}, "sha256:a")

CASES: list[tuple[dict[str, Any], dict[str, float], bool, str]] = [
    ({"min": 0.8}, {"test_accuracy": 0.8}, True, "gate accuracy: 0.8000 is not below the minimum 0.8"),
    ({"min": 0.8}, {"accuracy": 0.7}, False, "gate accuracy: 0.7000 is below the minimum 0.8"),
    ({"min": 0.8}, {"accuracy": float("nan")}, False, "gate accuracy: nan is below the minimum 0.8"),
    ({"min": 0.5}, {}, False, "gate accuracy: there is no such metric; nothing was measured"),
    ({"min": 0.5}, {"test_loss": 1.0}, False, "gate accuracy: there is no such metric; there are test_loss"),
    ({"metric": "loss", "max": 1}, {"loss": 0.1, "test_loss": 1.5}, False, "gate loss: 1.5000 is above the maximum 1"),
    ({"metric": "loss", "max": 1}, {"loss": 2.0}, False, "gate loss: 2.0000 is above the maximum 1"),
    (
        {"notWorseThan": "champion"}, {"accuracy": 0.9}, True,
        "gate accuracy: 0.9000 is not worse than 0.9000 of models:/tweets/3 (champion)",
    ),
    (
        {"notWorseThan": "champion"}, {"accuracy": 0.8999}, False,
        "gate accuracy: 0.8999 is worse than 0.9000 of models:/tweets/3 (champion)",
    ),
    (
        {"notWorseThan": "champion", "tolerance": 0.05}, {"accuracy": 0.86}, True,
        "gate accuracy: 0.8600 is not worse than 0.9000 of models:/tweets/3 (champion) by more than 0.05",
    ),
    (
        {"notWorseThan": "champion", "tolerance": 0.05}, {"accuracy": 0.84}, False,
        "gate accuracy: 0.8400 is worse than 0.9000 of models:/tweets/3 (champion) by more than 0.05",
    ),
    (
        {"metric": "loss", "notWorseThan": "champion"}, {"loss": 0.31}, False,
        "gate loss: 0.3100 is worse than 0.3000 of models:/tweets/3 (champion)",
    ),
    (
        {"metric": "test_loss", "notWorseThan": "champion"}, {"test_loss": 0.2}, True,
        "gate test_loss: 0.2000 is not worse than 0.3000 of models:/tweets/3 (champion)",
    ),
    (
        {"metric": "seconds", "notWorseThan": "champion", "type": "minimize"}, {"seconds": 3.0}, False,
        "gate seconds: 3.0000 is worse than 2.0000 of models:/tweets/3 (champion)",
    ),
    (
        {"notWorseThan": "champion"}, {"accuracy": float("nan")}, False,
        "gate accuracy: nan is worse than 0.9000 of models:/tweets/3 (champion)",
    ),
    (
        {"metric": "f1", "notWorseThan": "champion"}, {"f1": 1.0}, False,
        "gate f1: models:/tweets/3 (champion) has no such metric to be compared with",
    ),
    (
        {"notWorseThan": "best"}, {"accuracy": 0.1}, True,
        "gate accuracy: there is no version best to be compared with",
    ),
    (
        {"notWorseThan": "12"}, {"accuracy": 1.0}, False,
        "gate accuracy: there is no version 12 to be compared with",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("gate", "metrics", "passes", "text"), CASES, ids=[case[3] for case in CASES])
def test_a_gate_says_why(gate: dict[str, Any], metrics: dict[str, float], passes: bool, text: str) -> None:
    candidate = Candidate(metrics, "sha256:a", {"champion": CHAMPION, "best": None, "12": None})
    (verdict,) = judge([Gate.model_validate(gate)], candidate)
    assert (verdict.passed, verdict.text) == (passes, text)


def test_each_limit_is_judged() -> None:
    gate = Gate(min=0.5, max=0.99, not_worse_than="champion")
    verdicts = judge([gate], Candidate({"accuracy": 0.95}, "sha256:b", {"champion": CHAMPION}))
    assert [verdict.passed for verdict in verdicts] == [True, True, True]
    assert verdicts[2].text.endswith("(champion), which was measured on another version of the Dataset")
