"""Planning twice changes nothing, whatever is observed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mizzen_api.conditions import Reason
from mizzen_api.contract import ROLE_HEAD
from mizzen_api.workload import Progress
from mizzen_operator.observed import Missing, Observed, RouteView, Traffic, Unreachable
from tests.operator.builders import (
    after,
    canary,
    dataset,
    decide,
    edited,
    ending,
    failed,
    later,
    materializing,
    ready_dataset,
    search,
    service,
    serving,
    started,
    training,
)

MESSAGES = st.sampled_from(
    ["", "Traceback", failed(Reason.GATE_FAILED, "low"), Progress(state="Succeeded").to_termination_message()]
)
ENDS = st.sampled_from(
    [
        {"complete": True},
        {"failed": True, "reason": "BackoffLimitExceeded"},
        {"failed": True, "reason": "PodFailurePolicy"},
    ]
)


def check_fixpoint(resource: Any, observed: Observed) -> None:
    first = decide(resource, observed)
    second = decide(after(resource, first), replace(observed, memory=first.memory), later(1))
    settled = after(after(resource, first), second)
    third = decide(settled, replace(observed, memory=second.memory), later(2))
    assert third.events == second.events == ()
    assert settled.status.to_wire() == after(resource, first).status.to_wire()
    assert third.status is None or third.status.to_wire() == settled.status.to_wire()
    assert third.apply == second.apply
    assert third.delete == second.delete
    assert {(ref.kind, ref.name) for ref in first.delete} >= {(ref.kind, ref.name) for ref in third.delete}


@st.composite
def ray_jobs(draw: st.DrawFn) -> tuple[Any, Observed]:
    job: Any = draw(st.sampled_from([search(), training(), training(model={"searchJobRef": {"name": "nas"}})]))
    seen = draw(st.sampled_from(["nothing", "dataset", "running", "ended"]))
    if seen == "nothing":
        return job, Observed()
    if seen == "dataset" or (job.kind == "TrainingJob" and job.spec.model.search_job_ref):
        return job, Observed(dataset=ready_dataset(), fresh_token="t")
    observed = started(job)
    job = after(job, decide(job, observed))
    if seen == "ended":
        observed = ending(observed, ROLE_HEAD, draw(MESSAGES), **draw(ENDS))
    if draw(st.booleans()):
        phase = draw(st.sampled_from(["Pending", "Running", "Failed"]))
        pods = tuple(replace(p, phase=phase, unschedulable=draw(st.sampled_from(["", "cpu"]))) for p in observed.pods)
        observed = replace(observed, pods=pods)
    if draw(st.booleans()):
        observed = replace(observed, jobs=observed.jobs[: draw(st.integers(0, 1))])
    edit = draw(st.sampled_from([None, {"runPolicy": {"suspend": True}}, {"runPolicy": {"backoffLimit": 9}}]))
    return (edited(job, **edit) if edit else job), observed


@settings(deadline=None)
@given(ray_jobs())
def test_jobs(case: tuple[Any, Observed]) -> None:
    check_fixpoint(*case)


@settings(deadline=None)
@given(MESSAGES, ENDS, st.booleans(), st.sampled_from(["polars", "ray", "auto"]))
def test_datasets(message: str, end: dict[str, Any], ended: bool, engine: str) -> None:
    found = dataset(engine=engine)
    observed = materializing(found)
    check_fixpoint(found, Observed())
    check_fixpoint(found, ending(observed, "materialize", message, **end) if ended else observed)


@settings(deadline=None)
@given(
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([None, Missing("gone"), Unreachable("away")]),
    st.sampled_from([None, RouteView(), RouteView(True)]),
    st.floats(0, 50),
)
def test_services(predictors: int, canaries: int, answer: Any, route: RouteView | None, load: float) -> None:
    found = service(canary=[canary()])
    observed = serving(found, {"predictor": 3, "candidate": 4}, {"predictor": predictors, "candidate": canaries})
    traffic = {pod.name: Traffic(1, load) for pod in observed.pods if pod.ready}
    models = {**observed.models, **({"models:/tweets@candidate": answer} if answer else {})}
    check_fixpoint(found, replace(observed, traffic=traffic, models=models, route=route))
