"""Server-side apply: who owns which field, who may change it, and what goes when nobody sets it any longer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.client import APPLY, MERGE, Answer, Cluster, Http, Object
from tests.cluster.objects import IMAGE, config_map, idle_deployment

DEPLOYMENTS = "apps/v1/deployments"


def config(name: str, data: dict[str, str] | None = None, **metadata: Any) -> Object:
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
    return body if data is None else {**body, "data": data}


async def attempt(http: Http, body: Object, manager: str, *, sub: str = "", **query: str) -> Answer:
    resource = "configmaps" if body["kind"] == "ConfigMap" else f"{body['apiVersion']}/{body['kind'].lower()}s"
    resource = resource.removeprefix("v1/")
    path = http.path(resource, body["metadata"]["name"], sub)
    return await http.call("PATCH", path, body, media=APPLY, fieldManager=manager, **query)


async def apply(http: Http, body: Object, manager: str, *, sub: str = "", **query: str) -> Object:
    answer = await attempt(http, body, manager, sub=sub, **query)
    assert answer.code in (200, 201), answer.body
    found: Object = answer.body
    return found


def owned(found: Object, manager: str, operation: str = "Apply", subresource: str = "") -> Object | None:
    """The field set of a manager; None where it has none."""
    for entry in found["metadata"].get("managedFields") or []:
        if (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, operation, subresource):
            assert entry["fieldsType"] == "FieldsV1"
            fields: Object = entry["fieldsV1"]
            return fields
    return None


def data(*names: str) -> Object:
    return {"f:data": {f"f:{name}": {} for name in names}}


def workload(name: str, *containers: Object, **spec: Any) -> Object:
    """A part of a Deployment, as one of several managers would apply it."""
    template = {"spec": {"containers": list(containers)}} if containers else None
    body = {**({"template": template} if template else {}), **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body}


def containers(found: Object) -> dict[str, Object]:
    return {item["name"]: item for item in found["spec"]["template"]["spec"]["containers"]}


def conflict(answer: Answer, *fields: tuple[str, str]) -> None:
    """A conflict about exactly these fields with these managers."""
    assert (answer.code, answer.reason) == (409, "Conflict"), answer.body
    causes = {(cause["field"], cause["message"]) for cause in answer.body["details"]["causes"]}
    assert causes == {(field, f"conflict with {manager}") for field, manager in fields}
    number = f"{len(fields)} conflict{'s' if len(fields) > 1 else ''}"
    assert answer.message.startswith(f"Apply failed with {number}: ")


async def test_applying_creates_and_owns(http: Http) -> None:
    answer = await attempt(http, config("owned", {"a": "1"}, labels={"x": "y"}), "one")
    assert answer.code == 201
    assert owned(answer.body, "one") == {**data("a"), "f:metadata": {"f:labels": {"f:x": {}}}}
    entry = answer.body["metadata"]["managedFields"][0]
    assert (entry["apiVersion"], "time" in entry) == ("v1", True)


async def test_applying_the_same_again_changes_nothing(http: Http) -> None:
    first = await apply(http, config("again", {"a": "1"}), "one")
    again = await attempt(http, config("again", {"a": "1"}), "one")
    assert (again.code, again.body) == (200, first)


async def test_a_field_of_another_manager_is_a_conflict(http: Http) -> None:
    await apply(http, config("contested", {"a": "1", "b": "2"}, labels={"x": "1"}), "one")
    answer = await attempt(http, config("contested", {"a": "9"}), "two")
    conflict(answer, (".data.a", '"one"'))
    assert answer.message == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    answer = await attempt(http, config("contested", {"a": "9", "b": "2"}, labels={"x": "2"}), "two")
    conflict(answer, (".data.a", '"one"'), (".metadata.labels.x", '"one"'))
    assert 'conflicts with "one":\n- .data.a\n- .metadata.labels.x' in answer.message
    assert (await http.get("configmaps", "contested"))["data"] == {"a": "1", "b": "2"}


async def test_equal_values_are_shared(http: Http) -> None:
    await apply(http, config("shared", {"a": "1"}), "one")
    found = await apply(http, config("shared", {"a": "1", "b": "2"}), "two")
    assert (owned(found, "one"), owned(found, "two")) == (data("a"), data("a", "b"))
    found = await apply(http, config("shared", {}), "one")
    assert found["data"] == {"a": "1", "b": "2"}
    assert owned(found, "two") == data("a", "b")


async def test_force_takes_the_field(http: Http) -> None:
    await apply(http, config("forced", {"a": "1", "b": "2"}), "one")
    found = await apply(http, config("forced", {"a": "9"}), "two", force="true")
    assert found["data"] == {"a": "9", "b": "2"}
    assert (owned(found, "one"), owned(found, "two")) == (data("b"), data("a"))


async def test_what_its_only_owner_no_longer_sets_goes(http: Http) -> None:
    await apply(http, config("dropped", {"a": "1", "b": "2"}), "one")
    await apply(http, config("dropped", {"b": "2"}), "two")
    found = await apply(http, config("dropped"), "one")
    assert found["data"] == {"b": "2"}
    assert owned(found, "one") is None
    found = await apply(http, config("dropped"), "two")
    assert "data" not in found


async def test_an_update_takes_over_without_asking(http: Http) -> None:
    await apply(http, config("updated", {"a": "1", "b": "2"}), "one")
    found = await http.patch("configmaps", "updated", {"data": {"a": "2"}}, fieldManager="editor")
    assert (owned(found, "one"), owned(found, "editor", "Update")) == (data("b"), data("a"))
    answer = await attempt(http, config("updated", {"a": "1", "b": "2"}), "one")
    conflict(answer, (".data.a", '"editor" using v1'))
    found = await apply(http, config("updated", {"b": "2"}), "one")
    assert found["data"] == {"a": "2", "b": "2"}


async def test_a_creation_owns_each_level_of_its_fields(http: Http) -> None:
    made = await http.create("configmaps", config_map("levels", {"x": "y"}, a="1"), fieldManager="maker")
    assert owned(made, "maker", "Update") == {
        "f:data": {".": {}, "f:a": {}},
        "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
    }
    made = await http.create(DEPLOYMENTS, idle_deployment("levels"), fieldManager="maker")
    spec = (owned(made, "maker", "Update") or {})["f:spec"]
    assert spec["f:strategy"]["f:rollingUpdate"] == {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}
    assert spec["f:template"]["f:metadata"] == {"f:labels": {".": {}, "f:app": {}}}
    container = spec["f:template"]["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert {".", "f:name", "f:image", "f:imagePullPolicy"} <= set(container)
    assert "." not in spec and "." not in spec["f:template"]["f:spec"]["f:containers"]


async def test_a_dry_run_tells_and_keeps_nothing(http: Http) -> None:
    await apply(http, config("tried", {"a": "1"}), "one")
    found = await apply(http, config("tried", {"a": "1", "b": "2"}), "two", dryRun="All")
    assert found["data"] == {"a": "1", "b": "2"}
    assert owned(await http.get("configmaps", "tried"), "two") is None
    await apply(http, config("never", {"a": "1"}), "two", dryRun="All")
    assert (await http.call("GET", http.path("configmaps", "never"))).code == 404


async def test_list_maps_merge_by_their_keys(http: Http) -> None:
    name = "listed"
    env = [{"name": "A", "value": "1"}]
    own = {"name": "c", "image": IMAGE, "env": env, "ports": [{"containerPort": 80}]}
    manifest = idle_deployment(name)
    manifest["spec"]["template"]["spec"]["containers"] = [own]
    await apply(http, manifest, "one")
    await apply(http, workload(name, {"name": "side", "image": "side:1"}), "two")
    found = await apply(http, workload(name, {"name": "c", "env": [{"name": "B", "value": "2"}]}), "three")
    assert list(containers(found)) == ["c", "side"]
    assert [item["name"] for item in containers(found)["c"]["env"]] == ["A", "B"]
    fields = (owned(found, "three") or {})["f:spec"]["f:template"]["f:spec"]["f:containers"]
    item = {".": {}, "f:name": {}, "f:value": {}}
    assert fields == {'k:{"name":"c"}': {".": {}, "f:name": {}, "f:env": {'k:{"name":"B"}': item}}}
    del own["env"], own["ports"]
    found = await apply(http, manifest, "one")
    assert [item["name"] for item in containers(found)["c"]["env"]] == ["B"]
    assert "ports" not in containers(found)["c"]
    answer = await attempt(http, workload(name, {"name": "c", "image": "other:1"}), "three")
    conflict(answer, ('.spec.template.spec.containers[name="c"].image', '"one"'))


async def test_keys_of_list_maps_have_defaults(http: Http) -> None:
    name = "keyed"
    manifest = idle_deployment(name)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["ports"] = [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]
    found = await apply(http, manifest, "one")
    ports = (owned(found, "one") or {})["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"c"}']["f:ports"]
    assert set(ports) == {'k:{"containerPort":80,"protocol":"TCP"}', 'k:{"containerPort":80,"protocol":"UDP"}'}
    container["ports"] = [{"containerPort": 80}, {"containerPort": 80}]
    answer = await attempt(http, manifest, "one")
    assert answer.code == 500
    assert 'ports: duplicate entries for key [containerPort=80,protocol="TCP"]' in answer.message


async def test_sets_keep_what_others_added(http: Http) -> None:
    def finalizers(*names: str) -> Object:
        return config("sets", finalizers=[f"a.test/{name}" for name in names])

    await apply(http, finalizers("c", "d"), "one")
    found = await apply(http, finalizers("e", "c"), "two")
    assert set(found["metadata"]["finalizers"]) == {"a.test/c", "a.test/d", "a.test/e"}
    assert owned(found, "two") == {"f:metadata": {"f:finalizers": {'v:"a.test/c"': {}, 'v:"a.test/e"': {}}}}
    found = await apply(http, finalizers("d"), "one")
    assert set(found["metadata"]["finalizers"]) == {"a.test/c", "a.test/d", "a.test/e"}
    found = await apply(http, finalizers(), "two")
    assert found["metadata"]["finalizers"] == ["a.test/d"]
    assert (await attempt(http, finalizers("d", "d"), "one")).code == 500
    found = await apply(http, config("sets"), "one")
    assert "finalizers" not in found["metadata"]


async def test_atomic_lists_have_one_owner(http: Http) -> None:
    name = "atomic"
    manifest = idle_deployment(name)
    manifest["spec"]["template"]["spec"]["containers"][0]["args"] = ["x", "y"]
    found = await apply(http, manifest, "one")
    fields = (owned(found, "one") or {})["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert fields["f:args"] == {}
    answer = await attempt(http, workload(name, {"name": "c", "args": ["z"]}), "two")
    conflict(answer, ('.spec.template.spec.containers[name="c"].args', '"one"'))


async def test_replicas_are_handed_to_a_scaler(http: Http) -> None:
    name = "handed"
    manifest = idle_deployment(name, paused=True)
    await apply(http, manifest, "one")
    path = http.path(DEPLOYMENTS, name, "scale")
    await http.ok("PATCH", path, {"spec": {"replicas": 1}}, media=MERGE, fieldManager="scaler")
    found = await http.get(DEPLOYMENTS, name)
    assert owned(found, "scaler", "Update", "scale") == {"f:spec": {"f:replicas": {}}}
    conflict(
        await attempt(http, manifest, "one"), (".spec.replicas", '"scaler" with subresource "scale" using apps/v1')
    )
    del manifest["spec"]["replicas"]
    found = await apply(http, manifest, "one")
    assert found["spec"]["replicas"] == 1
    await http.ok("PATCH", path, {"spec": {"replicas": 0}}, media=MERGE, fieldManager="scaler")


async def test_a_status_has_managers_of_its_own(http: Http) -> None:
    name = "reported"
    await apply(http, idle_deployment(name), "one")
    status = {"conditions": [{"type": "Mine", "status": "True"}]}
    body = {**workload(name, replicas=5), "status": status}
    found = await apply(http, body, "reporter", sub="status")
    assert found["spec"]["replicas"] == 0
    condition = {".": {}, "f:status": {}, "f:type": {}}
    assert owned(found, "reporter", "Apply", "status") == {
        "f:status": {"f:conditions": {'k:{"type":"Mine"}': condition}}
    }
    found = await apply(http, {**idle_deployment(name), "status": status}, "one")
    assert "f:status" not in (owned(found, "one") or {})


@pytest.mark.parametrize(
    ("change", "query", "code", "said"),
    [
        ({}, {"fieldManager": ""}, 422, "fieldManager: Required value: is required for apply patch"),
        ({"kind": "Secret"}, {}, 400, "invalid object type: /v1, Kind=Secret"),
        ({"kind": ""}, {}, 400, "invalid object type"),
        ({"metadata": {"name": "other"}}, {}, 400, "does not match the name on the URL"),
        ({"metadata": {"name": "a", "managedFields": [{"manager": "x"}]}}, {}, 400, "managedFields must be nil"),
        ({"metadata": {"name": "a", "resourceVersion": "1"}}, {}, 409, "the object has been modified"),
        ({"dada": {}}, {}, 500, ".dada: field not declared in schema"),
        ({"data": {"a": 1}}, {}, 500, ".data.a: expected string, got"),
    ],
)
async def test_a_configuration_is_checked(
    http: Http, change: Object, query: dict[str, str], code: int, said: str
) -> None:
    await apply(http, config("a", {"b": "1"}), "one")
    options = {"fieldManager": "two", **query}
    body = {**config("a", {"a": "1"}), **change}
    answer = await http.call("PATCH", http.path("configmaps", "a"), body, media=APPLY, **options)
    assert answer.code == code, answer.body
    assert said in answer.message


async def test_force_is_for_applying_alone(http: Http) -> None:
    await apply(http, config("other-patch"), "one")
    answer = await http.call("PATCH", http.path("configmaps", "other-patch"), {}, media=MERGE, force="true")
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert "force: Forbidden: may not be specified for non-apply patch" in answer.message


async def test_a_configuration_may_come_as_yaml(http: Http) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: written\ndata:\n  a: |\n    line\n"
    path = http.path("configmaps", "written")
    found = await http.ok("PATCH", path, body, media=APPLY, fieldManager="one")
    assert found["data"] == {"a": "line\n"}
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: written}\ndata: {a: '1', a: '2'}\n"
    answer = await http.call("PATCH", path, body, media=APPLY, fieldManager="one", fieldValidation="Strict")
    assert (answer.code, 'key "a" already set in map' in answer.message) == (400, True)


async def test_managed_fields_can_be_given_up_and_come_back(http: Http) -> None:
    await apply(http, config("reset", {"a": "1"}), "one")
    found = await http.patch("configmaps", "reset", {"metadata": {"managedFields": [{}]}})
    assert "managedFields" not in found["metadata"]
    found = await http.patch("configmaps", "reset", {"data": {"b": "2"}})
    assert "managedFields" not in found["metadata"]
    answer = await attempt(http, config("reset", {"a": "9"}), "two")
    conflict(answer, (".data.a", '"before-first-apply" using v1'))


async def test_managers_of_updates_are_kept_within_bounds(http: Http) -> None:
    await http.create("configmaps", config_map("crowded", a="0"))
    for number in range(14):
        await http.patch("configmaps", "crowded", {"data": {f"k{number}": "1"}}, fieldManager=f"manager-{number:02}")
    entries = (await http.get("configmaps", "crowded"))["metadata"]["managedFields"]
    assert len(entries) == 10
    assert "ancient-changes" in {entry["manager"] for entry in entries}


def test_kubectl_applies_on_the_server(cluster: Cluster) -> None:
    manifest = config("by-kubectl", {"a": "1"})
    assert "serverside-applied" in cluster.apply(manifest, args=("--server-side",))
    other = {**manifest, "data": {"a": "2"}}
    text = json.dumps(other)
    said = cluster.refused("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=text)
    assert 'conflict with "kubectl": .data.a' in said
    cluster.apply(other, args=("--server-side", "--field-manager=other", "--force-conflicts"))
    found = cluster.get("configmap/by-kubectl", "--show-managed-fields")
    assert (found["data"], owned(found, "other")) == ({"a": "2"}, data("a"))


def test_kubectl_moves_from_its_own_apply_to_the_servers(cluster: Cluster) -> None:
    cluster.apply(config("moved", {"a": "1", "b": "2"}))
    cluster.apply(config("moved", {"a": "2"}), args=("--server-side",))
    found = cluster.get("configmap/moved", "--show-managed-fields")
    assert found["data"] == {"a": "2"}
    managers = {entry["manager"] for entry in found["metadata"]["managedFields"]}
    assert "kubectl" in managers and "kubectl-client-side-apply" not in managers
    note = found["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert json.loads(note)["data"] == {"a": "2"}
    # and back
    cluster.apply(config("moved", {"c": "3"}))
    assert cluster.get("configmap/moved")["data"] == {"c": "3"}


async def test_the_server_knows_what_kubectl_applied_before(http: Http, cluster: Cluster) -> None:
    cluster.apply(config("known", {"a": "1", "b": "2"}))
    answer = await attempt(http, config("known", {"a": "3"}), "somebody")
    conflict(answer, (".data.a", '"kubectl-client-side-apply" using v1'))
    found = await apply(http, config("known", {"a": "3"}), "kubectl")
    assert found["data"] == {"a": "3", "b": "2"}


def test_kubectl_tells_what_would_change_on_the_server(cluster: Cluster) -> None:
    cluster.apply(config("diffed", {"a": "1"}), args=("--server-side",))
    done = cluster.run("diff", "--server-side", "-f", "-", stdin=json.dumps(config("diffed", {"a": "2"})))
    assert done.returncode == 1 and '+  a: "2"' in done.stdout


async def test_a_struct_goes_with_its_last_owned_field(http: Http) -> None:
    """With what defaults added to it; what another manager owns in it keeps it."""

    def probed(**probe: Any) -> Object:
        body = idle_deployment("probed")
        body["spec"]["template"]["spec"]["containers"][0].update({"readinessProbe": probe} if probe else {})
        return body

    command = {"exec": {"command": ["false"]}}
    await apply(http, probed(**command, periodSeconds=7), "one")
    assert "readinessProbe" not in containers(await apply(http, probed(), "one"))["c"]
    await apply(http, probed(**command, periodSeconds=7), "one")
    other = workload("probed", {"name": "c", "readinessProbe": command})
    await apply(http, other, "two")
    probe = containers(await apply(http, probed(), "one"))["c"]["readinessProbe"]
    assert probe["exec"] == command["exec"] and probe["periodSeconds"] == 10, "the default again"
