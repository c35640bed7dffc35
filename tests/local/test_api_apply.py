"""Server-side apply: ownership, conflicts, force, and what goes when an owner lets go."""

from __future__ import annotations

from typing import Any

import pytest

from mizzen_local.api import patch, schema
from mizzen_local.api.machinery import Machinery, WriteOptions
from mizzen_local.client import ApiError, Object

POD = schema.named("io.k8s.api.core.v1.Pod")


def apply(machinery: Machinery, manager: str, body: Object, force: bool = False) -> Object:
    info = machinery.registry.get("apps", "v1", "deployments")
    assert info is not None
    entry, _ = machinery.patch(info, "default", "web", "apply", body, WriteOptions(manager, force=force))
    return entry.obj


def web(image: str | None = "nginx:1", env: dict[str, str] | None = None, **spec: Any) -> Object:
    container: Object = {"name": "web", **({"image": image} if image else {})}
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    body = {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": body}


def owners(obj: Object) -> dict[str, Object]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"]["managedFields"]}


def test_applying_creates_and_owns_what_it_says(machinery: Machinery) -> None:
    made = apply(machinery, "me", web(replicas=2))
    fields = owners(made)["me"]
    assert fields["f:spec"]["f:replicas"] == {}
    container = fields["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"web"}']
    assert container == {".": {}, "f:image": {}, "f:name": {}}
    assert "f:strategy" not in fields["f:spec"], "defaults belong to nobody"


def test_applying_the_same_again_changes_nothing(machinery: Machinery) -> None:
    first = apply(machinery, "me", web(env={"A": "1"}))
    assert apply(machinery, "me", web(env={"A": "1"})) == first


def test_a_field_of_another_owner_is_a_conflict_unless_forced(machinery: Machinery) -> None:
    apply(machinery, "me", web(replicas=2))
    with pytest.raises(ApiError) as caught:
        apply(machinery, "you", web(replicas=3))
    assert (caught.value.code, caught.value.reason) == (409, "Conflict")
    assert caught.value.message == 'Apply failed with 1 conflict: conflict with "me": .spec.replicas'
    assert caught.value.details == {
        "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "me"', "field": ".spec.replicas"}]
    }
    taken = apply(machinery, "you", web(replicas=3), force=True)
    assert taken["spec"]["replicas"] == 3
    assert "f:replicas" not in owners(taken)["me"]["f:spec"]


def test_equal_values_are_shared(machinery: Machinery) -> None:
    apply(machinery, "me", web(replicas=2))
    shared = apply(machinery, "you", web(replicas=2))
    assert all("f:replicas" in owners(shared)[who]["f:spec"] for who in ("me", "you"))
    let_go = apply(machinery, "me", web())
    assert let_go["spec"]["replicas"] == 2, "the other owner still wants it"


def test_what_the_only_owner_no_longer_sets_is_removed(machinery: Machinery) -> None:
    apply(machinery, "me", web(env={"A": "1", "B": "2"}, replicas=5, minReadySeconds=3))
    after = apply(machinery, "me", web(env={"B": "2"}))
    assert after["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "B", "value": "2"}]
    assert after["spec"]["replicas"] == 1, "back to the default"
    assert "minReadySeconds" not in after["spec"]


def test_items_of_others_stay(machinery: Machinery) -> None:
    apply(machinery, "me", web(env={"A": "1"}))
    extra = {"name": "web", "env": [{"name": "B", "value": "2"}]}
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}
    apply(machinery, "you", {**other, "spec": {"template": {"spec": {"containers": [extra]}}}})
    after = apply(machinery, "me", web())
    assert after["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "B", "value": "2"}]


def test_an_update_takes_ownership_and_is_named_with_its_version(machinery: Machinery) -> None:
    apply(machinery, "me", web(replicas=2))
    info = machinery.registry.get("apps", "v1", "deployments")
    assert info is not None
    machinery.patch(info, "default", "web", "merge", {"spec": {"replicas": 4}}, WriteOptions("kubectl-scale"))
    with pytest.raises(ApiError) as caught:
        apply(machinery, "me", web(replicas=2))
    assert caught.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-scale" using apps/v1: .spec.replicas'
    )


def test_applying_the_status_touches_nothing_else(machinery: Machinery) -> None:
    apply(machinery, "me", web(replicas=2))
    info = machinery.registry.get("apps", "v1", "deployments")
    assert info is not None
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 2}}
    entry, _ = machinery.patch(info, "default", "web", "apply", body, WriteOptions("ctl"), "status")
    assert (entry.obj["status"], entry.obj["spec"]["replicas"]) == ({"replicas": 2}, 2)
    mine = next(item for item in entry.obj["metadata"]["managedFields"] if item["manager"] == "ctl")
    assert mine["subresource"] == "status"


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3], "b/c": 1}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2], "b/c": 1}),
        ([{"op": "replace", "path": "/b~1c", "value": 2}], {"a": [1, 2], "b/c": 2}),
        ([{"op": "move", "from": "/a", "path": "/d"}], {"d": [1, 2], "b/c": 1}),
        (
            [{"op": "test", "path": "/a/0", "value": 1}, {"op": "copy", "from": "/a/0", "path": "/e"}],
            {"a": [1, 2], "b/c": 1, "e": 1},
        ),
    ],
)
def test_json_patch(operations: list[Object], expected: Object) -> None:
    assert patch.json_patch({"a": [1, 2], "b/c": 1}, operations) == expected


def test_a_json_patch_that_does_not_fit_is_invalid() -> None:
    for operation in (
        {"op": "remove", "path": "/x"},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "replace", "path": "/x/y", "value": 1},
    ):
        with pytest.raises(ApiError) as caught:
            patch.json_patch({"a": 1}, [operation])
        assert caught.value.code == 422


def test_merge_patch_removes_with_null() -> None:
    assert patch.merge_patch({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": [1]}}) == {"a": {"c": 2, "d": [1]}}


def test_strategic_patch_merges_lists_by_key() -> None:
    live = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}
    changes = {"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}}
    merged = patch.strategic_patch(POD, live, changes)
    assert [(c["name"], c["image"]) for c in merged["spec"]["containers"]] == [("a", "1"), ("b", "2"), ("c", "1")]
    dropped = patch.strategic_patch(POD, live, {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}})
    assert [c["name"] for c in dropped["spec"]["containers"]] == ["b"]
    order = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}
    assert [c["name"] for c in patch.strategic_patch(POD, live, order)["spec"]["containers"]] == ["b", "a"]
    kept = patch.strategic_patch(
        POD, {"metadata": {"finalizers": ["x", "y"]}}, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}
    )
    assert kept["metadata"]["finalizers"] == ["y"]
