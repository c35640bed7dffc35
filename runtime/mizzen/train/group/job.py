"""What a member is told to train: carried from the driver to every process of the group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mizzen.train.group.keeping import Keeping


@dataclass(frozen=True)
class Job:
    """`build` names the function that makes the Trainee from `plan`; `function` trains in its place (function.py)."""

    plan: dict[str, Any]  # TrainPlan.to_dict
    keeping: Keeping
    run_folder: str  # rank 0 leaves the trained model here, in `final`
    build: str = "mizzen.train.group.work:loop_of"
    function: str = ""
    coordinator: str = ""  # the actor of a parameter server, whose workers the members are
    settings: dict[str, Any] | None = None  # of `function`
