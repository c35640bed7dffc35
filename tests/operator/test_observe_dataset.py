"""What is looked up for a Dataset beyond its children: servers to compare with, Secrets, the token of its cluster."""

from __future__ import annotations

from typing import Any

from mizzen_api.contract import LABEL_KIND, LABEL_NAME, LABEL_ROLE, ROLE_SERVER
from mizzen_operator.observe import Observer
from mizzen_operator.observed import Observed
from mizzen_operator.testing import InMemoryCluster, InMemoryRegistry, InMemoryWorkloads
from tests.operator.builders import SETTINGS, dataset


async def seen(cluster: InMemoryCluster, **spec: Any) -> Observed:
    observer = Observer(cluster, InMemoryWorkloads(), InMemoryRegistry(), SETTINGS)
    return await observer.observe(dataset(**spec), {})


def server(cluster: InMemoryCluster, service: str, ip: str, *, ready: bool = True) -> None:
    labels = {LABEL_KIND: "ModelService", LABEL_NAME: service, LABEL_ROLE: ROLE_SERVER}
    conditions = [{"type": "Ready", "status": str(ready)}]
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{service}-{ip}", "labels": labels},
            "status": {"phase": "Running", "podIP": ip, "conditions": conditions},
        }
    )


async def test_servers_are_those_of_the_named_service_that_are_ready():
    cluster = InMemoryCluster()
    server(cluster, "tweets", "10.0.0.2")
    server(cluster, "tweets", "10.0.0.1")
    server(cluster, "tweets", "10.0.0.3", ready=False)
    server(cluster, "others", "10.0.0.4")
    live = {"reference": "modelservice", "modelServiceRef": {"name": "tweets"}}
    assert (await seen(cluster, drift=live)).servers == ("10.0.0.1:8090", "10.0.0.2:8090")
    assert (await seen(cluster, drift={})).servers == ()


async def test_secrets_that_are_not_there_are_named():
    cluster = InMemoryCluster()
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket"}})
    sources = [
        {"uri": "s3://raw/x.csv", "secretRef": {"name": "bucket"}},
        {"uri": "https://x/y.csv", "secretRef": {"name": "web"}},
        {"sql": {"query": "SELECT 1", "secretRef": {"name": "shop"}}},
    ]
    assert (await seen(cluster, sources=sources)).missing_secrets == ("shop", "web")


async def test_a_token_is_made_for_a_cluster_only_and_once():
    cluster = InMemoryCluster()
    first = await seen(cluster, engine="ray")
    assert (first.has_token, len(first.fresh_token)) == (False, 64)
    owner = {"apiVersion": "mizzen.dev/v1alpha1", "kind": "Dataset", "name": "tweets", "uid": "uid-tweets"}
    cluster._objects["Secret", "default", "tweets-data-ray"] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tweets-data-ray", "ownerReferences": [{**owner, "controller": True}]},
    }
    assert (await seen(cluster, engine="ray")).has_token
    assert not (await seen(cluster)).has_token, "nobody asks where there is no cluster"
