"""What a cluster says about itself: discovery, OpenAPI, versions, and what kubectl makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.client import Cluster, Http, Object, documents
from tests.cluster.objects import idle_deployment

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def aggregated(http: Http, path: str, group: str, version: str = "v1") -> dict[str, Object]:
    """Resources of a group in the aggregated document, by their plural."""
    document = await http.ok("GET", path, accept=AGGREGATED)
    assert (document["kind"], document["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    found = next(item for item in document["items"] if item["metadata"].get("name", "") == group)
    served = next(item for item in found["versions"] if item["version"] == version)
    return {item["resource"]: item for item in served["resources"]}


async def test_the_version_is_one_that_the_suite_speaks_of(http: Http) -> None:
    found = await http.ok("GET", "/version")
    assert (int(found["major"]), int(found["minor"].rstrip("+"))) >= (1, 32)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health_is_a_word(http: Http, path: str) -> None:
    answer = await http.call("GET", path)
    assert (answer.code, answer.body) == (200, "ok")


async def test_aggregated_discovery_tells_verbs_names_and_subresources(http: Http) -> None:
    found = (await aggregated(http, "/apis", "apps"))["deployments"]
    assert found["scope"] == "Namespaced"
    assert found["responseKind"]["kind"] == "Deployment"
    assert found["singularResource"] == "deployment"
    assert found["shortNames"] == ["deploy"]
    assert "all" in found["categories"]
    assert {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"} == set(found["verbs"])
    subresources = {item["subresource"]: item for item in found["subresources"]}
    assert {"scale", "status"} == subresources.keys()
    assert subresources["scale"]["responseKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


async def test_aggregated_discovery_covers_the_core_group(http: Http) -> None:
    found = await aggregated(http, "/api", "")
    assert found["namespaces"]["scope"] == "Cluster"
    subresources = {item["subresource"] for item in found["pods"]["subresources"]}
    assert {"log", "exec", "portforward", "eviction", "binding", "status"} <= subresources


async def test_both_forms_of_discovery_tell_the_same(http: Http) -> None:
    new = await aggregated(http, "/apis", "batch")
    old = await http.ok("GET", "/apis/batch/v1")
    assert old["kind"] == "APIResourceList"
    assert {item["name"] for item in old["resources"] if "/" not in item["name"]} == set(new)


async def test_groups_are_listed_with_their_preferred_version(http: Http) -> None:
    groups = {item["name"]: item for item in (await http.ok("GET", "/apis"))["groups"]}
    assert groups["apps"]["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
    assert {"apps", "batch", "coordination.k8s.io", "rbac.authorization.k8s.io", "apiextensions.k8s.io"} <= set(groups)


async def test_unchanged_discovery_is_not_sent_again(http: Http) -> None:
    first = await http.call("GET", "/apis", accept=AGGREGATED)
    again = await http.call("GET", "/apis", accept=AGGREGATED, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.code, again.body) == (304, "")


async def test_openapi_v3_is_an_index_of_documents(http: Http) -> None:
    index = await http.ok("GET", "/openapi/v3")
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    assert url.startswith("/openapi/v3/apis/apps/v1?hash=")
    document = await http.ok("GET", "/openapi/v3/apis/apps/v1")
    schema = document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    assert {"group": "apps", "kind": "Deployment", "version": "v1"} in schema["x-kubernetes-group-version-kind"]
    operation = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"dryRun", "fieldManager", "fieldValidation"} <= {item["name"] for item in operation["parameters"]}


async def test_openapi_v2_is_one_document(http: Http) -> None:
    document = await http.ok("GET", "/openapi/v2")
    assert document["swagger"] == "2.0"
    container = document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert container["x-kubernetes-patch-merge-key"] == "name"
    assert "/api/v1/namespaces/{namespace}/pods/{name}" in document["paths"]


def test_kubectl_explains_fields(cluster: Cluster) -> None:
    text = cluster.kubectl("explain", "deployment.spec.strategy")
    for words in ("GROUP:", "apps", "KIND:", "Deployment", "FIELD: strategy <DeploymentStrategy>", "rollingUpdate"):
        assert words in text
    assert "<RollingUpdateDeployment>" in text


def test_kubectl_explains_a_whole_tree(cluster: Cluster) -> None:
    assert "maxSurge\t<IntOrString>" in cluster.kubectl("explain", "deployment.spec", "--recursive")


def test_kubectl_says_which_field_does_not_exist(cluster: Cluster) -> None:
    assert 'field "strateg" does not exist' in cluster.refused("explain", "deployment.spec.strateg")


def test_kubectl_lists_resources_by_group_and_verb(cluster: Cluster) -> None:
    names = cluster.kubectl("api-resources", "--api-group=batch", "--verbs=list", "-o", "name").split()
    assert {"cronjobs.batch", "jobs.batch"} <= set(names)


def unknown_field() -> Object:
    manifest = idle_deployment("unknown-field")
    manifest["spec"]["replica"] = 1
    return manifest


def test_the_server_validates_for_kubectl_and_names_unknown_fields(cluster: Cluster) -> None:
    refused = cluster.refused("apply", "-f", "-", stdin=documents(unknown_field()))
    assert "strict decoding error" in refused and 'unknown field "spec.replica"' in refused


def test_kubectl_warns_of_unknown_fields_on_request(cluster: Cluster) -> None:
    done = cluster.run("apply", "--validate=warn", "--dry-run=server", "-f", "-", stdin=documents(unknown_field()))
    assert done.returncode == 0
    assert 'Warning: unknown field "spec.replica"' in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"replicas": "two"}, "cannot be handled as a Deployment"),
        ({"replicas": -1}, "must be greater than or equal to 0"),
    ],
)
def test_the_server_names_wrong_values(cluster: Cluster, change: dict[str, Any], said: str) -> None:
    manifest = idle_deployment("wrong-value")
    manifest["spec"].update(change)
    assert said in cluster.refused("apply", "-f", "-", stdin=documents(manifest))


def test_kubectl_itself_asks_for_kind_and_version(cluster: Cluster) -> None:
    refused = cluster.refused("apply", "-f", "-", stdin=documents({"apiVersion": "apps/v1", "metadata": {"name": "x"}}))
    assert "kind not set" in refused
    nothing = {"apiVersion": "no.such.group/v1", "kind": "Thing", "metadata": {"name": "x"}}
    assert 'no matches for kind "Thing"' in cluster.refused("apply", "-f", "-", stdin=documents(nothing))
