"""What limits a namespace: ResourceQuota, counted and enforced, and LimitRange. Its pods never start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.cluster.client import Cluster, Http, eventually
from tests.cluster.objects import IMAGE, Object, conditions, deployment, job, pod, service

NOWHERE = {"mizzen.test/nowhere": "true"}


@pytest.fixture
async def space(own: Cluster) -> AsyncIterator[Http]:
    """A namespace for one test alone: a quota holds for everything in it."""
    async with await Http.connect(own) as client:
        yield client


def quota(name: str, hard: dict[str, str], **spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard, **spec}}


def idle(
    name: str, requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, **spec: Any
) -> Object:
    """A pod that no node runs."""
    resources = {"requests": requests or {}, "limits": limits or {}}
    return pod(name, {"name": "c", "image": IMAGE, "resources": resources}, nodeSelector=NOWHERE, **spec)


def secret(name: str) -> Object:
    """Of these a new namespace has none."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}


async def limited(space: Http, name: str, hard: dict[str, str], **spec: Any) -> Object:
    """Create a quota and wait until its usage is counted: before that nothing is enforced."""
    await space.create("resourcequotas", quota(name, hard, **spec))

    def counted(found: Object) -> bool:
        status = found.get("status", {})
        return bool(status.get("hard") == found["spec"]["hard"] and set(status.get("used", {})) == set(hard))

    # a real server looks for new kinds every half minute, longer where one has just gone
    return await space.until("resourcequotas", name, "the first count", counted, 240.0)


async def used(space: Http, name: str) -> dict[str, str]:
    found: dict[str, str] = (await space.get("resourcequotas", name))["status"]["used"]
    return found


async def refused(space: Http, resource: str, body: Object) -> str:
    answer = await space.call("POST", space.path(resource), body)
    assert (answer.code, answer.reason) == (403, "Forbidden"), answer.body
    assert answer.body["details"]["name"] == body["metadata"]["name"]
    return answer.message


async def test_compute_is_counted_in_the_form_that_a_reader_expects(space: Http) -> None:
    hard = {
        "requests.cpu": "1000m", "limits.memory": "1Gi", "memory": "2Gi", "pods": "3",
        "requests.mizzen.test/chips": "3", "count/pods": "10",
    }  # fmt: skip
    found = await limited(space, "compute", hard | {"requests.cpu": "1"})
    assert found["status"]["used"] == dict.fromkeys(hard, "0")
    chips = {"mizzen.test/chips": "2"}
    await space.create("pods", idle("a", {"cpu": "0.25", "memory": "512Mi", **chips}, {"memory": "768Mi", **chips}))
    assert await used(space, "compute") == {
        "requests.cpu": "250m", "limits.memory": "768Mi", "memory": "512Mi", "pods": "1",
        "requests.mizzen.test/chips": "2", "count/pods": "1",
    }  # fmt: skip
    assert await refused(space, "pods", idle("b", {"cpu": "1500m", "memory": "1Gi"}, {"memory": "1Gi"})) == (
        'pods "b" is forbidden: exceeded quota: compute, requested: limits.memory=1Gi,requests.cpu=1500m,'
        " used: limits.memory=768Mi,requests.cpu=250m, limited: limits.memory=1Gi,requests.cpu=1"
    )
    small = {"cpu": "1m", "memory": "1Mi"}
    assert await refused(space, "pods", idle("c", small | chips, {"memory": "1Mi", **chips})) == (
        'pods "c" is forbidden: exceeded quota: compute, requested: requests.mizzen.test/chips=2,'
        " used: requests.mizzen.test/chips=2, limited: requests.mizzen.test/chips=3"
    )
    await space.create("pods", idle("d", {"cpu": "750m", "memory": "256Mi"}, {"memory": "256Mi"}))
    assert (await used(space, "compute"))["requests.cpu"] == "1"
    await space.delete("pods", "a")
    await space.until(
        "resourcequotas", "compute", "what went to be free", lambda q: q["status"]["used"]["requests.cpu"] == "750m"
    )
    await space.create("pods", idle("c", small | chips, {"memory": "1Mi", **chips}))


async def test_kubectl_shows_what_is_used(space: Http, own: Cluster) -> None:
    await limited(space, "q", {"secrets": "2", "pods": "1", "limits.cpu": "1"})
    await space.create("secrets", secret("a"))
    heads, row = own.kubectl("get", "quota").splitlines()
    assert heads.split() == ["NAME", "REQUEST", "LIMIT", "AGE"]
    assert row.startswith("q      pods: 0/1, secrets: 1/2   limits.cpu: 0/1   ")
    described = own.kubectl("describe", "quota", "q")
    assert [line.split() for line in described.splitlines()[-3:]] == [
        ["limits.cpu", "0", "1"], ["pods", "0", "1"], ["secrets", "1", "2"],
    ]  # fmt: skip


async def test_a_quota_of_compute_wants_every_container_to_ask(space: Http) -> None:
    await limited(space, "compute", {"requests.cpu": "1", "limits.cpu": "2", "requests.memory": "1Gi"})
    body = idle("a", {"cpu": "1"})
    body["spec"]["initContainers"] = [{"name": "first", "image": IMAGE}]
    assert await refused(space, "pods", body) == (
        'pods "a" is forbidden: failed quota: compute: must specify limits.cpu for: c,first; requests.cpu for: first;'
        " requests.memory for: c,first"
    )


async def test_objects_are_counted(space: Http) -> None:
    hard = {
        "secrets": "0", "services": "1", "services.loadbalancers": "0", "count/jobs.batch": "1",
        "count/deployments.apps": "0", "persistentvolumeclaims": "1", "requests.storage": "1Gi",
    }  # fmt: skip
    found = await limited(space, "objects", hard)
    assert found["status"]["used"] == dict.fromkeys(hard, "0")

    def exceeded(plural: str, name: str, resource: str, requested: str, used: str) -> str:
        return (
            f'{plural} "{name}" is forbidden: exceeded quota: objects, requested: {resource}={requested},'
            f" used: {resource}={used}, limited: {resource}={hard[resource]}"
        )

    assert await refused(space, "secrets", secret("s")) == exceeded("secrets", "s", "secrets", "1", "0")
    body = deployment("d", replicas=0)
    answer = exceeded("deployments.apps", "d", "count/deployments.apps", "1", "0")
    assert await refused(space, "apps/v1/deployments", body) == answer
    await space.create("batch/v1/jobs", job("one", "true", suspend=True))
    answer = exceeded("jobs.batch", "two", "count/jobs.batch", "1", "1")
    assert await refused(space, "batch/v1/jobs", job("two", "true", suspend=True)) == answer
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "nowhere",
            "resources": {"requests": {"storage": "2Gi"}},
        },
    }  # fmt: skip
    answer = exceeded("persistentvolumeclaims", "c", "requests.storage", "2Gi", "0")
    assert await refused(space, "persistentvolumeclaims", claim) == answer
    await space.create("services", service("web"))
    more = await space.call(
        "PATCH", space.path("services", "web"), {"spec": {"type": "LoadBalancer"}},
        media="application/merge-patch+json",
    )  # fmt: skip
    assert more.message == exceeded("services", "web", "services.loadbalancers", "1", "0")
    # the same name again: the quota is asked first
    assert await refused(space, "services", service("web")) == exceeded("services", "web", "services", "1", "1")


async def test_requests_at_once_never_spend_the_same(space: Http) -> None:
    await limited(space, "few", {"secrets": "3"})
    tried = [space.call("POST", space.path("secrets"), secret(f"s{n}")) for n in range(12)]
    codes = [answer.code for answer in await asyncio.gather(*tried)]
    assert sorted(codes) == [201] * 3 + [403] * 9
    assert await used(space, "few") == {"secrets": "3"}


async def test_a_dry_run_is_judged_but_spends_nothing(space: Http) -> None:
    await limited(space, "one", {"secrets": "1"})
    for name in ("a", "b"):
        await space.create("secrets", secret(name), dryRun="All")
    assert await used(space, "one") == {"secrets": "0"}
    await space.create("secrets", secret("a"))
    answer = await space.call("POST", space.path("secrets"), secret("b"), dryRun="All")
    assert answer.code == 403


async def test_custom_resources_are_counted(space: Http, define: Callable[..., str]) -> None:
    path = define({"type": "object"})
    group = path.partition("/")[0]
    name = f"count/widgets.{group}"
    await limited(space, "widgets", {name: "1"})
    body = {"apiVersion": path, "kind": "Widget", "metadata": {"name": "a"}}
    await space.create(f"{path}/widgets", body)
    body["metadata"] = {"name": "b"}
    assert await refused(space, f"{path}/widgets", body) == (
        f'widgets.{group} "b" is forbidden: exceeded quota: widgets, requested: {name}=1, used: {name}=1,'
        f" limited: {name}=1"
    )


async def test_scopes_tell_which_pods_count(space: Http) -> None:
    classes = [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}]
    await limited(space, "best-effort", {"pods": "0"}, scopes=["BestEffort"])
    await limited(space, "not-best-effort", {"pods": "5"}, scopes=["NotBestEffort"])
    await limited(space, "terminating", {"pods": "1", "requests.cpu": "1"}, scopes=["Terminating"])
    await limited(space, "critical", {"pods": "0"}, scopeSelector={"matchExpressions": classes})
    assert "exceeded quota: best-effort, requested: pods=1" in await refused(space, "pods", idle("a"))
    some = {"cpu": "100m"}
    await space.create("pods", idle("b", some))
    await space.create("pods", idle("c", some, activeDeadlineSeconds=600))
    assert await used(space, "not-best-effort") == {"pods": "2"}
    assert await used(space, "terminating") == {"pods": "1", "requests.cpu": "100m"}
    message = await refused(space, "pods", idle("d", some, activeDeadlineSeconds=600))
    assert "exceeded quota: terminating, requested: pods=1, used: pods=1, limited: pods=1" in message
    message = await refused(space, "pods", idle("e", some, priorityClassName="system-node-critical"))
    assert "exceeded quota: critical, requested: pods=1, used: pods=0, limited: pods=0" in message
    # a pod that gets a deadline moves into the other scope
    late = await space.call(
        "PATCH", space.path("pods", "b"), {"spec": {"activeDeadlineSeconds": 600}},
        media="application/merge-patch+json",
    )  # fmt: skip
    assert late.code == 403 and "exceeded quota: terminating" in late.message


async def test_a_changed_limit_holds_and_usage_may_lie_above_it(space: Http) -> None:
    await limited(space, "few", {"count/secrets": "3"})
    for name in ("a", "b"):
        await space.create("secrets", secret(name))
    await space.patch("resourcequotas", "few", {"spec": {"hard": {"count/secrets": "1"}}})
    await space.until(
        "resourcequotas", "few", "the new limit", lambda found: found["status"]["hard"] == {"count/secrets": "1"}
    )
    assert await used(space, "few") == {"count/secrets": "2"}
    message = await refused(space, "secrets", secret("c"))
    assert message.endswith("requested: count/secrets=1, used: count/secrets=2, limited: count/secrets=1")


async def test_a_replica_set_says_why_it_cannot_create_its_pods(space: Http, own: Cluster) -> None:
    await limited(space, "none", {"pods": "0"})
    await space.create("apps/v1/deployments", deployment("d"))

    async def failing() -> Object | None:
        found = await space.get("apps/v1/replicasets", labelSelector="app=d")
        return next((conditions(rs).get("ReplicaFailure") for rs in found["items"]), None)

    failure = await eventually("the ReplicaSet's complaint", failing)
    assert (failure["status"], failure["reason"]) == ("True", "FailedCreate")
    assert "is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0" in failure["message"]
    await eventually("the event", lambda: "Error creating: pods" in own.kubectl("get", "events", "-o", "wide"))
    found = await space.until(
        "apps/v1/deployments", "d", "the Deployment's complaint", lambda found: "ReplicaFailure" in conditions(found)
    )
    complaint = conditions(found)["ReplicaFailure"]
    assert (complaint["reason"], complaint["message"]) == ("FailedCreate", failure["message"])


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {"hard": {"bananas": "1"}},
            '[spec.hard[bananas]: Invalid value: "bananas": must be a standard resource type or fully qualified,'
            ' spec.hard[bananas]: Invalid value: "bananas": must be a standard resource for quota]',
        ),
        ({"hard": {"cpu": "-1"}}, 'spec.hard[cpu]: Invalid value: "-1": must be greater than or equal to 0'),
        ({"hard": {"pods": "500m"}}, 'spec.hard[pods]: Invalid value: "500m": must be an integer'),
        ({"hard": {"pods": "1"}, "scopes": ["Odd"]}, 'spec.scopes: Invalid value: ["Odd"]: unsupported scope'),
        (
            {"hard": {"configmaps": "1"}, "scopes": ["Terminating"]},
            'spec.scopes: Invalid value: ["Terminating"]: unsupported scope applied to resource',
        ),
        (
            {"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]},
            'spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes',
        ),
    ],
)
async def test_quotas_that_make_no_sense(http: Http, spec: Object, problem: str) -> None:
    body = quota("odd", {}, **spec) if "hard" not in spec else quota("odd", **spec)
    answer = await http.call("POST", http.path("resourcequotas"), body)
    assert answer.code == 422
    assert answer.message == f'ResourceQuota "odd" is invalid: {problem}'


async def test_amounts_that_cannot_be_read(http: Http) -> None:
    answer = await http.call("POST", http.path("resourcequotas"), quota("odd", {"cpu": "much"}))
    assert answer.code == 400
    assert answer.message == (
        'ResourceQuota in version "v1" cannot be handled as a ResourceQuota: quantities must match the regular'
        " expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )


async def test_a_limit_range_fills_in_and_bounds(space: Http) -> None:
    limits = [
        {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "16Mi"}, "defaultRequest": {"cpu": "0.1"},
         "default": {"memory": "64Mi"}},
        {"type": "Pod", "max": {"cpu": "3"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]  # fmt: skip
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": limits}}
    made = await space.create("limitranges", body)
    assert made["spec"]["limits"][0] == {
        "type": "Container", "max": {"cpu": "2"}, "min": {"memory": "16Mi"},
        "default": {"cpu": "2", "memory": "64Mi"}, "defaultRequest": {"cpu": "100m", "memory": "64Mi"},
    }  # fmt: skip

    async def filled() -> Object | None:
        """The real server's admission sees a new LimitRange a moment later."""
        found = await space.create("pods", idle("a"), dryRun="All")
        return found if found["spec"]["containers"][0]["resources"] else None

    found = await eventually("the LimitRange to be in force", filled)
    assert found["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "64Mi"},
    }  # fmt: skip
    assert found["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    )
    assert found["status"]["qosClass"] == "Burstable"
    message = await refused(space, "pods", idle("b", {"cpu": "2", "memory": "1Mi"}, {"cpu": "2500m"}))
    assert message == (
        'pods "b" is forbidden: [minimum memory usage per Container is 16Mi, but request is 1Mi,'
        " maximum cpu usage per Container is 2, but limit is 2500m]"
    )
    pair = idle("c", {"cpu": "1"}, {"cpu": "2"})
    pair["spec"]["containers"].append({**pair["spec"]["containers"][0], "name": "d"})
    assert await refused(space, "pods", pair) == 'pods "c" is forbidden: maximum cpu usage per Pod is 3, but limit is 4'
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }  # fmt: skip
    assert await refused(space, "persistentvolumeclaims", claim) == (
        'persistentvolumeclaims "c" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi,'
        " but request is 2Gi"
    )
