"""The choice of settings by measured speed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mizzen.data.materialize import Version
from mizzen.errors import UserError
from mizzen.train import autotune
from mizzen.train.autotune import search, tuned
from mizzen.train.plan import TrainPlan
from mizzen_api.conditions import Reason

PLAN = TrainPlan("text-bag", {}, "file:///nowhere", "sha256:0", 1e-2, batch_size=64, threads=2, autotune=True)


def speed(plan: TrainPlan) -> float:
    """A machine where bf16 doubles, small micro-batches help a little, and compilation fails."""
    if plan.compile:
        raise RuntimeError("no compiler\nC++ compiler not found")
    gain = {"bf16": 2.0, "fp32": 1.0}[plan.precision]
    return 100.0 * gain * {0: 1.0, 32: 1.1, 16: 1.12, 8: 0.5}[plan.micro_rows] * (0.6 if plan.threads == 1 else 1.0)


def test_each_setting_in_turn_from_the_best_so_far() -> None:
    found = search(PLAN, speed)
    assert found.chosen == {"precision": "bf16", "micro_rows": 32}, "16 is faster by less than noise"
    assert found.gain == pytest.approx(2.2)
    failed = [trial for trial in found.trials if trial.error]
    assert [(t.changes, t.error) for t in failed] == [
        ({"precision": "bf16", "compile": True}, "C++ compiler not found")
    ]


def test_nothing_faster_leaves_the_plan() -> None:
    found = search(PLAN, lambda plan: 100.0 if plan == PLAN else 102.0)
    assert found.chosen == {} and found.gain == 1.0


def test_it_ends_when_the_time_is_over() -> None:
    assert len(search(PLAN, speed, patience=-1.0).trials) == 1


def test_settings_that_do_not_work_as_given_are_the_user_s() -> None:
    def broken(plan: TrainPlan) -> float:
        raise UserError(Reason.INVALID_PARAMETERS, "no")

    with pytest.raises(UserError):
        search(PLAN, broken)


def test_a_run_that_is_too_short_to_be_measured_is_left_as_it_is(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, dataset_uri=version.uri, dataset_fingerprint=version.fingerprint, epochs=1, batch_size=100_000)
    monkeypatch.setattr(autotune, "alternatives", lambda _: [("micro_rows", [32])])
    assert search(plan, autotune.measure).chosen == {}


def test_what_was_found_is_measured_once(version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, dataset_uri=version.uri, dataset_fingerprint=version.fingerprint)
    monkeypatch.setattr(autotune, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(autotune, "alternatives", lambda _: [("micro_rows", [32, 16])])  # compilers take a minute
    first = tuned(plan, tmp_path)
    kept = json.loads((tmp_path / autotune.FILE).read_bytes())
    assert all(trial["rows_per_second"] > 0 or trial["error"] for trial in kept["trials"])
    kept["chosen"] = {"micro_rows": 7}
    (tmp_path / autotune.FILE).write_text(json.dumps(kept))
    assert first.micro_rows in {0, 32, 16} and tuned(plan, tmp_path).micro_rows == 7
    assert tuned(replace(plan, autotune=False), tmp_path / "none") == replace(plan, autotune=False)
