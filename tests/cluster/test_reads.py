"""Reading: pages, selectors, watches with bookmarks, versions that are gone, and other forms of the same objects."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import pytest

from tests.cluster.client import Cluster, Http, Object, eventually
from tests.cluster.objects import IMAGE, config_map

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"


def names(found: Object) -> list[str]:
    return [item["metadata"]["name"] for item in found["items"]]


@pytest.fixture(scope="module")
def group(define: Callable[..., str]) -> str:
    """A custom resource: its history begins when it is defined, on any cluster."""
    return define({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, subresources={"status": {}})


@pytest.fixture(scope="module")
def labelled(cluster: Cluster) -> str:
    """Five ConfigMaps, of which four have a tier."""
    tiers = {"sel-a": "front", "sel-b": "back", "sel-c": "back", "sel-d": "deep"}
    cluster.apply(*(config_map(name, {"set": "sel", "tier": tier}) for name, tier in tiers.items()))
    cluster.apply(config_map("sel-e", {"set": "sel"}))
    return "set=sel"


async def test_lists_come_in_pages_of_one_moment(http: Http, labelled: str) -> None:
    first = await http.get("configmaps", labelSelector="", limit="2")
    assert len(first["items"]) == 2
    await http.create("configmaps", config_map("zz-later"))
    found, page = names(first), first
    while page["metadata"].get("continue"):
        page = await http.get("configmaps", limit="2", **{"continue": page["metadata"]["continue"]})
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        found += names(page)
    assert found == sorted(found)
    assert {"sel-a", "sel-b", "sel-c", "sel-d", "sel-e"} <= set(found)
    assert "zz-later" not in found


async def test_a_page_tells_how_many_follow(http: Http, labelled: str) -> None:
    everything = await http.get("configmaps")
    page = await http.get("configmaps", limit="2")
    assert page["metadata"]["remainingItemCount"] == len(everything["items"]) - 2
    assert not everything["metadata"].get("continue")


async def test_a_wrong_continue_token_is_a_bad_request(http: Http) -> None:
    answer = await http.call("GET", http.path("configmaps"), limit="2", **{"continue": "nonsense"})
    assert (answer.code, answer.reason) == (400, "BadRequest")
    assert "continue key is not valid" in answer.message


def test_kubectl_reads_all_pages(cluster: Cluster, labelled: str) -> None:
    found = cluster.kubectl("get", "configmaps", "--chunk-size=1", "-o", "name").split()
    assert {f"configmap/sel-{letter}" for letter in "abcde"} <= set(found)


@pytest.mark.parametrize(
    ("selector", "letters"),
    [
        ("tier=front", "a"),
        ("tier==front", "a"),
        ("tier!=back", "ade"),
        ("tier in (front,deep)", "ad"),
        ("tier notin (front,deep)", "bce"),
        ("tier", "abcd"),
        ("!tier", "e"),
        ("tier,tier!=deep", "abc"),
    ],
)
async def test_label_selectors(http: Http, labelled: str, selector: str, letters: str) -> None:
    found = await http.get("configmaps", labelSelector=f"{labelled},{selector}")
    assert names(found) == [f"sel-{letter}" for letter in letters]


@pytest.mark.parametrize("selector", ["tier in front", "=front", "tier=a=b", "-x"])
async def test_a_malformed_label_selector_is_a_bad_request(http: Http, selector: str) -> None:
    answer = await http.call("GET", http.path("configmaps"), labelSelector=selector)
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_field_selectors_on_metadata(http: Http, labelled: str) -> None:
    found = await http.get("configmaps", fieldSelector="metadata.name=sel-b")
    assert names(found) == ["sel-b"]
    found = await http.get("configmaps", fieldSelector="metadata.name!=sel-b", labelSelector="tier=back")
    assert names(found) == ["sel-c"]


async def test_field_selectors_on_the_kinds_own_fields(http: Http) -> None:
    for name, kind in (("plain", "Opaque"), ("typed", "example.com/typed")):
        await http.create("secrets", {"metadata": {"name": name}, "type": kind})
    assert names(await http.get("secrets", fieldSelector="type=example.com/typed")) == ["typed"]
    gated = {"schedulingGates": [{"name": "example.com/later"}], "containers": [{"name": "c", "image": IMAGE}]}
    await http.create("pods", {"metadata": {"name": "gated"}, "spec": gated})
    assert names(await http.get("pods", fieldSelector="status.phase=Pending,spec.nodeName=")) == ["gated"]
    assert names(await http.get("pods", fieldSelector="status.phase!=Pending")) == []
    await http.delete("pods", "gated")


async def test_an_unsupported_field_selector_is_a_bad_request(http: Http) -> None:
    answer = await http.call("GET", http.path("configmaps"), fieldSelector="data.a=1")
    assert (answer.code, answer.reason) == (400, "BadRequest")
    assert "data.a" in answer.message and "field" in answer.message


async def test_an_absent_object_is_not_found(http: Http) -> None:
    answer = await http.call("GET", http.path("configmaps", "absent"))
    assert (answer.code, answer.reason) == (404, "NotFound")
    assert answer.message == 'configmaps "absent" not found'
    assert answer.body["details"] == {"name": "absent", "kind": "configmaps"}


async def test_a_watch_goes_on_from_a_lists_version(http: Http) -> None:
    listed = await http.get("configmaps")
    await http.create("configmaps", config_map("seen", a="1"))
    await http.patch("configmaps", "seen", {"data": {"a": "2"}})
    await http.delete("configmaps", "seen")
    version = listed["metadata"]["resourceVersion"]
    found = await http.seen(http.path("configmaps"), 3, resourceVersion=version)
    assert found == [("ADDED", "seen"), ("MODIFIED", "seen"), ("DELETED", "seen")]


async def test_a_watch_without_version_begins_with_what_there_is(http: Http, labelled: str) -> None:
    found = await http.seen(http.path("configmaps"), 5, labelSelector=labelled)
    assert sorted(found) == [("ADDED", f"sel-{letter}") for letter in "abcde"]


async def test_leaving_a_watchs_selection_looks_like_deletion(http: Http) -> None:
    made = await http.create("configmaps", config_map("moving", {"room": "one"}))
    await http.patch("configmaps", "moving", {"metadata": {"labels": {"room": "two"}}})
    await http.patch("configmaps", "moving", {"metadata": {"labels": {"room": "one"}}})
    query = {"labelSelector": "room=one", "resourceVersion": made["metadata"]["resourceVersion"]}
    found = await http.seen(http.path("configmaps"), 2, **query)
    assert found == [("DELETED", "moving"), ("ADDED", "moving")]


async def test_a_watch_of_one_object_by_name(http: Http, labelled: str) -> None:
    found = await http.seen(http.path("configmaps"), 1, fieldSelector="metadata.name=sel-c")
    assert found == [("ADDED", "sel-c")]


async def test_a_watch_ends_at_its_timeout(http: Http) -> None:
    events = http.watch(http.path("configmaps"), labelSelector="none=such", timeoutSeconds="1")
    assert [event async for event in events] == []


async def test_bookmarks_tell_how_far_a_watch_has_come(http: Http) -> None:
    """The server sends one shortly before the watch's end, so that the next one starts there."""
    listed = await http.get("configmaps")
    made = await http.create("configmaps", config_map("marked", {"marked": "yes"}))
    query = {"allowWatchBookmarks": "true", "timeoutSeconds": "4", "labelSelector": "marked=yes"}
    query["resourceVersion"] = listed["metadata"]["resourceVersion"]
    marks = []
    async for event in http.watch(http.path("configmaps"), **query):
        if event["type"] == "ADDED":  # a server that sees nothing change may have nothing to tell
            made = await http.create("configmaps", config_map("passing-by"))
        if event["type"] == "BOOKMARK":
            marks.append(event["object"])
    assert marks and marks[0]["kind"] == "ConfigMap"
    assert int(marks[-1]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])


async def test_a_streamed_list_marks_its_end(http: Http, labelled: str) -> None:
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    path = http.path("configmaps")
    seen = []
    async with aclosing(http.watch(path, labelSelector=labelled, **query)) as events:
        async for event in events:
            if event["type"] == "ERROR" and "RequestWatchProgress" in event["object"]["message"]:
                pytest.skip("this cluster's etcd is too old for streamed lists")
            seen.append(event["type"])
            if event["type"] == "BOOKMARK":
                assert event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
                break
    assert seen == ["ADDED"] * 5 + ["BOOKMARK"]


async def test_a_version_that_is_gone_means_to_list_again(http: Http, group: str) -> None:
    path = http.path(f"{group}/widgets")

    async def ready() -> bool:
        return (await http.call("GET", path, watch="1", timeoutSeconds="1")).code == 200

    await eventually("watches of the new resource", ready)
    events = [event async for event in http.watch(path, resourceVersion="1", timeoutSeconds="5")]
    assert [event["type"] for event in events] == ["ERROR"]
    status = events[0]["object"]
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert "too old resource version" in status["message"]
    listed = await http.ok("GET", path)
    await http.create(f"{group}/widgets", {"apiVersion": group, "kind": "Widget", "metadata": {"name": "next"}})
    version = listed["metadata"]["resourceVersion"]
    assert await http.seen(path, 1, resourceVersion=version) == [("ADDED", "next")]


async def test_objects_as_a_table(http: Http, labelled: str) -> None:
    found = await http.ok("GET", http.path("configmaps"), accept=TABLE, labelSelector=labelled)
    assert (found["kind"], found["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in found["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert [row["cells"][:2] for row in found["rows"]] == [[f"sel-{letter}", 0] for letter in "abcde"]
    assert found["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_a_table_may_bring_the_whole_objects(http: Http, labelled: str) -> None:
    found = await http.ok("GET", http.path("configmaps", "sel-a"), accept=TABLE, includeObject="Object")
    assert found["rows"][0]["object"]["kind"] == "ConfigMap"


async def test_objects_by_their_metadata_alone(http: Http, labelled: str) -> None:
    found = await http.ok("GET", http.path("configmaps"), accept=PARTIAL.format("List"), labelSelector=labelled)
    assert found["kind"] == "PartialObjectMetadataList"
    assert all(set(item) <= {"kind", "apiVersion", "metadata"} for item in found["items"])
    one = await http.ok("GET", http.path("configmaps", "sel-a"), accept=PARTIAL.format(""))
    assert (one["kind"], one["metadata"]["labels"]["tier"]) == ("PartialObjectMetadata", "front")


async def test_the_python_client_lists_and_watches(cluster: Cluster, labelled: str) -> None:
    from kubernetes.aio import client, config, watch

    settings = client.Configuration()
    await config.load_kube_config(config_file=str(cluster.kubeconfig), client_configuration=settings)
    async with client.ApiClient(settings) as api:
        core = client.CoreV1Api(api)
        listed = await core.list_namespaced_config_map(cluster.namespace, label_selector=labelled)
        assert len(listed.items) == 5
        await core.create_namespaced_config_map(cluster.namespace, config_map("from-python", {"set": "python"}))
        await core.delete_namespaced_config_map("from-python", cluster.namespace)
        seen = []
        stream = watch.Watch().stream(
            core.list_namespaced_config_map, cluster.namespace, label_selector="set=python",
            resource_version=listed.metadata.resource_version, timeout_seconds=1,
        )  # fmt: skip
        async for event in stream:
            seen.append(event["type"])
        assert seen == ["ADDED", "DELETED"]
