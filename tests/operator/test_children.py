"""Every child of every kind: restricted pods without API tokens, short names, owners, and the promised commands."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mizzen_api import contract
from mizzen_operator.observed import Found, Observed
from mizzen_operator.settings import Settings
from tests.operator.builders import (
    NOW,
    SETTINGS,
    canary,
    child,
    dataset,
    decide,
    edited,
    predictor,
    ready_dataset,
    search,
    service,
    training,
)

LONG = "n" * 40
MODELS = {"models:/tweets@champion": Found("models:/tweets/1"), "models:/tweets@candidate": Found("models:/tweets/2")}
RESOURCES = [
    dataset(LONG, generation=2**31),
    search(LONG),
    training(LONG),
    service(LONG, canary=[canary(name="v" * 15)]),
]


def plan_of(resource, settings=SETTINGS):
    return decide(resource, Observed(dataset=ready_dataset(), models=MODELS, fresh_token="t" * 64), NOW, settings)


CHILDREN = [
    pytest.param(resource, manifest, id=f"{resource.kind}-{manifest['kind']}-{i}")
    for resource in RESOURCES
    for i, manifest in enumerate(plan_of(resource).apply)
]
TEMPLATES = [
    pytest.param(*param.values, id=param.id) for param in CHILDREN if "template" in param.values[1].get("spec", {})
]


def test_every_kind_is_here():
    assert {param.values[1]["kind"] for param in CHILDREN} == {
        "PersistentVolumeClaim", "ConfigMap", "Secret", "Service", "Job", "Deployment", "HTTPRoute",
    }  # fmt: skip
    assert len(TEMPLATES) == 1 + 2 + 2 + 2


@pytest.mark.parametrize(("resource", "manifest"), CHILDREN)
def test_names_labels_and_owner(resource, manifest):
    meta = manifest["metadata"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", meta["name"]), meta["name"]
    assert meta["labels"][contract.LABEL_MANAGED_BY] == contract.MANAGED_BY
    assert all(len(value) <= 63 for value in meta["labels"].values())
    if manifest["kind"] == "PersistentVolumeClaim":
        assert "ownerReferences" not in meta, "artifacts outlive the resource that came first"
        return
    (owner,) = meta["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == (resource.kind, resource.metadata.uid)
    assert owner["controller"]
    assert owner["blockOwnerDeletion"]
    assert meta["labels"][contract.LABEL_NAME] == resource.metadata.name


@pytest.mark.parametrize(("resource", "manifest"), TEMPLATES)
def test_pods_are_restricted_and_carry_no_token(resource, manifest):
    spec = manifest["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
    assert all(volume.keys() - {"name"} <= allowed for volume in spec["volumes"])
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize(("resource", "manifest"), TEMPLATES)
def test_selectors_and_services_find_the_pods(resource, manifest):
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    if manifest["kind"] == "Deployment":
        assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items()
    services = [m["spec"]["selector"] for m in plan_of(resource).apply if m["kind"] == "Service"]
    found = sum(selector.items() <= labels.items() for selector in services)
    assert found == (labels[contract.LABEL_ROLE] in {contract.ROLE_HEAD, contract.ROLE_SERVER})


def containers(plan):
    return {
        m["metadata"]["name"]: m["spec"]["template"]["spec"]["containers"][0]
        for m in plan.apply
        if "template" in m.get("spec", {})
    }


def test_commands():
    commands = {
        name: container["command"]
        for resource in (dataset("d"), search("s"), training("t"))
        for name, container in containers(plan_of(resource)).items()
    }
    assert commands == {
        "d-data-1": ["mizzen", "data", "materialize"],
        "s-search-head": ["mizzen", "search"],
        "s-search-workers": ["mizzen", "ray-worker"],
        "t-train-head": ["mizzen", "train"],
        "t-train-workers": ["mizzen", "ray-worker"],
    }


def test_environment_of_a_ray_pod():
    env = {entry["name"]: entry for entry in containers(plan_of(training("t")))["t-train-head"]["env"]}
    assert env["MIZZEN_POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert {name: entry["value"] for name, entry in env.items() if "value" in entry} == {
        "HOME": "/tmp",
        "MIZZEN_CONFIG": "/etc/mizzen/config.json",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": "/etc/mizzen-ray/token",
    }


def test_a_failure_policy_that_knows_user_errors_and_drained_nodes():
    for resource, name in ((dataset("d"), "d-data-1"), (search("s"), "s-search-head"), (training("t"), "t-train-head")):
        job = child(plan_of(resource), "Job", name)["spec"]
        assert job["template"]["spec"]["restartPolicy"] == "Never", "podFailurePolicy asks for it"
        rules = job["podFailurePolicy"]["rules"]
        assert [rule["action"] for rule in rules] == ["FailJob", "Ignore", "Ignore"]
        codes = [rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule]
        assert codes == [[contract.EXIT_USER_ERROR], [contract.EXIT_STOPPED]]
        assert rules[0]["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]


def test_workers_are_as_many_as_may_be_and_come_back():
    plan = plan_of(training("t", scaling={"maxWorkers": 5, "resourcesPerWorker": {"cpu": "3", "memory": "1Gi"}}))
    job = child(plan, "Job", "t-train-workers")["spec"]
    assert job["parallelism"] == 5
    assert "completions" not in job, "it could not be changed while the job runs"
    assert job["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert job["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "3"
    parallel = plan_of(search("s", maxTrialCount=8, parallelTrialCount=4))
    assert child(parallel, "Job", "s-search-workers")["spec"]["parallelism"] == 4


def test_an_edit_of_the_batcher_rolls_the_pods():
    def pod_hash(resource):
        template = child(plan_of(resource), "Deployment", "m-predictor")["spec"]["template"]
        return template["metadata"]["annotations"][contract.ANNOTATION_CONFIG_HASH]

    before = service("m")
    batched = edited(before, predictor=predictor(batcher={"maxBatchSize": 8}))
    scaled = edited(before, predictor=predictor(minReplicas=2, maxReplicas=2))
    assert pod_hash(before) == pod_hash(scaled)
    assert pod_hash(before) != pod_hash(batched)


def test_the_claim_follows_the_settings():
    settings = replace(SETTINGS, artifacts_claim_size="7Gi", artifacts_storage_class="fast")
    claim = child(plan_of(dataset("d"), settings), "PersistentVolumeClaim", "mizzen-artifacts")["spec"]
    assert claim == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "7Gi"}},
        "storageClassName": "fast",
    }


def test_settings_come_from_the_environment():
    assert Settings.from_environment({}) == Settings()
    env = {
        contract.ENV_RUNTIME_IMAGE: "r:2",
        contract.ENV_ARTIFACTS_URI: "s3://b",
        contract.ENV_GATEWAY: "ns/gw",
        contract.ENV_WATCH_NAMESPACES: "a, b,",
        contract.ENV_MLFLOW: "http://m/",
        contract.ENV_POD_IP: "10.1.1.1",
    }
    found = Settings.from_environment(env)
    assert (found.runtime_image, found.uses_claim, found.gateway) == ("r:2", False, "ns/gw")
    assert (found.watch_namespaces, found.mlflow_uri, found.pod_ip) == (("a", "b"), "http://m", "10.1.1.1")
