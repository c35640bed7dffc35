"""Deletion: finalizers, what becomes of dependents, preconditions, collections, and namespaces that empty."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cluster.client import MERGE, Answer, Cluster, Http, Object, eventually
from tests.cluster.objects import IMAGE, config_map, idle_deployment, pod

HOLD = "a.test/hold"


def owned_by(owner: Object, called: str, **more: Any) -> Object:
    reference = {"apiVersion": owner.get("apiVersion", "v1"), "kind": owner.get("kind", "ConfigMap")}
    reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], **more}
    body = config_map(called)
    body["metadata"]["ownerReferences"] = [reference]
    return body


def held(name: str) -> Object:
    body = config_map(name)
    body["metadata"]["finalizers"] = [HOLD]
    return body


async def release(http: Http, name: str) -> Answer:
    return await http.call("PATCH", http.path("configmaps", name), {"metadata": {"finalizers": None}}, media=MERGE)


async def is_gone(http: Http, name: str) -> bool:
    return (await http.call("GET", http.path("configmaps", name))).code == 404


async def test_a_deletion_answers_with_a_status(http: Http) -> None:
    made = await http.create("configmaps", config_map("simple"))
    found = await http.delete("configmaps", "simple")
    assert (found["kind"], found["status"]) == ("Status", "Success")
    assert found["details"] == {"name": "simple", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    answer = await http.call("DELETE", http.path("configmaps", "simple"))
    assert (answer.code, answer.reason, answer.message) == (404, "NotFound", 'configmaps "simple" not found')


async def test_a_finalizer_holds_an_object(http: Http) -> None:
    await http.create("configmaps", held("held"))
    found = await http.delete("configmaps", "held")
    assert found["kind"] == "ConfigMap" and found["metadata"]["deletionTimestamp"]
    assert found["metadata"]["deletionGracePeriodSeconds"] == 0
    again = await http.delete("configmaps", "held")
    assert again["metadata"]["deletionTimestamp"] == found["metadata"]["deletionTimestamp"]
    # it can still be changed, but nobody may hold it longer
    assert (await http.patch("configmaps", "held", {"data": {"a": "1"}}))["data"] == {"a": "1"}
    more = {"metadata": {"finalizers": [HOLD, "a.test/more"]}}
    answer = await http.call("PATCH", http.path("configmaps", "held"), more, media=MERGE)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert "no new finalizers can be added if the object is being deleted" in answer.message
    answer = await http.call("POST", http.path("configmaps"), config_map("held"))
    assert (answer.code, answer.reason) == (409, "AlreadyExists")
    assert "object is being deleted: " in answer.message
    assert (await release(http, "held")).code == 200
    assert await is_gone(http, "held")


async def test_a_watch_sees_an_object_marked_and_then_gone(http: Http) -> None:
    made = await http.create("configmaps", held("watched"))
    await http.delete("configmaps", "watched")
    await release(http, "watched")
    query = {"resourceVersion": made["metadata"]["resourceVersion"], "fieldSelector": "metadata.name=watched"}
    seen = await http.seen(http.path("configmaps"), 2, **query)
    assert [event for event, _ in seen] == ["MODIFIED", "DELETED"]


@pytest.mark.parametrize(("field", "label"), [("uid", "UID"), ("resourceVersion", "ResourceVersion")])
async def test_preconditions_guard_a_deletion(http: Http, field: str, label: str) -> None:
    name = f"guarded-{field.lower()}"
    made = await http.create("configmaps", config_map(name))
    options = {"preconditions": {field: "1"}}
    answer = await http.call("DELETE", http.path("configmaps", name), options)
    assert (answer.code, answer.reason) == (409, "Conflict")
    assert f"the {label} in the precondition (1) does not match the {label} in record" in answer.message
    await http.delete("configmaps", name, preconditions={field: made["metadata"][field]})
    assert await is_gone(http, name)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"propagationPolicy": "Sideways"}, 422, "propagationPolicy: Unsupported value"),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422, "orphanDependents and deletionPropagation"),
        ({"dryRun": ["Some"]}, 422, "dryRun: Unsupported value"),
        ({"gracePeriodSeconds": "soon"}, 400, "cannot unmarshal string"),
    ],
)
async def test_options_are_checked(http: Http, options: Object, code: int, said: str) -> None:
    await http.call("POST", http.path("configmaps"), config_map("optional"))
    answer = await http.call("DELETE", http.path("configmaps", "optional"), options)
    assert answer.code == code, answer.body
    assert said in answer.message


async def test_a_dry_run_deletes_nothing(http: Http) -> None:
    await http.create("configmaps", held("dry"))
    await http.delete("configmaps", "dry", dryRun=["All"])
    assert "deletionTimestamp" not in (await http.get("configmaps", "dry"))["metadata"]
    await release(http, "dry")
    await http.ok("DELETE", http.path("configmaps", "dry"), dryRun="All")
    assert (await http.get("configmaps", "dry"))["metadata"]["name"] == "dry"


async def test_dependents_follow_in_the_background(http: Http) -> None:
    owner = await http.create("configmaps", config_map("back-owner"))
    await http.create("configmaps", owned_by(owner, "back-child"))
    found = await http.delete("configmaps", "back-owner", propagationPolicy="Background")
    assert found["status"] == "Success"
    assert await is_gone(http, "back-owner")
    await http.until_gone("configmaps", "back-child")


async def test_an_owner_waits_in_the_foreground(http: Http) -> None:
    owner = await http.create("configmaps", config_map("front-owner"))
    child = owned_by(owner, "front-child", blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = [HOLD]
    await http.create("configmaps", child)
    found = await http.delete("configmaps", "front-owner", propagationPolicy="Foreground")
    assert found["metadata"]["finalizers"] == ["foregroundDeletion"]
    await http.until("configmaps", "front-child", "deletion", lambda it: "deletionTimestamp" in it["metadata"])
    assert not await is_gone(http, "front-owner")
    await release(http, "front-child")
    await http.until_gone("configmaps", "front-owner")
    assert await is_gone(http, "front-child")


async def test_orphans_stay_without_owner(http: Http) -> None:
    owner = await http.create("configmaps", config_map("orphan-owner"))
    await http.create("configmaps", owned_by(owner, "orphan-child"))
    found = await http.delete("configmaps", "orphan-owner", propagationPolicy="Orphan")
    assert found["metadata"]["finalizers"] == ["orphan"]
    await http.until_gone("configmaps", "orphan-owner")
    assert not (await http.get("configmaps", "orphan-child"))["metadata"].get("ownerReferences")


async def test_an_object_goes_with_the_last_of_its_owners(http: Http) -> None:
    owners = [await http.create("configmaps", config_map(name)) for name in ("first-owner", "second-owner")]
    child = owned_by(owners[0], "shared-child")
    child["metadata"]["ownerReferences"] += owned_by(owners[1], "x")["metadata"]["ownerReferences"]
    await http.create("configmaps", child)
    await http.delete("configmaps", "first-owner", propagationPolicy="Background")

    def one_left(found: Object) -> bool:
        return [item["name"] for item in found["metadata"]["ownerReferences"]] == ["second-owner"]

    await http.until("configmaps", "shared-child", "the first owner's reference to go", one_left)
    await http.delete("configmaps", "second-owner", propagationPolicy="Background")
    await http.until_gone("configmaps", "shared-child")


async def test_an_object_of_an_owner_that_never_was_goes(http: Http) -> None:
    ghost = {"metadata": {"name": "ghost", "uid": "11111111-2222-3333-4444-555555555555"}}
    await http.create("configmaps", owned_by(ghost, "haunted"))
    await http.until_gone("configmaps", "haunted")


@pytest.mark.parametrize("field", ["uid", "kind", "name"])
async def test_owners_are_named_in_full(http: Http, field: str) -> None:
    body = owned_by({"metadata": {"name": "x", "uid": "y"}}, "unnamed", **{field: ""})
    answer = await http.call("POST", http.path("configmaps"), body)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert "metadata.ownerReferences" in answer.message and "must not be empty" in answer.message


async def test_a_collection_is_deleted_by_selector(http: Http) -> None:
    for name, set_name in (("col-a", "gone"), ("col-b", "gone"), ("col-c", "kept")):
        await http.create("configmaps", config_map(name, {"collection": set_name}))
    found = await http.ok("DELETE", http.path("configmaps"), labelSelector="collection=gone")
    assert found["kind"] == "ConfigMapList" or found["status"] == "Success"
    left = await http.get("configmaps", labelSelector="collection")
    assert [item["metadata"]["name"] for item in left["items"]] == ["col-c"]


def test_kubectl_orphans_what_a_deployment_made(cluster: Cluster) -> None:
    cluster.apply(idle_deployment("cascade"))

    async def replica_sets() -> list[str]:
        return cluster.kubectl("get", "rs", "-l", "app=cascade", "-o", "name").split()

    made = asyncio.run(eventually("a ReplicaSet", replica_sets))
    cluster.kubectl("delete", "deployment/cascade", "--cascade=orphan")
    assert cluster.kubectl("get", "rs", "-l", "app=cascade", "-o", "name").split() == made
    cluster.kubectl("delete", *made)


def test_kubectl_deletes_and_waits(cluster: Cluster) -> None:
    cluster.apply(idle_deployment("waited"))
    assert 'deployment.apps "waited" deleted' in cluster.kubectl("delete", "deployment/waited", "--cascade=foreground")
    assert "NotFound" in cluster.refused("get", "deployment/waited")
    assert cluster.kubectl("delete", "deployment/waited", "--ignore-not-found") == ""


async def test_a_pod_without_a_node_goes_at_once(http: Http) -> None:
    await http.create("pods", pod("gated", {"name": "c", "image": IMAGE}, schedulingGates=[{"name": "a.test/gate"}]))
    found = await http.delete("pods", "gated")
    assert found["kind"] == "Pod"
    assert (await http.call("GET", http.path("pods", "gated"))).code == 404


async def test_a_namespace_empties_and_goes(http: Http, own: Cluster) -> None:
    path = f"/api/v1/namespaces/{own.namespace}"
    found = await http.ok("GET", path)
    assert found["spec"]["finalizers"] == ["kubernetes"]
    assert found["metadata"]["labels"]["kubernetes.io/metadata.name"] == own.namespace
    await http.ok("POST", f"{path}/configmaps", held("last"))
    own.apply(idle_deployment("inside"))
    found = await http.ok("DELETE", path)
    assert found["status"]["phase"] == "Terminating"
    answer = await http.call("POST", f"{path}/configmaps", config_map("late"))
    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert f"unable to create new content in namespace {own.namespace} because it is being terminated" in answer.message
    assert {cause["reason"] for cause in answer.body["details"]["causes"]} == {"NamespaceTerminating"}

    async def held_by_one() -> bool:
        namespace = await http.ok("GET", path)
        conditions = {item["type"]: item for item in namespace["status"].get("conditions") or []}
        rest = conditions.get("NamespaceFinalizersRemaining", {})
        return rest.get("status") == "True" and HOLD in rest["message"]

    await eventually("the namespace to say what holds it", held_by_one)
    await http.ok("PATCH", f"{path}/configmaps/last", {"metadata": {"finalizers": None}}, media=MERGE)

    async def gone() -> bool:
        return (await http.call("GET", path)).code == 404

    await eventually("the namespace to go", gone)
