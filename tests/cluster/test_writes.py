"""Writing: what becomes of stale versions, patches, dry runs, unknown fields and bodies that are no objects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.client import APPLY, JSON_PATCH, MERGE, STRATEGIC, Answer, Cluster, Http, Object
from tests.cluster.objects import IMAGE, config_map, idle_deployment

MIB = 1024 * 1024


def containers(found: Object) -> dict[str, Object]:
    return {item["name"]: item for item in found["spec"]["template"]["spec"]["containers"]}


def template(*changes: Object) -> Object:
    return {"spec": {"template": {"spec": {"containers": list(changes)}}}}


def refused(answer: Answer, code: int, reason: str, *words: str) -> None:
    """A Status of this code and reason whose message has the words."""
    assert (answer.code, answer.body["kind"], answer.body["status"]) == (code, "Status", "Failure"), answer.body
    assert (answer.body["code"], answer.reason) == (code, reason), answer.body
    for text in words:
        assert text in answer.message


async def test_creation_sets_what_only_the_server_knows(http: Http) -> None:
    made = await http.create("configmaps", config_map("made", a="1"))
    meta = made["metadata"]
    assert meta["uid"] and int(meta["resourceVersion"]) and meta["creationTimestamp"].endswith("Z")
    assert meta["namespace"] == http.namespace
    answer = await http.call("POST", http.path("configmaps"), config_map("made"))
    refused(answer, 409, "AlreadyExists", 'configmaps "made" already exists')
    assert answer.body["details"] == {"name": "made", "kind": "configmaps"}


async def test_what_is_wrong_is_told_before_that_it_exists(http: Http) -> None:
    await http.create("configmaps", config_map("twice"))
    answer = await http.call("POST", http.path("configmaps"), config_map("twice", **{"a b": "1"}))
    refused(answer, 422, "Invalid", "a valid config key must consist of alphanumeric characters")
    assert answer.body["details"]["causes"][0]["field"] == "data[a b]"


async def test_generated_names_differ(http: Http) -> None:
    body = {"metadata": {"generateName": "gen-"}}
    names = {(await http.create("configmaps", body))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("gen-") and len(name) == len("gen-") + 5 for name in names)


async def test_a_long_prefix_is_cut(http: Http) -> None:
    made = await http.create("configmaps", {"metadata": {"generateName": "g" * 70}})
    assert len(made["metadata"]["name"]) == 63


async def test_an_object_needs_a_name(http: Http) -> None:
    answer = await http.call("POST", http.path("configmaps"), {"metadata": {}})
    refused(answer, 422, "Invalid", "metadata.name: Required value: name or generateName is required")


async def test_a_stale_version_is_a_conflict(http: Http) -> None:
    first = await http.create("configmaps", config_map("stale", a="1"))
    await http.patch("configmaps", "stale", {"data": {"a": "2"}})
    answer = await http.call("PUT", http.path("configmaps", "stale"), first)
    refused(answer, 409, "Conflict", "the object has been modified; please apply your changes to the latest version")
    patch = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"a": "3"}}
    answer = await http.call("PATCH", http.path("configmaps", "stale"), patch, media=MERGE)
    refused(answer, 409, "Conflict", "the object has been modified")
    assert (await http.get("configmaps", "stale"))["data"] == {"a": "2"}


async def test_an_update_without_version_wins(http: Http) -> None:
    await http.create("configmaps", config_map("blind", a="1"))
    await http.ok("PUT", http.path("configmaps", "blind"), config_map("blind", b="2"))
    assert (await http.get("configmaps", "blind"))["data"] == {"b": "2"}


async def test_an_update_that_changes_nothing_makes_no_version(http: Http) -> None:
    first = await http.create("configmaps", config_map("same", a="1"))
    again = await http.ok("PUT", http.path("configmaps", "same"), first)
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_identity_cannot_be_changed(http: Http) -> None:
    first = await http.create("configmaps", config_map("self"))
    body = config_map("self", a="1")
    body["metadata"] |= {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 9}
    updated = await http.ok("PUT", http.path("configmaps", "self"), body)
    for field in ("uid", "creationTimestamp"):
        assert updated["metadata"][field] == first["metadata"][field]
    body["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    refused(await http.call("PUT", http.path("configmaps", "self"), body), 409, "Conflict", "Precondition failed: UID")


@pytest.mark.parametrize(
    ("method", "name", "body", "code", "said"),
    [
        ("PUT", "other", config_map("one"), 400, "the name of the object (one) does not match the name on the URL"),
        ("PUT", "absent", config_map("absent"), 404, 'configmaps "absent" not found'),
        ("PUT", "absent", {"metadata": {}}, 400, "name must be provided"),
        ("POST", "", {"metadata": {"name": "x", "namespace": "other"}}, 400, "the namespace of the provided object"),
        ("POST", "", {"metadata": {"name": "Not_A_Name"}}, 422, "a lowercase RFC 1123 subdomain must consist of"),
        ("POST", "", config_map("x", {"a b": "c"}), 422, "name part must consist of alphanumeric characters"),
        ("POST", "", config_map("x", {"a": "b c"}), 422, "a valid label must be an empty string or consist of"),
    ],
)
async def test_names_and_namespaces_are_those_of_the_address(
    http: Http, method: str, name: str, body: Object, code: int, said: str
) -> None:
    answer = await http.call(method, http.path("configmaps", name), body)
    refused(answer, code, {400: "BadRequest", 404: "NotFound", 422: "Invalid"}[code], said)


async def test_a_namespace_that_does_not_exist_holds_nothing(http: Http) -> None:
    answer = await http.call("POST", "/api/v1/namespaces/no-such-namespace/configmaps", config_map("x"))
    refused(answer, 404, "NotFound", 'namespaces "no-such-namespace" not found')


async def test_merge_patch_sets_and_removes(http: Http) -> None:
    await http.create("configmaps", config_map("merged", a="1", b="2"))
    found = await http.patch("configmaps", "merged", {"data": {"a": None, "c": "3"}})
    assert found["data"] == {"b": "2", "c": "3"}


async def test_json_patch_operates_in_order(http: Http) -> None:
    await http.create("configmaps", config_map("operated", a="1", b="2"))
    operations = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "move", "from": "/data/a", "path": "/data/moved"},
        {"op": "copy", "from": "/data/b", "path": "/data/copied"},
        {"op": "replace", "path": "/data/b", "value": "9"},
        {"op": "add", "path": "/metadata/labels", "value": {"x~1": "y"}},
        {"op": "remove", "path": "/metadata/labels/x~01"},
    ]
    found = await http.patch("configmaps", "operated", operations, JSON_PATCH)
    assert found["data"] == {"moved": "1", "copied": "2", "b": "9"}
    assert not found["metadata"].get("labels")


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/data/a", "value": "2"},
        {"op": "remove", "path": "/data/absent"},
        {"op": "add", "path": "/absent/deep", "value": "1"},
        {"op": "fold", "path": "/data/a"},
    ],
)
async def test_a_json_patch_that_does_not_fit_is_invalid(http: Http, operation: Object) -> None:
    name = f"unfit-{operation['op']}"
    await http.create("configmaps", config_map(name, a="1"))
    answer = await http.call("PATCH", http.path("configmaps", name), [operation], media=JSON_PATCH)
    refused(answer, 422, "Invalid", "the server rejected our request due to an error in our request")


async def test_a_json_patch_has_limits(http: Http) -> None:
    await http.create("configmaps", config_map("many", a="1"))
    operations = [{"op": "test", "path": "/data/a", "value": "1"}] * 10_001
    answer = await http.call("PATCH", http.path("configmaps", "many"), operations, media=JSON_PATCH)
    refused(answer, 413, "RequestEntityTooLarge", "The allowed maximum operations in a JSON patch is 10000")


async def test_strategic_patch_merges_lists_by_their_keys(http: Http) -> None:
    container: Object = {"name": "c", "image": IMAGE, "args": ["x"]}
    container |= {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    manifest = idle_deployment("strategic")
    manifest["spec"]["template"]["spec"]["containers"] = [container]
    await http.create("apps/v1/deployments", manifest)

    async def patched(*changes: Object) -> dict[str, Object]:
        body = template(*changes)
        return containers(await http.patch("apps/v1/deployments", "strategic", body, STRATEGIC))

    env = [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]
    found = await patched({"name": "c", "env": env, "args": ["y", "z"]}, {"name": "side", "image": "side:1"})
    assert found["c"]["env"] == [{"name": "A", "value": "1"}, *env]
    assert (found["c"]["image"], found["c"]["args"]) == (IMAGE, ["y", "z"])
    found = await patched(
        {"name": "c", "env": [{"name": "A", "$patch": "delete"}]}, {"name": "side", "$patch": "delete"}
    )
    assert list(found) == ["c"]
    assert [item["name"] for item in found["c"]["env"]] == ["B", "C"]
    found = await patched({"name": "c", "env": [{"$patch": "replace"}, {"name": "Z", "value": "1"}]})
    assert found["c"]["env"] == [{"name": "Z", "value": "1"}]


async def test_strategic_patch_orders_and_retains(http: Http) -> None:
    await http.create("apps/v1/deployments", idle_deployment("ordered"))
    order = {"$setElementOrder/containers": [{"name": "first"}, {"name": "c"}]}
    change = {"spec": {"template": {"spec": {**order, "containers": [{"name": "first", "image": "f:1"}]}}}}
    found = await http.patch("apps/v1/deployments", "ordered", change, STRATEGIC)
    assert list(containers(found)) == ["first", "c"]
    strategy = {"$retainKeys": ["type"], "type": "Recreate"}
    found = await http.patch("apps/v1/deployments", "ordered", {"spec": {"strategy": strategy}}, STRATEGIC)
    assert found["spec"]["strategy"] == {"type": "Recreate"}
    await http.patch("apps/v1/deployments", "ordered", {"metadata": {"finalizers": ["a.test/x"]}}, STRATEGIC)
    drop = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.test/x"]}}
    assert "finalizers" not in (await http.patch("apps/v1/deployments", "ordered", drop, STRATEGIC))["metadata"]


@pytest.mark.parametrize(
    ("media", "body", "said"),
    [
        (MERGE, b"{", "error decoding patch: unexpected end of JSON input"),
        (MERGE, b"[]", "cannot unmarshal array into Go value of type map[string]interface {}"),
        (JSON_PATCH, b"{}", "cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        (STRATEGIC, b"{", "unexpected end of JSON input"),
        (APPLY, b"a: b: c", "error decoding YAML"),
    ],
)
async def test_a_patch_that_is_none_is_a_bad_request(http: Http, media: str, body: bytes, said: str) -> None:
    await http.call("POST", http.path("configmaps"), config_map("patient"))
    options = {"fieldManager": "suite"} if media == APPLY else {}
    answer = await http.call("PATCH", http.path("configmaps", "patient"), body, media=media, **options)
    refused(answer, 400, "BadRequest", said)


@pytest.mark.parametrize("media", ["application/json", "text/plain"])
async def test_a_patch_needs_its_type(http: Http, media: str) -> None:
    answer = await http.call("PATCH", http.path("configmaps", "patient"), {}, media=media)
    refused(answer, 415, "UnsupportedMediaType")


@pytest.mark.parametrize("media", [MERGE, STRATEGIC])
async def test_a_patch_to_a_wrong_type_is_invalid(http: Http, media: str) -> None:
    await http.call("POST", http.path("apps/v1/deployments"), idle_deployment("typed"))
    answer = await http.call(
        "PATCH", http.path("apps/v1/deployments", "typed"), {"spec": {"replicas": "two"}}, media=media
    )
    refused(answer, 422, "Invalid", "patch: Invalid value")


async def test_dry_runs_tell_and_keep_nothing(http: Http) -> None:
    made = await http.create("configmaps", config_map("dry", a="1"), dryRun="All")
    assert made["metadata"]["uid"]
    refused(await http.call("GET", http.path("configmaps", "dry")), 404, "NotFound")
    await http.create("configmaps", config_map("wet", a="1"))
    assert (await http.patch("configmaps", "wet", {"data": {"a": "2"}}, dryRun="All"))["data"] == {"a": "2"}
    await http.ok("PUT", http.path("configmaps", "wet"), config_map("wet", b="2"), dryRun="All")
    await http.ok("DELETE", http.path("configmaps", "wet"), dryRun="All")
    assert (await http.get("configmaps", "wet"))["data"] == {"a": "1"}
    answer = await http.call("POST", http.path("configmaps"), {"metadata": {"name": "BAD"}}, dryRun="All")
    refused(answer, 422, "Invalid")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dryRun": "Some"}, 'dryRun: Unsupported value: ["Some"]: supported values: "All"'),
        ({"fieldManager": "x" * 129}, "fieldManager: Too long"),
        ({"fieldManager": "a\n"}, "fieldManager: Invalid value"),
        ({"fieldValidation": "Maybe"}, 'fieldValidation: Unsupported value: "Maybe"'),
    ],
)
async def test_options_are_checked(http: Http, options: dict[str, str], said: str) -> None:
    answer = await http.call("POST", http.path("configmaps"), config_map("optional"), **options)
    refused(answer, 422, "Invalid", 'CreateOptions.meta.k8s.io "" is invalid', said)


def with_unknown_fields(name: str) -> bytes:
    """Two fields that nobody knows, and one that comes twice."""
    manifest = idle_deployment(name)
    manifest["spec"]["replika"] = 1
    manifest["spec"]["template"]["spec"]["containers"][0]["imag"] = "x"
    return json.dumps(manifest).replace('"replicas": 0', '"replicas": 1, "replicas": 0').encode()


async def test_strict_validation_refuses_unknown_and_duplicate_fields(http: Http) -> None:
    path = http.path("apps/v1/deployments")
    answer = await http.call("POST", path, with_unknown_fields("strict"), fieldValidation="Strict")
    refused(
        answer, 400, "BadRequest",
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error:',
        'unknown field "spec.replika"', 'unknown field "spec.template.spec.containers[0].imag"',
        'duplicate field "spec.replicas"',
    )  # fmt: skip


@pytest.mark.parametrize("validation", ["Warn", ""])
async def test_by_default_unknown_fields_are_warned_of(http: Http, validation: str) -> None:
    options = {"fieldValidation": validation} if validation else {}
    body = with_unknown_fields(f"warned-{validation.lower() or 'by-default'}")
    kind = {"Content-Type": "application/json"}
    async with http.session.post(http.path("apps/v1/deployments"), data=body, params=options, headers=kind) as answer:
        assert answer.status == 201
        warnings = answer.headers.getall("Warning")
        assert "replika" not in (await answer.json())["spec"]
    assert len(warnings) == 3 and all(text.startswith('299 - "') for text in warnings)
    assert any('unknown field \\"spec.replika\\"' in text for text in warnings)


async def test_validation_can_be_ignored(http: Http) -> None:
    path = http.path("apps/v1/deployments")
    answer = await http.call("POST", path, with_unknown_fields("ignored"), fieldValidation="Ignore")
    assert (answer.code, "Warning" in answer.headers) == (201, False)


@pytest.mark.parametrize("media", [MERGE, STRATEGIC])
async def test_patches_are_validated_strictly_on_request(http: Http, media: str) -> None:
    await http.call("POST", http.path("configmaps"), config_map("checked"))
    path, change = http.path("configmaps", "checked"), {"dada": {"a": "1"}}
    answer = await http.call("PATCH", path, change, media=media, fieldValidation="Strict")
    refused(answer, 422, "Invalid", 'strict decoding error: unknown field "dada"')
    answer = await http.call("PATCH", path, change, media=media)
    assert answer.code == 200 and 'unknown field \\"dada\\"' in answer.headers["Warning"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "(<empty>)"),
        (b'{"kind":', "json parse error: unexpected end of JSON input"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[]", "json: cannot unmarshal array into Go value"),
        (b'"text"', "json: cannot unmarshal string into Go value"),
    ],
)
async def test_a_body_that_is_no_object_is_a_bad_request(http: Http, body: bytes, said: str) -> None:
    answer = await http.call("POST", http.path("configmaps"), body)
    refused(answer, 400, "BadRequest", "the object provided is unrecognized (must be of type ConfigMap)", said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spec": {"replicas": "two"}}, "string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"spec": {"paused": 1}}, "number into Go struct field DeploymentSpec.spec.paused of type bool"),
        ({"spec": {"template": {"spec": {"containers": "c"}}}}, "spec.template.spec.containers of type []v1.Container"),
        (
            {"metadata": {"labels": []}},
            "array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        ({"metadata": "x"}, "string into Go struct field Deployment.metadata of type v1.ObjectMeta"),
    ],
)
async def test_a_wrong_type_is_named_with_its_place(http: Http, change: Object, said: str) -> None:
    manifest = {**idle_deployment("mistyped"), **change}
    answer = await http.call("POST", http.path("apps/v1/deployments"), manifest)
    refused(answer, 400, "BadRequest", "cannot be handled as a Deployment: json: cannot unmarshal", said)


async def test_binary_data_must_be_base64(http: Http) -> None:
    body = {**config_map("binary"), "binaryData": {"a": "*"}}
    answer = await http.call("POST", http.path("configmaps"), body)
    refused(answer, 400, "BadRequest", "illegal base64 data at input byte 0")


@pytest.mark.parametrize(
    "kind", [("v1", "Secret"), ("apps/v1", "Deployment"), ("v2", "ConfigMap"), ("no.such/v1", "X")]
)
async def test_another_kinds_object_is_a_bad_request(http: Http, kind: tuple[str, str]) -> None:
    body = {"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": "x"}}
    answer = await http.call("POST", http.path("configmaps"), body)
    refused(answer, 400, "BadRequest", "cannot be handled as a ConfigMap")


async def test_an_unknown_content_type_is_not_read(http: Http) -> None:
    answer = await http.call("POST", http.path("configmaps"), config_map("x"), media="text/plain")
    refused(answer, 415, "UnsupportedMediaType", "accepted media types include: application/json, application/yaml")


async def test_an_unknown_accepted_type_is_not_served(http: Http) -> None:
    answer = await http.call("GET", http.path("configmaps"), accept="application/xml")
    refused(answer, 406, "NotAcceptable", "406: Not Acceptable")


async def test_yaml_is_read_and_written(http: Http) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-yaml}\ndata: {when: '2020-01-01', a: 'true'}\n"
    answer = await http.call("POST", http.path("configmaps"), body, media="application/yaml", accept="application/yaml")
    assert answer.code == 201 and answer.body.startswith("apiVersion: v1\ndata:\n")
    assert (await http.get("configmaps", "from-yaml"))["data"] == {"when": "2020-01-01", "a": "true"}
    twice = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: '1', a: '2'}\n"
    answer = await http.call("POST", http.path("configmaps"), twice, media="application/yaml", fieldValidation="Strict")
    refused(answer, 400, "BadRequest", 'key "a" already set in map')


async def test_bodies_have_a_limit(http: Http) -> None:
    for method, name, media in (("POST", "", "application/json"), ("PATCH", "patient", MERGE)):
        body = config_map("huge", a="x" * (3 * MIB + 1))
        answer = await http.call(method, http.path("configmaps", name), body, media=media)
        refused(answer, 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")


async def test_what_an_object_holds_has_a_limit(http: Http) -> None:
    answer = await http.call("POST", http.path("configmaps"), config_map("large", a="x" * (MIB + 1)))
    refused(answer, 422, "Invalid", "Too long: may not be more than 1048576 bytes")
    body = config_map("noted")
    body["metadata"]["annotations"] = {"a": "x" * (256 * 1024)}
    answer = await http.call("POST", http.path("configmaps"), body)
    refused(answer, 422, "Invalid", "metadata.annotations: Too long")


@pytest.mark.parametrize("path", ["/api/v1/namespaces/default/things", "/apis/apps/v9/deployments", "/apis/apps/v9"])
async def test_an_unknown_resource_is_not_found(http: Http, path: str) -> None:
    answer = await http.call("GET", path)
    refused(answer, 404, "NotFound", "the server could not find the requested resource")
    assert answer.body["details"] == {}


@pytest.mark.parametrize("path", ["/apis/no.such.group/v1/things", "/apis/no.such.group", "/nowhere"])
async def test_an_unknown_group_is_no_part_of_the_api(http: Http, path: str) -> None:
    answer = await http.call("GET", path)
    assert (answer.code, answer.body) == (404, "404 page not found\n")


@pytest.mark.parametrize(
    ("method", "name", "media"),
    [("PUT", "", "application/json"), ("PATCH", "", MERGE), ("POST", "patient", "application/json")],
)
async def test_a_verb_that_is_not_offered_is_not_allowed(http: Http, method: str, name: str, media: str) -> None:
    answer = await http.call(method, http.path("configmaps", name), {}, media=media)
    refused(answer, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


async def test_what_is_immutable_stays(http: Http) -> None:
    await http.create("configmaps", {**config_map("fixed", a="1"), "immutable": True})
    for change in ({"data": {"a": "2"}}, {"immutable": False}):
        answer = await http.call("PATCH", http.path("configmaps", "fixed"), change, media=MERGE)
        refused(answer, 422, "Invalid", "Forbidden: field is immutable when `immutable` is set")
    await http.create("apps/v1/deployments", idle_deployment("bound"))
    change = {"spec": {"selector": {"matchLabels": {"other": "label"}}}}
    answer = await http.call("PATCH", http.path("apps/v1/deployments", "bound"), change, media=MERGE)
    refused(answer, 422, "Invalid", "spec.selector: Invalid value", "field is immutable")


async def test_all_missing_fields_are_named_at_once(http: Http) -> None:
    answer = await http.call("POST", http.path("apps/v1/deployments"), {"metadata": {"name": "empty"}, "spec": {}})
    refused(answer, 422, "Invalid", 'Deployment.apps "empty" is invalid: [')
    fields = {cause["field"]: cause["reason"] for cause in answer.body["details"]["causes"]}
    assert fields["spec.selector"] == fields["spec.template.spec.containers"] == "FieldValueRequired"


async def test_a_secrets_text_is_kept_as_data(http: Http) -> None:
    made = await http.create(
        "secrets", {"metadata": {"name": "plain"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    )
    assert (made["data"], made["type"], "stringData" in made) == ({"a": "Yg==", "c": "ZA=="}, "Opaque", False)


async def test_a_status_is_written_through_its_subresource_alone(http: Http) -> None:
    name = "halves"
    made = await http.create("apps/v1/deployments", {**idle_deployment(name), "status": {"replicas": 9}})
    assert not made.get("status", {}).get("replicas")
    condition = {"type": "Suite", "status": "True", "reason": "Test", "message": "x"}
    change = {"spec": {"replicas": 7}, "status": {"conditions": [condition]}}
    found = await http.patch("apps/v1/deployments", name, change, sub="status")
    assert found["spec"]["replicas"] == 0
    assert "Suite" in {item["type"] for item in found["status"]["conditions"]}


async def test_a_scale_is_part_of_its_object(http: Http) -> None:
    await http.create("apps/v1/deployments", idle_deployment("scaled", paused=True))
    path = http.path("apps/v1/deployments", "scaled", "scale")
    scale = await http.ok("GET", path)
    assert (scale["kind"], scale["status"].get("selector")) == ("Scale", "app=scaled")
    generation = (await http.get("apps/v1/deployments", "scaled"))["metadata"]["generation"]
    scale["spec"] = {"replicas": 0}
    del scale["metadata"]["resourceVersion"]  # a controller may write in between
    await http.ok("PUT", path, scale)
    answer = await http.call("PATCH", path, {"spec": {"replicas": -1}}, media=MERGE)
    refused(answer, 422, "Invalid", "must be greater than or equal to 0")
    stale = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 0}}
    refused(await http.call("PATCH", path, stale, media=MERGE), 409, "Conflict")
    assert (await http.get("apps/v1/deployments", "scaled"))["metadata"]["generation"] == generation


async def test_a_generation_counts_changes_of_the_spec(http: Http) -> None:
    def generation(found: Object) -> int:
        return int(found["metadata"]["generation"])

    first = generation(await http.create("apps/v1/deployments", idle_deployment("counted", paused=True)))
    name = ("apps/v1/deployments", "counted")
    assert generation(await http.patch(*name, {"metadata": {"labels": {"x": "y"}}})) == first
    assert generation(await http.patch(*name, {"spec": {"minReadySeconds": 3}})) == first + 1


def test_kubectl_edits_by_patch_and_replace(cluster: Cluster, tmp_path: Any) -> None:
    cluster.apply(config_map("edited", a="1"))
    cluster.kubectl("patch", "configmap/edited", "--type=json", "-p", '[{"op":"add","path":"/data/b","value":"2"}]')
    cluster.kubectl("label", "configmap/edited", "tier=one")
    assert "not found" in cluster.refused("label", "configmap/absent", "tier=one")
    found = cluster.get("configmap/edited")
    assert (found["data"], found["metadata"]["labels"]["tier"]) == ({"a": "1", "b": "2"}, "one")
    file = tmp_path / "object.json"
    file.write_text(json.dumps({**found, "data": {"c": "3"}}))
    cluster.kubectl("replace", "-f", str(file))
    assert "the object has been modified" in cluster.refused("replace", "-f", str(file))
    assert cluster.get("configmap/edited")["data"] == {"c": "3"}


def test_kubectl_tells_what_would_change(cluster: Cluster) -> None:
    cluster.apply(config_map("differing", a="1"))
    done = cluster.run("diff", "-f", "-", stdin=json.dumps(config_map("differing", a="2")))
    assert done.returncode == 1 and '-  a: "1"' in done.stdout and '+  a: "2"' in done.stdout
    assert cluster.run("diff", "-f", "-", stdin=json.dumps(config_map("differing", a="1"))).returncode == 0
    assert cluster.get("configmap/differing")["data"] == {"a": "1"}


def test_kubectl_apply_removes_what_its_last_manifest_had(cluster: Cluster) -> None:
    labels = {"tier": "one"}
    cluster.apply(config_map("applied", labels, a="1", b="2"))
    cluster.kubectl("patch", "configmap/applied", "--type=merge", "-p", '{"data":{"mine":"x"}}')
    assert "configured" in cluster.apply(config_map("applied", labels, a="1"))
    assert cluster.get("configmap/applied")["data"] == {"a": "1", "mine": "x"}
    assert "unchanged" in cluster.apply(config_map("applied", labels, a="1"))
