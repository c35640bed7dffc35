"""Quotas: exact amounts, what objects use, what is refused, and a recount that no creation slips past."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mizzen_local import quotas
from mizzen_local.api import limitranges
from mizzen_local.api.direct import DirectClient
from mizzen_local.api.machinery import Machinery, WriteOptions
from mizzen_local.client import ApiError, Resource
from mizzen_local.controllers.catalog import Catalog
from mizzen_local.controllers.informer import Informers
from mizzen_local.controllers.resourcequota import ResourceQuotaController
from mizzen_local.objects import qos_class, rfc3339
from mizzen_local.quantities import Quantity, amounts, texts
from mizzen_local.quotas import QuotaError
from mizzen_local.resources import QUOTAS

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


# -- amounts


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("0", "0"), ("0.5", "500m"), (".5", "500m"), ("5.", "5"), ("1000m", "1"), ("1000", "1k"), ("1500", "1500"),
        ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0.5Ki", "512"), ("1.0001Ki", "1024102400u"), ("12e6", "12e6"),
        ("1E3", "1e3"), ("0.1n", "1n"), ("-3", "-3"), ("+1k", "1k"), ("-1Gi", "-1Gi"), (0.25, "250m"), (7, "7"),
    ],
)  # fmt: skip
def test_amounts_print_as_the_real_server_prints_them(given_text: str | float, kept: str) -> None:
    assert str(Quantity.parse(given_text)) == kept


@pytest.mark.parametrize("text", ["", "much", "1x", "1..2", "--1", "1e", "1 Gi", "Gi"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantities must match|unable to parse"):
        Quantity.parse(text)


@given(st.integers(-(10**21), 10**21), st.sampled_from(["decimal", "binary", "exponent"]))
def test_an_amount_survives_being_printed(nanos: int, form: str) -> None:
    amount = Quantity(nanos, form)
    assert Quantity.parse(str(amount)) == amount


@given(st.lists(st.sampled_from(["100m", "0.1", "1Gi", "3", "250Mi", "1k"]), max_size=20))
def test_sums_are_exact_in_any_order(listed: list[str]) -> None:
    parts = [Quantity.parse(text) for text in listed]
    assert sum(parts, Quantity()) == sum(reversed(parts), Quantity())
    assert sum(parts, Quantity()).nanos == sum(part.nanos for part in parts)


def test_a_sum_keeps_the_form_of_what_was_there() -> None:
    assert str(Quantity() + Quantity.parse("1Gi")) == "1Gi"
    assert str(Quantity.parse("1Gi") + Quantity.parse("1000000000")) == "2073741824"
    assert str(Quantity.parse("1Gi") - Quantity.parse("512Mi")) == "512Mi"


# -- usage


def pod(name: str = "p", *containers: Object, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def container(name: str = "c", requests: Object | None = None, limits: Object | None = None, **more: Any) -> Object:
    resources = {"requests": requests or {}, "limits": limits or {}}
    return {"name": name, "image": "i", "resources": resources, **more}


def quota(name: str, hard: Object, used: Object | None = None, **spec: Any) -> Object:
    status = {"hard": hard, "used": dict.fromkeys(hard, "0") if used is None else used}
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"hard": hard, **spec}, "status": status}


CPU = {"cpu": "1"}
STEPS = [
    container("first", {"cpu": "3"}),
    container("sidecar", {"cpu": "0.5"}, restartPolicy="Always"),
    container("second", {"cpu": "2"}),
]


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        (pod("p", container(requests=CPU), container(requests=CPU)), "2"),
        (pod("p", container(requests=CPU), initContainers=STEPS), "3"),
        (pod("p", container(requests={"cpu": "4"}), initContainers=STEPS), "4500m"),
        (pod("p", container(requests=CPU), overhead={"cpu": "100m"}), "1100m"),
        (pod("p", container(requests=CPU), resources={"requests": {"cpu": "5"}}), "5"),
    ],
)
def test_what_a_pod_requests(spec: Object, cpu: str) -> None:
    assert texts(quotas.pod_total(spec["spec"], "requests")) == {"cpu": cpu}


def test_what_a_pod_uses() -> None:
    requests = {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"}
    found = texts(quotas.usage("/pods", pod("p", container(requests=requests, limits={"cpu": "2"})), NOW))
    assert found == {
        "count/pods": "1", "pods": "1", "cpu": "1", "requests.cpu": "1", "limits.cpu": "2",
        "memory": "1Gi", "requests.memory": "1Gi", "requests.nvidia.com/gpu": "2",
        "hugepages-2Mi": "4Mi", "requests.hugepages-2Mi": "4Mi",
    }  # fmt: skip


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_pods_that_ended_are_only_counted(phase: str) -> None:
    assert texts(quotas.usage("/pods", {**pod(), "status": {"phase": phase}}, NOW)) == {"count/pods": "1"}


def test_a_pod_that_outlives_its_grace_is_free() -> None:
    leaving = pod()
    leaving["metadata"] |= {"deletionTimestamp": rfc3339(NOW), "deletionGracePeriodSeconds": 30}
    assert "pods" in quotas.usage("/pods", leaving, NOW + timedelta(seconds=30))
    assert "pods" not in quotas.usage("/pods", leaving, NOW + timedelta(seconds=31))


@pytest.mark.parametrize(
    ("spec", "balancers", "node_ports"),
    [
        ({"type": "ClusterIP", "ports": [{}]}, 0, 0),
        ({"type": "NodePort", "ports": [{}, {}]}, 0, 2),
        ({"type": "LoadBalancer", "ports": [{}, {}]}, 1, 2),
        ({"type": "LoadBalancer", "ports": [{}, {"nodePort": 1}], "allocateLoadBalancerNodePorts": False}, 1, 1),
        ({"type": "ExternalName"}, 0, 0),
    ],
)
def test_what_a_service_uses(spec: Object, balancers: int, node_ports: int) -> None:
    found = quotas.usage("/services", {"metadata": {"name": "s"}, "spec": spec}, NOW)
    assert found["services.loadbalancers"] == Quantity.count(balancers)
    assert found["services.nodeports"] == Quantity.count(node_ports)


def test_what_a_claim_uses() -> None:
    spec = {"storageClassName": "fast", "resources": {"requests": {"storage": "1.5"}}}
    assert texts(quotas.usage("/persistentvolumeclaims", {"metadata": {}, "spec": spec}, NOW)) == {
        "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2",
        "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "fast.storageclass.storage.k8s.io/requests.storage": "2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("pods", "/pods"), ("limits.memory", "/pods"), ("requests.nvidia.com/gpu", "/pods"),
        ("count/pods", "/pods"), ("services.nodeports", "/services"), ("requests.storage", "/persistentvolumeclaims"),
        ("fast.storageclass.storage.k8s.io/requests.storage", "/persistentvolumeclaims"), ("secrets", "/secrets"),
        ("count/secrets", "/secrets"), ("count/jobs.batch", "batch/jobs"), ("count/a.b.c", "b.c/a"), ("odd", None),
    ],
)  # fmt: skip
def test_which_resource_a_name_counts(name: str, resource: str | None) -> None:
    assert quotas.resource_counted(name) == resource
    assert resource is None or quotas.counts(resource, name)


# -- admission


def spent(quotas_: list[Object], obj: Object, old: Object | None = None, bucket: str = "/pods") -> dict[str, Object]:
    return {
        charge.quota["metadata"]["name"]: texts(charge.used)
        for charge in quotas.charges(quotas_, bucket, obj, old, NOW)
    }


def test_every_quota_that_counts_the_object_is_charged() -> None:
    listed = [
        quota("a", {"pods": "2", "secrets": "1"}, {"pods": "1", "secrets": "0"}),
        quota("b", {"requests.cpu": "1"}, {"requests.cpu": "300m"}),
        quota("c", {"secrets": "1"}),
        quota("d", {"pods": "0"}, scopes=["Terminating"]),
        {**quota("e", {"pods": "0"}), "status": {}},  # nobody knows yet what is in use
    ]
    found = spent(listed, pod("p", container(requests={"cpu": "200m"})))
    assert found == {"a": {"pods": "2", "secrets": "0"}, "b": {"requests.cpu": "500m"}}


@pytest.mark.parametrize(
    ("limits", "subject", "why"),
    [
        (
            quota("q", {"pods": "1", "requests.cpu": "1"}, {"pods": "1", "requests.cpu": "500m"}),
            pod("p", container(requests=CPU)),
            "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=1,requests.cpu=500m,"
            " limited: pods=1,requests.cpu=1",
        ),
        (
            quota("q", {"pods": "1", "requests.cpu": "1"}, {"pods": "1", "requests.cpu": "0"}),
            pod("p", container(requests=CPU)),
            "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
        ),
        (
            quota("q", {"cpu": "1", "limits.memory": "1"}),
            pod("p", container("a"), container("b", CPU)),
            "failed quota: q: must specify cpu for: a; limits.memory for: a,b",
        ),
        (quota("q", {"pods": "1", "cpu": "1"}, {"cpu": "0"}), pod("p", container(requests=CPU)),
         "status unknown for quota: q, resources: cpu,pods"),
    ],
)  # fmt: skip
def test_refusals(limits: Object, subject: Object, why: str) -> None:
    with pytest.raises(QuotaError) as refused:
        spent([limits], subject)
    assert str(refused.value) == why


def test_an_update_pays_the_difference() -> None:
    old = {"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "ports": [{}]}}
    new = {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{}]}}
    limits = quota("q", {"services": "1", "services.nodeports": "1"}, {"services": "1", "services.nodeports": "0"})
    assert spent([limits], new, old, "/services") == {"q": {"services": "1", "services.nodeports": "1"}}
    assert spent([limits], old, new, "/services") == {}


def test_a_pod_that_moves_into_a_scope_pays_there() -> None:
    limits = quota("q", {"pods": "1"}, scopes=["Terminating"])
    late = pod(activeDeadlineSeconds=5)
    assert quotas.is_metered("/pods", late, pod()) and not quotas.is_metered("/pods", pod(), pod())
    assert spent([limits], late, pod()) == {"q": {"pods": "1"}}


PRIORITY = {"scopeName": "PriorityClass"}


@pytest.mark.parametrize(
    ("spec", "subject", "inside"),
    [
        ({"scopes": ["BestEffort"]}, pod(), True),
        ({"scopes": ["BestEffort"]}, pod("p", container(requests=CPU)), False),
        ({"scopes": ["NotBestEffort", "NotTerminating"]}, pod("p", container(requests=CPU)), True),
        ({"scopes": ["NotBestEffort", "Terminating"]}, pod("p", container(requests=CPU)), False),
        ({"scopes": ["PriorityClass"]}, pod(), False),
        ({"scopes": ["PriorityClass"]}, pod(priorityClassName="high"), True),
        ({"scopeSelector": {"matchExpressions": [{**PRIORITY, "operator": "In", "values": ["high"]}]}},
         pod(priorityClassName="high"), True),
        ({"scopeSelector": {"matchExpressions": [{**PRIORITY, "operator": "NotIn", "values": ["high"]}]}},
         pod(priorityClassName="high"), False),
        ({"scopeSelector": {"matchExpressions": [{**PRIORITY, "operator": "NotIn", "values": ["high"]}]}},
         pod(), True),
        ({"scopeSelector": {"matchExpressions": [{**PRIORITY, "operator": "DoesNotExist"}]}}, pod(), True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, pod(), False),
        ({"scopes": ["CrossNamespacePodAffinity"]}, pod(affinity={"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]}}), True),
    ],
)  # fmt: skip
def test_scopes(spec: Object, subject: Object, inside: bool) -> None:
    assert quotas.in_scope(quota("q", {"pods": "1"}, **spec), "/pods", subject) is inside


@pytest.mark.parametrize(
    ("containers", "qos"),
    [
        ([container()], "BestEffort"),
        ([container(limits={"nvidia.com/gpu": "1"})], "BestEffort"),
        ([container(requests=CPU)], "Burstable"),
        ([container(requests={"cpu": "1", "memory": "1"}, limits={"cpu": "1000m", "memory": "1"})], "Guaranteed"),
        ([container(requests={"cpu": "1", "memory": "1"}, limits={"cpu": "2", "memory": "1"})], "Burstable"),
        ([container(requests=CPU), container()], "Burstable"),
    ],
)
def test_quality_of_service(containers: list[Object], qos: str) -> None:
    assert qos_class({"containers": containers}) == qos


# -- limit ranges


@pytest.mark.parametrize(
    ("limit", "subject", "told"),
    [
        ({"type": "Container", "min": {"cpu": "2"}}, container(),
         ["minimum cpu usage per Container is 2.  No request is specified"]),
        ({"type": "Container", "max": {"cpu": "500m"}}, container(),
         ["maximum cpu usage per Container is 500m.  No limit is specified"]),
        ({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "1"}}, container(requests=CPU, limits=CPU), []),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
         container(requests=CPU, limits={"cpu": "2500m"}),
         ["cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000"]),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}, container(limits=CPU),
         ["cpu max limit to request ratio per Container is 2, but no request is specified or request is 0"]),
        ({"type": "Pod", "max": {"memory": "1Gi"}}, container(limits={"memory": "2Gi"}),
         ["maximum memory usage per Pod is 1Gi, but limit is 2Gi"]),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "1"}}, container(), []),
    ],
)  # fmt: skip
def test_bounds(limit: Object, subject: Object, told: list[str]) -> None:
    assert list(limitranges.problems([limit], "pods", {"containers": [subject]})) == told


# -- the API server and the controller


SECRETS = Resource("", "v1", "secrets")


def create(machinery: Machinery, plural: str, body: Object, **options: Any) -> Object:
    info = machinery.registry.get("", "v1", plural)
    assert info is not None
    found: Object = machinery.create(info, "default", body, WriteOptions(**options)).obj
    return found


def secret(name: str) -> Object:
    return {"metadata": {"name": name}}


def limit(machinery: Machinery, hard: Object) -> None:
    create(machinery, "resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})


class Counted:
    """A controller without its loop: the test says when it looks."""

    def __init__(self, machinery: Machinery) -> None:
        self.machinery = machinery
        self.client = DirectClient(machinery)
        self.informers = Informers(self.client)
        self.controller = ResourceQuotaController(self.client, self.informers, Catalog(self.informers))

    async def recount(self) -> dict[str, str]:
        await self.controller.reconcile(("default", "q"))
        return self.used()

    def used(self) -> dict[str, str]:
        entry = self.machinery.store.get("/resourcequotas", "default", "q")
        assert entry is not None
        found: dict[str, str] = entry.obj["status"]["used"]
        return found


@pytest.fixture
async def counted(machinery: Machinery) -> AsyncIterator[Counted]:
    found = Counted(machinery)
    await found.informers.wait_synced()
    yield found
    await found.informers.stop()


async def test_a_recount_finds_what_went_and_what_was_there(counted: Counted) -> None:
    create(counted.machinery, "secrets", secret("before"))
    limit(counted.machinery, {"secrets": "3", "count/odd.example.com": "1"})
    assert await counted.recount() == {"secrets": "1"}
    create(counted.machinery, "secrets", secret("b"))
    create(counted.machinery, "secrets", secret("c"), dry_run=True)
    assert counted.used() == {"secrets": "2"}
    await counted.client.delete(SECRETS, "before", "default")
    assert counted.used() == {"secrets": "2"}
    assert await counted.recount() == {"secrets": "1"}


async def test_a_refusal_or_a_name_that_is_taken_costs_nothing(counted: Counted) -> None:
    limit(counted.machinery, {"secrets": "2"})
    await counted.recount()
    create(counted.machinery, "secrets", secret("a"))
    for body, code in ((secret("a"), 409), ({"metadata": {"name": "b"}, "data": {"/": ""}}, 422)):
        with pytest.raises(ApiError) as refused:
            create(counted.machinery, "secrets", body)
        assert refused.value.code == code and counted.used() == {"secrets": "1"}
    create(counted.machinery, "secrets", secret("b"))
    with pytest.raises(ApiError, match="exceeded quota: q, requested: secrets=1, used: secrets=2, limited: secrets=2"):
        create(counted.machinery, "secrets", secret("c"))


async def test_a_creation_during_a_recount_is_not_forgotten(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(counted.machinery, {"secrets": "5"})
    await counted.recount()
    await counted.client.patch(QUOTAS, "q", {"spec": {"hard": {"secrets": "6"}}}, "default")
    listing = counted.client.list

    async def interrupted(*args: Any, **options: Any) -> Object:
        found = await listing(*args, **options)
        create(counted.machinery, "secrets", secret("meanwhile"))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(counted.client, "list", interrupted)
        with pytest.raises(ApiError) as stale:
            await counted.recount()
    assert stale.value.code == 409 and counted.used() == {"secrets": "1"}
    assert await counted.recount() == {"secrets": "1"}


async def test_what_every_namespace_has_comes_back_although_the_quota_is_spent(counted: Counted) -> None:
    limit(counted.machinery, {"count/serviceaccounts": "1"})
    assert await counted.recount() == {"count/serviceaccounts": "1"}
    await counted.client.delete(Resource("", "v1", "serviceaccounts"), "default", "default")
    assert counted.machinery.store.get("/serviceaccounts", "default", "default") is not None
    assert await counted.recount() == {"count/serviceaccounts": "1"}


def test_amounts_of_a_list() -> None:
    assert amounts(None) == {}
    assert texts(amounts({"cpu": "1000m"})) == {"cpu": "1"}
