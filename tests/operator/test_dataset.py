"""Dataset: a Job for each generation, a version for each fingerprint, and the workload's word in the condition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import ROLE_MATERIALIZE, ROLE_WORKERS
from mizzen_api.workload import DatasetReport, LiveReference, Progress, WorkloadConfig
from mizzen_operator import names
from mizzen_operator.handlers import needs
from mizzen_operator.observed import JobView, Observed
from mizzen_operator.plan import Key
from tests.operator.builders import (
    NOW,
    SETTINGS,
    after,
    child,
    dataset,
    decide,
    edited,
    ending,
    failed,
    kinds,
    later,
    materializing,
    pod,
    ref,
    said,
)

READY = ConditionType.READY


def report(fingerprint: str = "sha256:bb", **found: Any) -> str:
    uri = f"file:///artifacts/datasets/default/tweets/{fingerprint}"
    found = {
        "progressPercentage": 100,
        "rows": 9,
        "fingerprint": fingerprint,
        "uri": uri,
        "classes": ["a", "b"],
        **found,
    }
    found = DatasetReport.model_validate(found)
    return Progress(state="Succeeded", reason=Reason.SUCCEEDED, dataset=found).to_termination_message()


def test_a_new_dataset_gets_a_claim_a_configuration_and_a_job():
    plan = decide(dataset(), Observed())
    assert kinds(plan) == ["PersistentVolumeClaim", "ConfigMap", "Job"]
    assert said(plan, READY)[:2] == ("False", "Materializing")
    assert child(plan, "Job", "tweets-data-1")["spec"]["backoffLimit"] == 3


def test_no_claim_where_there_is_one_or_where_artifacts_live_elsewhere():
    assert "PersistentVolumeClaim" not in kinds(decide(dataset(), Observed(has_claim=True)))
    elsewhere = decide(dataset(), Observed(), settings=replace(SETTINGS, artifacts_uri="s3://bucket/x"))
    assert kinds(elsewhere) == ["ConfigMap", "Job"]
    mounts = child(elsewhere, "Job", "tweets-data-1")["spec"]["template"]["spec"]["volumes"]
    assert "artifacts" not in {volume["name"] for volume in mounts}


def test_the_message_tells_what_is_odd_about_a_version():
    mds = dataset()
    told = report(
        badRows=2,
        droppedRows=3,
        expectations={"warned": 1},
        drift={"drifted": True, "features": 7, "driftedFeatures": 0},
    )
    plan = decide(mds, ending(materializing(mds), ROLE_MATERIALIZE, told, complete=True))
    assert said(plan, READY)[2] == (
        "Version 1 has 9 rows; 2 bad rows were set aside; 3 rows were dropped by expectations; 1 expectation does not "
        "hold; the data has drifted, 0 of 7 columns by themselves"
    )


def test_success_makes_a_version():
    mds = dataset()
    plan = decide(mds, ending(materializing(mds), ROLE_MATERIALIZE, report(), complete=True))
    assert said(plan, READY) == ("True", "Materialized", "Version 1 has 9 rows")
    assert (plan.status.version, plan.status.fingerprint, plan.status.classes) == (1, "sha256:bb", ["a", "b"])
    assert plan.status.observed_generation == 1


@pytest.mark.parametrize(("fingerprint", "version"), [("sha256:bb", 1), ("sha256:cc", 2)])
def test_an_edit_makes_a_new_version_only_for_a_new_fingerprint(fingerprint, version):
    mds = dataset()
    first = materializing(mds)
    mds = after(mds, decide(mds, ending(first, ROLE_MATERIALIZE, report(), complete=True)))
    mds = edited(mds, target="z")
    plan = decide(mds, first)
    assert {ref.name for ref in plan.delete} == {"tweets-data-1"}
    assert {ref.kind for ref in plan.delete} == {"Job", "ConfigMap"}
    assert child(plan, "Job", "tweets-data-2")
    assert said(plan, READY)[:2] == ("False", "Materializing")
    mds = after(mds, plan)
    plan = decide(mds, ending(materializing(mds), ROLE_MATERIALIZE, report(fingerprint), complete=True))
    assert plan.status.version == version


@pytest.mark.parametrize(
    ("message", "fields", "reason", "words"),
    [
        (
            failed(Reason.COLUMN_MISSING, "no column 'y'"),
            {"reason": "PodFailurePolicy"},
            "ColumnMissing",
            "no column 'y'",
        ),
        (failed(Reason.SOURCE_EMPTY, "x.csv is empty"), {"reason": "BackoffLimitExceeded"}, "SourceEmpty", "empty"),
        (failed(Reason.INTERNAL_ERROR, "disk"), {"reason": "BackoffLimitExceeded"}, "BackoffLimitExceeded", "disk"),
        ("Traceback: boom", {"reason": "BackoffLimitExceeded"}, "BackoffLimitExceeded", "boom"),
        ("", {"reason": "BackoffLimitExceeded"}, "BackoffLimitExceeded", "exit code 1"),
    ],
)
def test_a_failure_says_what_the_pod_said_and_stays(message, fields, reason, words):
    mds = dataset()
    observed = ending(materializing(mds), ROLE_MATERIALIZE, message, failed=True, **fields)
    plan = decide(mds, observed)
    status, found, text = said(plan, READY)
    assert (status, found) == ("False", reason)
    assert words in text
    assert plan.status.version == 0
    assert decide(after(mds, plan), observed, later(60)).status is None


def test_progress_is_shown_while_it_runs():
    mds = dataset()
    progress = Progress(message="Reading x.csv", dataset=DatasetReport(progress_percentage=40))
    plan = decide(mds, replace(materializing(mds), progress=progress))
    assert plan.status.progress_percentage == 40
    assert said(plan, READY) == ("False", "Materializing", "Reading x.csv")
    assert plan.look_again


def test_a_pod_without_a_place_says_so():
    mds = dataset()
    observed = materializing(mds)
    stuck = pod(ROLE_MATERIALIZE, observed.jobs[0], phase="Pending", scheduled=False, unschedulable="0/1 nodes: cpu")
    plan = decide(mds, replace(observed, pods=(stuck,)))
    assert said(plan, READY)[1] == "Pending"
    assert "0/1 nodes: cpu" in said(plan, READY)[2]


def test_the_transition_time_moves_with_the_status_only():
    mds = dataset()
    first = decide(mds, Observed())
    second = decide(after(mds, first), materializing(mds), later(9))
    assert second.status.condition(READY).last_transition_time == NOW
    done = ending(materializing(mds), ROLE_MATERIALIZE, report(), complete=True)
    third = decide(after(mds, second), done, later(20))
    assert third.status.condition(READY).last_transition_time == later(20)
    assert [event.reason for event in third.events] == ["Materialized"]


def ready(**spec):
    """A Dataset with version 1, and what was observed then."""
    mds = edited(dataset(), **spec)
    observed = ending(materializing(mds), ROLE_MATERIALIZE, report(), complete=True)
    return after(mds, decide(mds, observed)), observed


HOURLY = {"refresh": {"schedule": "0 * * * *"}}


def test_a_schedule_reads_again_and_stays_ready_meanwhile():
    mds, observed = ready(**HOURLY)
    plan = decide(mds, observed, NOW)
    due = plan.status.next_refresh_time
    assert due > NOW
    assert (due.minute, due.second) == (0, 0)
    assert plan.look_again <= 3600
    mds = after(mds, plan)
    assert decide(mds, observed, NOW).status is None
    plan = decide(mds, observed, due)
    generation = mds.metadata.generation
    assert child(plan, "Job", f"tweets-data-{generation}-1")
    assert {ref.name for ref in plan.delete} == {f"tweets-data-{generation}"}
    assert said(plan, ConditionType.REFRESHED)[:2] == ("Unknown", "Refreshing")
    mds = after(mds, plan)
    assert mds.status.condition(READY).status == "True"
    assert mds.status.last_refresh_time == due
    assert mds.status.next_refresh_time is None


@pytest.mark.parametrize(
    ("outcome", "version", "refreshed"),
    [
        (report("sha256:cc"), 2, ("True", "Materialized")),
        (report("sha256:bb"), 1, ("True", "Unchanged")),
        (failed(Reason.SCHEMA_BROKEN, "the column 'x' vanished"), 1, ("False", "SchemaBroken")),
    ],
)
def test_a_refresh_ends_in_its_own_condition(outcome, version, refreshed):
    mds, observed = ready(**HOURLY)
    mds = after(mds, decide(mds, observed, NOW))
    due = mds.status.next_refresh_time
    mds = after(mds, decide(mds, observed, due))
    run = materializing(mds, run=1)
    ended = ending(run, ROLE_MATERIALIZE, outcome, complete=refreshed[0] == "True", failed=refreshed[0] == "False")
    plan = decide(mds, ended, due)
    assert said(plan, ConditionType.REFRESHED)[:2] == refreshed
    assert plan.status.version == version
    assert plan.status.condition(READY).status == "True"
    mds = after(mds, plan)
    assert decide(mds, ended, due).status.next_refresh_time > due, "and the next one is worked out"


def test_a_schedule_that_names_no_time_says_so():
    mds, observed = ready(refresh={"schedule": "61 * * * *"})
    plan = decide(mds, observed, NOW)
    assert said(plan, ConditionType.REFRESHED)[:2] == ("False", "InvalidParameters")
    assert "61 * * * *" in said(plan, ConditionType.REFRESHED)[2]
    mds, observed = ready(refresh={"schedule": "@daily", "timeZone": "Mars/Olympus"})
    assert "not a time zone" in said(decide(mds, observed, NOW), ConditionType.REFRESHED)[2]


def test_suspend_ends_what_runs_and_keeps_what_is():
    mds = edited(dataset(), suspend=True)
    plan = decide(mds, materializing(mds))
    assert said(plan, READY)[:2] == ("False", "Suspended")
    assert {ref.kind for ref in plan.delete} == {"Job", "ConfigMap"}
    assert not plan.apply
    mds = edited(after(mds, plan), suspend=False)
    assert said(decide(mds, Observed()), READY)[:2] == ("False", "Materializing")


def test_a_reference_that_is_not_there_is_waited_for():
    mds = edited(dataset(), drift={"reference": "dataset", "datasetRef": {"name": "golden"}})
    plan = decide(mds, Observed())
    assert said(plan, READY)[:2] == ("False", "Pending")
    assert "'golden'" in said(plan, READY)[2]
    golden, _ = ready()
    plan = decide(after(mds, plan), Observed(dataset=golden))
    assert said(plan, READY)[:2] == ("False", "Materializing")


LIVE = {"drift": {"reference": "modelservice", "modelServiceRef": {"name": "tweets"}}}


def test_traffic_is_asked_for_where_servers_answer_when_the_reading_begins():
    mds = edited(dataset(), **LIVE)
    plan = decide(mds, Observed(servers=("10.0.1.1:8090", "10.0.1.2:8090")))
    config = WorkloadConfig.model_validate_json(child(plan, "ConfigMap", "tweets-data-2")["data"]["config.json"])
    assert config.live_reference == LiveReference(name="tweets", addresses=["10.0.1.1:8090", "10.0.1.2:8090"])
    assert config.reference is None
    assert said(decide(mds, Observed()), READY)[1] == "Materializing", (
        "a service that is not there yet holds nothing up"
    )


def test_drift_that_cannot_be_measured_warns_and_fails_nothing():
    mds = edited(dataset(), **LIVE)
    why = "ModelService 'tweets' has seen 3 rows lately, and spec.drift.minRows is 100"
    plan = decide(mds, ending(materializing(mds), ROLE_MATERIALIZE, report(driftNote=why), complete=True))
    assert said(plan, READY)[:2] == ("True", "Materialized")
    status, reason, message = said(plan, ConditionType.DRIFT_MEASURED)
    assert (status, reason) == ("False", "ReferenceUnavailable")
    assert why in message
    assert {(event.type, event.reason) for event in plan.events} == {
        ("Normal", "Materialized"), ("Warning", "ReferenceUnavailable"),
    }  # fmt: skip
    mds = edited(after(mds, plan), target="z")
    drift = {"features": 7, "driftedFeatures": 2, "reference": "ModelService tweets"}
    plan = decide(mds, ending(materializing(mds), ROLE_MATERIALIZE, report("sha256:cc", drift=drift), complete=True))
    assert said(plan, ConditionType.DRIFT_MEASURED) == (
        "True", "Measured", "2 of 7 columns have drifted from ModelService tweets",
    )  # fmt: skip
    mds = edited(after(mds, plan), drift=None)
    plan = decide(mds, ending(materializing(mds), ROLE_MATERIALIZE, report("sha256:dd"), complete=True))
    assert plan.status.condition(ConditionType.DRIFT_MEASURED) is None


def test_a_dataset_wakes_when_its_reference_changes():
    mds = edited(dataset(), drift={"reference": "dataset", "datasetRef": {"name": "golden"}})
    key = Key("Dataset", "default", "tweets")
    assert needs(key, mds.to_wire()) == {Key("Dataset", "default", "golden")}


def test_suspending_a_dataset_that_has_a_version_leaves_it_ready():
    mds, observed = ready()
    mds = edited(mds, suspend=True)
    plan = decide(mds, observed)
    status, reason, message = said(plan, READY)
    assert (status, reason) == ("True", "Suspended")
    assert message.startswith("Version 1 stays. Suspended")
    assert {ref.kind for ref in plan.delete} == {"Job", "ConfigMap"}
    mds = after(mds, plan)
    assert decide(mds, Observed(), later(60)).status is None
    assert said(decide(edited(mds, suspend=False), Observed()), READY)[:2] == ("False", "Materializing")


def test_secrets_are_mounted_as_files():
    sql = {"query": "select 1", "secretRef": {"name": "warehouse", "key": "dsn"}}
    bucket = {"uri": "s3://raw/x.csv", "secretRef": {"name": "bucket"}}
    mds = edited(dataset(), sources=[{"sql": sql}, bucket, {"sql": {**sql, "secretRef": {"name": "bucket"}}}])
    pod_spec = child(decide(mds, Observed()), "Job", f"tweets-data-{mds.metadata.generation}")["spec"]["template"][
        "spec"
    ]
    mounts = {mount["mountPath"]: mount for mount in pod_spec["containers"][0]["volumeMounts"]}
    secrets = {path: mount for path, mount in mounts.items() if path.startswith("/etc/mizzen-secrets/")}
    assert set(secrets) == {"/etc/mizzen-secrets/warehouse/dsn", "/etc/mizzen-secrets/bucket"}, "one mount for a Secret"
    assert all(mount["readOnly"] for mount in secrets.values())
    assert "secretKeyRef" not in str(pod_spec), "secrets are files, never environment"


def test_versions_in_an_object_store_are_made_with_its_secret():
    settings = replace(SETTINGS, datasets_store="s3://models/datasets", datasets_secret="bucket")
    plan = decide(dataset(), Observed(missing_secrets=("bucket",)), settings=settings)
    assert "artifacts.datasets.secretName in the chart's values names" in said(plan, READY)[2]
    plan = decide(dataset(), Observed(), settings=settings)
    config = WorkloadConfig.model_validate_json(child(plan, "ConfigMap", "tweets-data-1")["data"]["config.json"])
    assert config.artifacts_uri == "s3://models/datasets"
    assert config.run_uri.startswith("file:///artifacts/runs/")
    pod_spec = child(plan, "Job", "tweets-data-1")["spec"]["template"]["spec"]
    volume = next(one for one in pod_spec["volumes"] if one["name"] == "datasets-secret")
    assert (volume["secret"]["secretName"], volume["secret"]["optional"]) == ("bucket", True)
    assert "/etc/mizzen-datasets" in {mount["mountPath"] for mount in pod_spec["containers"][0]["volumeMounts"]}


def test_a_secret_that_is_not_there_is_named_and_waited_for():
    mds = edited(dataset(), sources=[{"uri": "s3://raw/x.csv", "secretRef": {"name": "bucket"}}])
    plan = decide(mds, Observed(missing_secrets=("bucket",)))
    assert said(plan, READY)[:2] == ("False", "Pending")
    assert "There is no Secret 'bucket' in this namespace" in said(plan, READY)[2]
    assert (plan.apply, plan.look_again) == ((), 10)
    assert said(decide(after(mds, plan), Observed()), READY)[1] == "Materializing"


def test_a_job_may_go_once_its_report_is_in_the_status():
    mds = edited(dataset(), ttlSecondsAfterFinished=0)
    job = child(decide(mds, Observed()), "Job", f"tweets-data-{mds.metadata.generation}")
    assert "ttlSecondsAfterFinished" not in job["spec"], "else it could go before anybody has read it"
    ended = ending(materializing(mds), ROLE_MATERIALIZE, report(), complete=True)
    plan = decide(mds, ended)
    assert not plan.patch
    mds = after(mds, plan)
    (patch,) = decide(mds, ended).patch
    assert (patch.ref.name, patch.body) == (job["metadata"]["name"], {"spec": {"ttlSecondsAfterFinished": 0}})
    patched = replace(ended, jobs=tuple(replace(one, ttl=0) for one in ended.jobs))
    assert not decide(mds, patched).patch
    assert decide(mds, Observed(has_claim=True)).status is None, "and nothing is read again once it is gone"


RAY = {"engine": "ray", "scaling": {"minWorkers": 2, "maxWorkers": 3, "resourcesPerWorker": {"cpu": "4"}}}


def on_ray(mds, *workers, run=0):
    """The pod has said that it works with Ray, and the workers' Job is there where pods of it are given."""
    observed = replace(materializing(mds, run), has_token=True)
    observed = replace(observed, progress=Progress(dataset=DatasetReport(engine="ray", progress_percentage=7)))
    if not workers:
        return observed
    name = names.materialize_workers(mds.metadata.name, mds.metadata.generation, run)
    crew = JobView(ref("Job", name), ROLE_WORKERS)
    pods = (pod(ROLE_WORKERS, crew, name=f"w{n}", **fields) for n, fields in enumerate(workers))
    return replace(observed, jobs=(*observed.jobs, crew), pods=(*observed.pods, *pods))


def test_with_ray_the_pod_is_the_head_and_workers_come_when_it_asks():
    mds = edited(dataset(), **RAY)
    plan = decide(mds, Observed(fresh_token="t"))
    assert kinds(plan) == ["PersistentVolumeClaim", "Secret", "Service", "ConfigMap", "Job"]
    service = child(plan, "Service", "tweets-data-head")["spec"]
    head = child(plan, "Job", "tweets-data-2")["spec"]["template"]
    assert service["selector"].items() <= head["metadata"]["labels"].items()
    config = child(plan, "ConfigMap", "tweets-data-2")["data"]["config.json"]
    assert WorkloadConfig.model_validate_json(config).ray.address == "tweets-data-head.default.svc:6379"
    mds = after(mds, plan)
    assert not decide(mds, materializing(mds)).apply, "the pod has not said yet that there is work"
    plan = decide(mds, on_ray(mds))
    job = child(plan, "Job", "tweets-data-2-ray")["spec"]
    assert (job["parallelism"], plan.status.engine) == (3, "ray")
    container = job["template"]["spec"]["containers"][0]
    assert container["command"] == ["mizzen", "ray-worker"]
    assert container["resources"]["limits"]["cpu"] == "4"
    assert {"config", "ray-token", "shm", "artifacts"} <= {one["name"] for one in job["template"]["spec"]["volumes"]}
    assert not decide(mds, on_ray(mds, {}, {}, {})).apply


def test_auto_makes_no_workers_for_small_sources():
    mds = edited(dataset(), engine="auto")
    mds = after(mds, decide(mds, Observed()))
    small = replace(materializing(mds), has_token=True, progress=Progress(dataset=DatasetReport(engine="polars")))
    plan = decide(mds, small)
    assert not plan.apply
    assert plan.status.engine == "polars"
    assert kinds(decide(mds, on_ray(mds))) == ["Job"]


def test_workers_without_a_place_are_told_and_go_with_the_reading():
    mds = edited(dataset(), **RAY)
    mds = after(mds, decide(mds, Observed()))
    observed = on_ray(mds, {}, {"phase": "Pending", "scheduled": False, "unschedulable": "0/1 nodes: cpu"})
    plan = decide(mds, observed)
    assert said(plan, READY)[1] == "WorkersPending"
    assert "1 of at least 2 workers have a place: pod w1 finds no node: 0/1 nodes: cpu" in said(plan, READY)[2]
    mds = after(mds, plan)
    again = decide(mds, observed, later(9))
    assert said(again, READY)[1] == "WorkersPending", "it goes on being a first reading"
    assert (again.delete, again.events) == ((), ())
    plan = decide(mds, ending(observed, ROLE_MATERIALIZE, report(engine="ray"), complete=True))
    assert said(plan, READY)[0] == "True"
    assert [one.name for one in plan.delete] == ["tweets-data-2-ray"], "the head's Job keeps its log"


def test_a_refresh_whose_secret_was_deleted_says_so():
    mds, observed = ready(**HOURLY)
    mds = after(mds, decide(mds, observed, NOW))
    due = mds.status.next_refresh_time
    mds = after(mds, decide(mds, observed, due))
    waiting = replace(materializing(mds, run=1), missing_secrets=("bucket",))
    assert "no Secret 'bucket'" in said(decide(mds, waiting, due), ConditionType.REFRESHED)[2]


def test_a_refresh_brings_workers_of_its_own():
    mds, observed = ready(**HOURLY, **RAY)
    mds = after(mds, decide(mds, observed, NOW))
    due = mds.status.next_refresh_time
    mds = after(mds, decide(mds, observed, due))
    assert child(decide(mds, on_ray(mds, run=1), due), "Job", f"tweets-data-{mds.metadata.generation}-1-ray")
