"""Deployments and StatefulSets: how they roll, how far they may deviate, and what their status says."""

from __future__ import annotations

import re
from typing import Any

from tests.cluster.client import Cluster, Http, eventually
from tests.cluster.objects import FOREVER, Object, conditions, deployment, idle_deployment, pod_spec, shell

DEPLOYMENTS = "apps/v1/deployments"
SETS = "apps/v1/replicasets"
STATEFUL = "apps/v1/statefulsets"
REVISION = "deployment.kubernetes.io/revision"


async def listed(http: Http, resource: str, name: str) -> list[Object]:
    found: list[Object] = (await http.get(resource, labelSelector=f"app={name}"))["items"]
    return found


def revisions(sets: list[Object]) -> dict[str, int]:
    """Replicas by revision."""
    return {found["metadata"]["annotations"][REVISION]: found["spec"]["replicas"] for found in sets}


def done(found: Object) -> bool:
    """As `kubectl rollout status` asks."""
    status, wanted = found["status"], found["spec"]["replicas"]
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    counts = {status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")}
    return bool(current and counts == {wanted})


def image(word: str) -> Object:
    """A template that differs by an environment variable."""
    env = [{"name": "WORD", "value": word}]
    return {"spec": {"template": {"spec": {"containers": [shell(FOREVER, env=env)]}}}}


async def test_a_deployment_rolls_out_and_back(http: Http, cluster: Cluster) -> None:
    """Within its bounds all the while, and with a revision for each template."""
    await http.create(DEPLOYMENTS, deployment("roll", replicas=3))
    found = await http.until(DEPLOYMENTS, "roll", "its pods", done)
    assert "unavailableReplicas" not in found["status"] and found["status"]["readyReplicas"] == 3
    available, progressing = conditions(found)["Available"], conditions(found)["Progressing"]
    assert (available["status"], available["reason"]) == ("True", "MinimumReplicasAvailable")
    assert available["message"] == "Deployment has minimum availability."
    (first,) = await listed(http, SETS, "roll")
    name = first["metadata"]["name"]
    assert (progressing["status"], progressing["reason"]) == ("True", "NewReplicaSetAvailable")
    assert progressing["message"] == f'ReplicaSet "{name}" has successfully progressed.'
    template_hash = first["metadata"]["labels"]["pod-template-hash"]
    assert name == f"roll-{template_hash}" and first["spec"]["selector"]["matchLabels"] == {
        "app": "roll",
        "pod-template-hash": template_hash,
    }
    assert first["metadata"]["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
        REVISION: "1",
    }
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await http.patch(DEPLOYMENTS, "roll", {"spec": {**image("two")["spec"], "strategy": strategy}})
    least = 3

    def look(found: Object) -> bool:
        nonlocal least
        least = min(least, found["status"].get("availableReplicas", 0))
        assert found["status"].get("replicas", 0) <= 4
        return done(found)

    found = await http.until(DEPLOYMENTS, "roll", "the second revision", look)
    assert least == 3 and found["metadata"]["annotations"][REVISION] == "2"
    assert revisions(await listed(http, SETS, "roll")) == {"1": 0, "2": 3}
    assert "deployment.apps/roll rolled back" in cluster.kubectl("rollout", "undo", "deployment/roll")
    await http.until(DEPLOYMENTS, "roll", "the first revision again", done)
    assert revisions(await listed(http, SETS, "roll")) == {"2": 0, "3": 3}
    history = cluster.kubectl("rollout", "history", "deployment/roll")
    assert re.findall(r"^\d+", history, re.MULTILINE) == ["2", "3"]
    events = await http.get("events", fieldSelector="involvedObject.name=roll,reason=ScalingReplicaSet")
    assert f"Scaled up replica set {name} from 0 to 3" in {event["message"] for event in events["items"]}
    await http.delete(DEPLOYMENTS, "roll")


async def test_a_rollout_that_does_not_progress(http: Http, cluster: Cluster) -> None:
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    body = deployment("stuck", shell(FOREVER, readinessProbe=never), progressDeadlineSeconds=1)
    await http.create(DEPLOYMENTS, body)
    found = await http.until(
        DEPLOYMENTS, "stuck", "a missed deadline",
        lambda d: conditions(d).get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded",
    )  # fmt: skip
    (one,) = await listed(http, SETS, "stuck")
    progressing = conditions(found)["Progressing"]
    told = f'ReplicaSet "{one["metadata"]["name"]}" has timed out progressing.'
    assert (progressing["status"], progressing["message"]) == ("False", told)
    assert conditions(found)["Available"]["reason"] == "MinimumReplicasUnavailable"
    assert found["status"]["unavailableReplicas"] == 1
    said = cluster.refused("rollout", "status", "deployment/stuck", "--timeout=10s")
    assert 'error: deployment "stuck" exceeded its progress deadline' in said
    await http.delete(DEPLOYMENTS, "stuck")


async def test_a_paused_deployment_keeps_its_template(http: Http, cluster: Cluster) -> None:
    await http.create(DEPLOYMENTS, deployment("paused", replicas=2))
    await http.until(DEPLOYMENTS, "paused", "its pods", done)
    cluster.kubectl("rollout", "pause", "deployment/paused")
    found = await http.until(
        DEPLOYMENTS, "paused", "the pause",
        lambda d: conditions(d)["Progressing"]["reason"] == "DeploymentPaused",
    )  # fmt: skip
    assert conditions(found)["Progressing"]["message"] == "Deployment is paused"
    await http.patch(DEPLOYMENTS, "paused", {"spec": {**image("two")["spec"], "replicas": 3}})
    found = await http.until(DEPLOYMENTS, "paused", "one more", lambda d: d["status"].get("readyReplicas") == 3)
    assert revisions(await listed(http, SETS, "paused")) == {"1": 3} and "updatedReplicas" not in found["status"]
    cluster.kubectl("rollout", "resume", "deployment/paused")
    await http.until(DEPLOYMENTS, "paused", "the second revision", done)
    assert revisions(await listed(http, SETS, "paused")) == {"1": 0, "2": 3}
    await http.delete(DEPLOYMENTS, "paused")


async def test_recreate_never_runs_two_revisions(http: Http) -> None:
    await http.create(DEPLOYMENTS, deployment("again", replicas=2, strategy={"type": "Recreate"}))
    await http.until(DEPLOYMENTS, "again", "its pods", done)
    before = {pod["metadata"]["uid"] for pod in await listed(http, "pods", "again")}
    await http.patch(DEPLOYMENTS, "again", image("two"))

    async def replaced() -> bool:
        uids = {
            pod["metadata"]["uid"]
            for pod in await listed(http, "pods", "again")
            if pod["status"]["phase"] not in ("Succeeded", "Failed")
        }
        assert not (uids & before and uids - before), "old and new pods at once"
        return len(uids - before) == 2

    await eventually("new pods", replaced)
    await http.delete(DEPLOYMENTS, "again")


async def test_history_has_a_limit(http: Http) -> None:
    body = idle_deployment("past", revisionHistoryLimit=1)
    await http.create(DEPLOYMENTS, body)
    for number, word in enumerate(("two", "three", "four"), 2):
        await http.patch(DEPLOYMENTS, "past", image(word))
        revision = str(number)
        await http.until(
            DEPLOYMENTS, "past", f"revision {revision}",
            lambda d, wanted=revision: d["metadata"].get("annotations", {}).get(REVISION) == wanted,
        )  # fmt: skip

    async def few() -> bool:
        return set(revisions(await listed(http, SETS, "past"))) == {"3", "4"}

    await eventually("the old revisions to go", few)
    await http.delete(DEPLOYMENTS, "past")


async def test_pods_are_adopted_and_released(http: Http) -> None:
    """A ReplicaSet owns the pods that its selector means, no more and no less."""
    body = deployment("adopt")
    labels = body["spec"]["template"]["metadata"]["labels"]
    spec = {key: body["spec"][key] for key in ("selector", "template")}
    loose = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose", "labels": labels},
        "spec": pod_spec(shell(FOREVER), restartPolicy="Always"),
    }  # fmt: skip
    await http.create("pods", loose)
    manifest = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "adopt"}}
    made = await http.create(SETS, {**manifest, "spec": {"replicas": 1, **spec}})
    found = await http.until("pods", "loose", "an owner", lambda p: p["metadata"].get("ownerReferences"))
    assert found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    await http.patch("pods", "loose", {"metadata": {"labels": {"app": "free"}}})
    await http.until("pods", "loose", "no owner", lambda p: not p["metadata"].get("ownerReferences"))

    async def another() -> bool:
        return len(await listed(http, "pods", "adopt")) == 1

    await eventually("another pod", another)
    await http.delete(SETS, "adopt", propagationPolicy="Foreground")
    await http.until_gone(SETS, "adopt")
    assert not await listed(http, "pods", "adopt")
    await http.delete("pods", "loose", gracePeriodSeconds=0)


# -- StatefulSets


def stateful(name: str, replicas: int = 2, **spec: Any) -> Object:
    body = deployment(name)
    ready = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    body["spec"]["template"]["spec"]["containers"] = [shell(FOREVER, readinessProbe=ready)]
    body.update(kind="StatefulSet")
    body["spec"] |= {"serviceName": name, "replicas": replicas, **spec}
    return body


def names(pods: list[Object]) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in pods)


async def test_a_stateful_set_goes_in_order(http: Http) -> None:
    await http.create(STATEFUL, stateful("ordered"))

    def in_order(pods: list[Object]) -> bool:
        """The second never starts before the first is ready."""
        if len(pods) == 2:
            first = next(pod for pod in pods if pod["metadata"]["name"] == "ordered-0")
            assert conditions(first)["Ready"]["status"] == "True"
        return len(pods) == 2

    async def both() -> bool:
        return in_order(await listed(http, "pods", "ordered"))

    await eventually("two pods", both)
    found = await http.until(STATEFUL, "ordered", "its pods", lambda s: s["status"].get("readyReplicas") == 2)
    status = found["status"]
    assert status["currentRevision"] == status["updateRevision"] and status["currentReplicas"] == 2
    assert status["availableReplicas"] == status["updatedReplicas"] == status["replicas"] == 2
    pods = await listed(http, "pods", "ordered")
    assert names(pods) == ["ordered-0", "ordered-1"]
    one = next(pod for pod in pods if pod["metadata"]["name"] == "ordered-1")
    assert (one["spec"]["hostname"], one["spec"]["subdomain"]) == ("ordered-1", "ordered")
    labels = one["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == "ordered-1"
    assert labels["apps.kubernetes.io/pod-index"] == "1"
    assert labels["controller-revision-hash"] == status["updateRevision"]
    await http.delete("pods", "ordered-0", gracePeriodSeconds=0)
    await http.until("pods", "ordered-0", "its return", lambda p: p["metadata"]["uid"] not in _uids(pods))
    await http.patch(STATEFUL, "ordered", {"spec": {"replicas": 1}})
    await http.until_gone("pods", "ordered-1")
    assert names(await listed(http, "pods", "ordered")) == ["ordered-0"]
    await http.delete(STATEFUL, "ordered", propagationPolicy="Foreground")
    await http.until_gone(STATEFUL, "ordered")


def _uids(pods: list[Object]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


async def test_a_stateful_set_rolls_from_the_last_to_the_first(http: Http, cluster: Cluster) -> None:
    await http.create(STATEFUL, stateful("rolls", podManagementPolicy="Parallel"))
    found = await http.until(STATEFUL, "rolls", "its pods", lambda s: s["status"].get("readyReplicas") == 2)
    old = found["status"]["currentRevision"]
    partition = {"updateStrategy": {"rollingUpdate": {"partition": 1}}}
    await http.patch(STATEFUL, "rolls", {"spec": {**image("two")["spec"], **partition}})
    found = await http.until(STATEFUL, "rolls", "half of it", lambda s: s["status"].get("updatedReplicas") == 1)
    new = found["status"]["updateRevision"]
    assert new != old == found["status"]["currentRevision"]

    async def halves() -> bool:
        pods = await listed(http, "pods", "rolls")
        hashes = {p["metadata"]["name"]: p["metadata"]["labels"]["controller-revision-hash"] for p in pods}
        return hashes == {"rolls-0": old, "rolls-1": new}

    await eventually("the last pod's update", halves)
    await http.patch(STATEFUL, "rolls", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    cluster.kubectl("rollout", "status", "statefulset/rolls", "--timeout=60s")
    found = await http.until(STATEFUL, "rolls", "the end", lambda s: s["status"]["currentRevision"] == new)
    assert found["status"]["updatedReplicas"] == 2
    assert "statefulset.apps/rolls rolled back" in cluster.kubectl("rollout", "undo", "statefulset/rolls")
    await http.until(STATEFUL, "rolls", "the first revision", lambda s: s["status"]["updateRevision"] == old)
    await http.delete(STATEFUL, "rolls")


async def test_claims_of_a_stateful_set_outlive_it(http: Http) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    await http.create(STATEFUL, stateful("keeps", 1, volumeClaimTemplates=[claim]))
    found = await http.until("pods", "keeps-0", "the pod", lambda p: p["spec"].get("volumes"))
    (volume,) = [volume for volume in found["spec"]["volumes"] if volume["name"] == "data"]
    assert volume["persistentVolumeClaim"] == {"claimName": "data-keeps-0"}
    made = await http.get("persistentvolumeclaims", "data-keeps-0")
    assert made["metadata"]["labels"] == {"app": "keeps"} and "ownerReferences" not in made["metadata"]
    await http.delete(STATEFUL, "keeps", propagationPolicy="Foreground")
    await http.until_gone(STATEFUL, "keeps")
    assert (await http.get("persistentvolumeclaims", "data-keeps-0"))["metadata"]["uid"] == made["metadata"]["uid"]
    await http.delete("persistentvolumeclaims", "data-keeps-0")
