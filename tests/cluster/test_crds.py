"""Custom resources: schemas with defaults, pruning and rules, subresources, tables, versions, and their end."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.client import APPLY, JSON_PATCH, MERGE, STRATEGIC, Answer, Cluster, Http, Object, eventually
from tests.cluster.objects import definition

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TEXT: Object = {"type": "string"}
NUMBER: Object = {"type": "integer"}


def an_object(**properties: Object) -> Object:
    return {"type": "object", "properties": properties}


def rule(text: str, **more: str) -> Object:
    return {"x-kubernetes-validations": [{"rule": text, **more}]}


ITEM = {**an_object(name=TEXT, v={**NUMBER, "default": 7}), "required": ["name"]}
SPEC = {
    **an_object(
        size={**NUMBER, "minimum": 1, "maximum": 10},
        mode={**TEXT, "enum": ["a", "b"], "default": "a"},
        word={**TEXT, "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"},
        maybe={**TEXT, "nullable": True, "default": "set"},
        always=TEXT,
        share={"type": "number"},
        when={**TEXT, "format": "date-time"},
        port={"x-kubernetes-int-or-string": True},
        free={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        embedded={
            "type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True,
        },
        items={
            "type": "array", "items": ITEM, "maxItems": 3, "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
        tags={"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
        amounts={"type": "object", "additionalProperties": NUMBER},
        nested={**an_object(deep={**NUMBER, "default": 3}), "default": {}},
        fixed={**TEXT, **rule("self == oldSelf", message="fixed is immutable")},
        growing={**NUMBER, **rule("self >= oldSelf")},
    ),
    "required": ["size"],
    "x-kubernetes-validations": [
        {"rule": "!has(self.word) || self.word != 'bad'", "message": "this word is bad"},
        {
            "rule": "!has(self.port) || self.size < 9", "messageExpression": "'too ' + 'large'",
            "reason": "FieldValueForbidden", "fieldPath": ".size",
        },
    ],
}  # fmt: skip
COLUMNS = [
    {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "how large it is"},
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Mode", "type": "string", "jsonPath": ".spec.mode", "priority": 1},
    {"name": "Made", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]  # fmt: skip
SCALE = {
    "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.ready", "labelSelectorPath": ".status.selector",
}  # fmt: skip


@pytest.fixture(scope="module")
def group(define: Callable[..., str]) -> str:
    """Widgets with all that a schema may have."""
    schema = an_object(spec=SPEC, status=an_object(phase=TEXT, ready=NUMBER, selector=TEXT))
    columns = {"additionalPrinterColumns": COLUMNS}
    return define(schema, {"shortNames": ["wd"]}, subresources={"status": {}, "scale": SCALE}, **columns)


class Widgets:
    """The suite's custom resource over plain HTTP."""

    def __init__(self, http: Http, group: str) -> None:
        self.http, self.group, self.resource = http, group, f"{group}/widgets"

    def body(self, called: str, **spec: Any) -> Object:
        return {"apiVersion": self.group, "kind": "Widget", "metadata": {"name": called}, "spec": spec}

    async def create(self, called: str, **spec: Any) -> Object:
        return await self.http.create(self.resource, self.body(called, **spec))

    async def attempt(self, spec: Object, **query: str) -> Answer:
        return await self.http.call("POST", self.http.path(self.resource), self.body("refused", **spec), **query)

    async def change(self, called: str, spec: Object) -> Answer:
        return await self.http.call("PATCH", self.http.path(self.resource, called), {"spec": spec}, media=MERGE)

    async def apply(self, called: str, manager: str, spec: Object, **query: str) -> Answer:
        path = self.http.path(self.resource, called)
        body = self.body(called, **spec)
        return await self.http.call("PATCH", path, body, media=APPLY, fieldManager=manager, **query)


@pytest.fixture
def widgets(http: Http, group: str) -> Widgets:
    return Widgets(http, group)


def causes(answer: Answer) -> set[tuple[str, str]]:
    """Fields and reasons of an invalid object."""
    assert (answer.code, answer.reason) == (422, "Invalid"), answer.body
    return {(cause["field"], cause["reason"]) for cause in answer.body["details"]["causes"]}


async def test_a_definition_is_established(http: Http, group: str) -> None:
    found = await http.ok("GET", f"{DEFINITIONS}/widgets.{group.split('/', maxsplit=1)[0]}")
    conditions = {item["type"]: item for item in found["status"]["conditions"]}
    assert conditions["NamesAccepted"]["reason"] == "NoConflicts"
    assert conditions["Established"]["reason"] == "InitialNamesAccepted"
    assert found["status"]["storedVersions"] == ["v1"]
    assert found["status"]["acceptedNames"] == {
        "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"],
    }  # fmt: skip
    assert found["spec"]["conversion"] == {"strategy": "None"}


async def test_a_definition_is_part_of_discovery_and_openapi(http: Http, group: str, cluster: Cluster) -> None:
    name, version = group.split("/")
    found = await http.ok("GET", f"/apis/{name}")
    assert found["preferredVersion"] == {"groupVersion": group, "version": version}
    resources = {item["name"]: item for item in (await http.ok("GET", f"/apis/{group}"))["resources"]}
    assert set(resources) == {"widgets", "widgets/status", "widgets/scale"}
    assert resources["widgets/scale"]["kind"] == "Scale"

    async def document() -> Any:
        answer = await http.call("GET", f"/openapi/v3/apis/{group}")
        return answer.body if answer.code == 200 else None

    schemas = (await eventually("the OpenAPI document", document))["components"]["schemas"]
    kind = ".".join([*reversed(name.split(".")), version, "Widget"])
    assert schemas[kind]["properties"]["spec"]["properties"]["mode"]["enum"] == ["a", "b"]
    cluster.kubectl("api-resources", f"--api-group={name}")  # which forgets what kubectl had cached
    assert "FIELD: size <integer>" in cluster.kubectl("explain", "widgets.spec.size", f"--api-version={group}")


async def test_defaults_fill_what_is_missing(widgets: Widgets) -> None:
    made = await widgets.create("plain", size=3, items=[{"name": "a"}])
    items = [{"name": "a", "v": 7}]
    assert made["spec"] == {"size": 3, "mode": "a", "maybe": "set", "nested": {"deep": 3}, "items": items}
    assert made["metadata"]["generation"] == 1


async def test_nulls_are_kept_defaulted_or_dropped(widgets: Widgets) -> None:
    made = await widgets.create("nulls", size=3, maybe=None, mode=None, always=None)
    assert made["spec"] == {"size": 3, "maybe": None, "mode": "a", "nested": {"deep": 3}}
    assert ("spec.size", "FieldValueRequired") in causes(await widgets.attempt({"size": None}))


async def test_unknown_fields_are_pruned(widgets: Widgets) -> None:
    body = {**widgets.body("pruned", size=3, zap=1, items=[{"name": "a", "zip": 1}]), "top": 1}
    answer = await widgets.http.call("POST", widgets.http.path(widgets.resource), body)
    assert answer.code == 201 and "unknown field" in answer.headers["Warning"]
    assert "zap" not in answer.body["spec"] and "top" not in answer.body
    assert answer.body["spec"]["items"] == [{"name": "a", "v": 7}]
    body["metadata"]["name"] = "strict"
    answer = await widgets.http.call("POST", widgets.http.path(widgets.resource), body, fieldValidation="Strict")
    assert (answer.code, answer.reason) == (400, "BadRequest")
    assert 'unknown field "spec.items[0].zip", unknown field "spec.zap", unknown field "top"' in answer.message


async def test_duplicate_fields_are_refused_on_request(widgets: Widgets) -> None:
    body = json.dumps(widgets.body("doubled", size=3)).replace('"size": 3', '"size": 3, "size": 4').encode()
    answer = await widgets.http.call("POST", widgets.http.path(widgets.resource), body, fieldValidation="Strict")
    assert (answer.code, 'strict decoding error: duplicate field "spec.size"' in answer.message) == (400, True)


async def test_what_the_schema_preserves_stays(widgets: Widgets) -> None:
    inner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "zap": 1}, "data": {"a": "b"}}
    made = await widgets.create("free", size=3, free={"x": {"y": [1, None]}}, embedded=inner)
    assert made["spec"]["free"] == {"x": {"y": [1, None]}}
    assert made["spec"]["embedded"] == {**inner, "metadata": {"name": "x"}}
    found = causes(await widgets.attempt({"size": 3, "embedded": {"data": {}}}))
    assert {("spec.embedded.apiVersion", "FieldValueRequired"), ("spec.embedded.kind", "FieldValueRequired")} <= found


@pytest.mark.parametrize(
    ("spec", "field", "reason", "said"),
    [
        ({}, "spec.size", "FieldValueRequired", "spec.size: Required value"),
        ({"size": "x"}, "spec.size", "FieldValueTypeInvalid", "must be of type integer"),
        ({"size": 1.5}, "spec.size", "FieldValueTypeInvalid", "must be of type integer"),
        ({"size": True}, "spec.size", "FieldValueTypeInvalid", "must be of type integer"),
        ({"size": 11}, "spec.size", "FieldValueInvalid", "should be less than or equal to 10"),
        ({"size": 0}, "spec.size", "FieldValueInvalid", "should be greater than or equal to 1"),
        ({"size": 3, "mode": "c"}, "spec.mode", "FieldValueNotSupported", 'supported values: "a", "b"'),
        ({"size": 3, "word": "x"}, "spec.word", "FieldValueInvalid", "should be at least 2 chars long"),
        ({"size": 3, "word": "abcdef"}, "spec.word", "FieldValueTooLong", "Too long: may not be more than 5"),
        ({"size": 3, "word": "X1"}, "spec.word", "FieldValueInvalid", "should match '^[a-z]+$'"),
        ({"size": 3, "when": "soon"}, "spec.when", "FieldValueTypeInvalid", "must be of type date-time"),
        ({"size": 3, "port": True}, "spec.port", "FieldValueTypeInvalid", "must be of type integer,string"),
        ({"size": 3, "items": {}}, "spec.items", "FieldValueTypeInvalid", "must be of type array"),
        ({"size": 3, "items": [{}]}, "spec.items[0].name", "FieldValueRequired", "Required value"),
        ({"size": 3, "items": [{"name": str(n)} for n in range(4)]}, "spec.items", "FieldValueTooMany", "Too many: 4"),
        ({"size": 3, "items": [{"name": "a"}] * 2}, "spec.items[1]", "FieldValueDuplicate", "Duplicate value"),
        ({"size": 3, "tags": ["a", "a"]}, "spec.tags[1]", "FieldValueDuplicate", 'Duplicate value: "a"'),
        ({"size": 3, "amounts": {"a": "b"}}, "spec.amounts.a", "FieldValueTypeInvalid", "must be of type integer"),
        ({"size": 3, "free": []}, "spec.free", "FieldValueTypeInvalid", "must be of type object"),
        ({"size": 3, "share": "x"}, "spec.share", "FieldValueTypeInvalid", "must be of type number"),
    ],
)
async def test_each_constraint_is_named_with_its_field(
    widgets: Widgets, spec: Object, field: str, reason: str, said: str
) -> None:
    answer = await widgets.attempt(spec)
    assert (field, reason) in causes(answer)
    assert said in answer.message
    assert answer.message.startswith(f'Widget.{widgets.group.split("/")[0]} "refused" is invalid: ')


async def test_integers_or_strings_are_either(widgets: Widgets) -> None:
    assert (await widgets.create("port-a", size=3, port="http"))["spec"]["port"] == "http"
    assert (await widgets.create("port-b", size=3, port=80))["spec"]["port"] == 80


async def test_rules_compare_fields(widgets: Widgets) -> None:
    answer = await widgets.attempt({"size": 3, "word": "bad"})
    assert causes(answer) == {("spec", "FieldValueInvalid")}
    assert "this word is bad" in answer.message
    answer = await widgets.attempt({"size": 9, "port": 80})
    assert causes(answer) == {("spec.size", "FieldValueForbidden")}
    assert "spec.size: Forbidden: too large" in answer.message


async def test_rules_wait_for_a_valid_object(widgets: Widgets) -> None:
    answer = await widgets.attempt({"size": "x", "word": "bad"})
    assert "this word is bad" not in answer.message
    assert "some validation rules were not checked because the object was invalid" in answer.message


async def test_transition_rules_compare_with_the_old_object(widgets: Widgets) -> None:
    await widgets.create("moving", size=3, fixed="x", growing=5)
    answer = await widgets.change("moving", {"fixed": "y"})
    assert causes(answer) == {("spec.fixed", "FieldValueInvalid")}
    assert "fixed is immutable" in answer.message
    answer = await widgets.change("moving", {"growing": 4})
    assert "failed rule: self >= oldSelf" in answer.message
    assert (await widgets.change("moving", {"growing": 6})).code == 200
    # a rule of a field holds only where both objects have it
    assert (await widgets.change("moving", {"fixed": None})).code == 200
    assert (await widgets.change("moving", {"fixed": "z"})).code == 200


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"kind": "Gadget"}, 422, 'kind: Invalid value: "Gadget": must be Widget'),
        ({"kind": ""}, 400, "Object 'Kind' is missing in"),
        ({"apiVersion": "other.test/v1"}, 400, "does not match the expected API version"),
        ({"apiVersion": ""}, 400, "the API version in the data () does not match the expected API version"),
        ({"metadata": {}}, 422, "metadata.name: Required value: name or generateName is required"),
        ({"metadata": {"name": "Not_A_Name"}}, 422, "a lowercase RFC 1123 subdomain must consist of"),
        ({"metadata": {"name": "x", "labels": {"a": 1}}}, 400, "cannot unmarshal number into Go struct field"),
    ],
)
async def test_what_every_object_has_is_checked(widgets: Widgets, change: Object, code: int, said: str) -> None:
    body = {**widgets.body("checked", size=3), **change}
    answer = await widgets.http.call("POST", widgets.http.path(widgets.resource), body)
    assert answer.code == code, answer.body
    assert said in answer.message


async def test_updates_need_the_version_that_they_saw(widgets: Widgets) -> None:
    made = await widgets.create("versioned", size=3)
    path = widgets.http.path(widgets.resource, "versioned")
    await widgets.http.ok("PUT", path, {**made, "spec": {**made["spec"], "size": 4}})
    answer = await widgets.http.call("PUT", path, made)
    assert (answer.code, answer.reason) == (409, "Conflict")
    del made["metadata"]["resourceVersion"]
    answer = await widgets.http.call("PUT", path, made)
    assert causes(answer) == {("metadata.resourceVersion", "FieldValueInvalid")}
    assert "must be specified for an update" in answer.message


async def test_patches_are_json_or_merge(widgets: Widgets) -> None:
    await widgets.create("patched", size=3)
    path = widgets.http.path(widgets.resource, "patched")
    operations = [{"op": "replace", "path": "/spec/size", "value": 4}]
    assert (await widgets.http.ok("PATCH", path, operations, media=JSON_PATCH))["spec"]["size"] == 4
    answer = await widgets.http.call("PATCH", path, {}, media=STRATEGIC)
    assert (answer.code, answer.reason) == (415, "UnsupportedMediaType")
    answer = await widgets.http.call("PATCH", path, {"spec": {"zap": 1}}, media=MERGE, fieldValidation="Strict")
    assert 'strict decoding error: unknown field "spec.zap"' in answer.message and answer.code == 422


async def test_the_status_is_a_half_of_its_own(widgets: Widgets) -> None:
    http, resource = widgets.http, widgets.resource
    made = await http.create(resource, {**widgets.body("halved", size=3), "status": {"phase": "x"}})
    assert "status" not in made
    change = {"status": {"phase": "Running", "zap": 1}, "spec": {"size": 9}, "metadata": {"labels": {"x": "y"}}}
    found = await http.patch(resource, "halved", change, sub="status")
    assert (found["status"], found["spec"]["size"]) == ({"phase": "Running"}, 3)
    assert "labels" not in found["metadata"] and found["metadata"]["generation"] == 1
    found = await http.patch(resource, "halved", {"status": {"phase": "mine"}, "spec": {"size": 4}})
    assert (found["status"], found["metadata"]["generation"]) == ({"phase": "Running"}, 2)
    found = await http.patch(resource, "halved", {"metadata": {"labels": {"x": "y"}}})
    assert found["metadata"]["generation"] == 2
    answer = await http.call("PATCH", http.path(resource, "halved", "status"), {"status": {"ready": "x"}}, media=MERGE)
    assert ("status.ready", "FieldValueTypeInvalid") in causes(answer)


async def test_the_scale_maps_to_fields(widgets: Widgets, cluster: Cluster) -> None:
    http, resource = widgets.http, widgets.resource
    await widgets.create("scaled", size=3)
    await http.patch(resource, "scaled", {"status": {"ready": 2, "selector": "a=b"}}, sub="status")
    path = http.path(resource, "scaled", "scale")
    scale = await http.ok("GET", path)
    assert (scale["spec"], scale["status"]) == ({"replicas": 3}, {"replicas": 2, "selector": "a=b"})
    await http.ok("PATCH", path, {"spec": {"replicas": 5}}, media=MERGE)
    assert (await http.get(resource, "scaled"))["spec"]["size"] == 5
    answer = await http.call("PATCH", path, {"spec": {"replicas": 77}}, media=MERGE)
    assert ("spec.size", "FieldValueInvalid") in causes(answer)
    cluster.kubectl("scale", f"widgets.{widgets.group.split('/')[0]}/scaled", "--replicas=2")
    assert (await http.get(resource, "scaled"))["spec"]["size"] == 2


async def test_what_is_not_declared_has_no_subresources(http: Http, define: Callable[..., str]) -> None:
    bare = define(an_object(spec=an_object(a=TEXT), status=an_object(b=TEXT)))
    body = {"apiVersion": bare, "kind": "Widget", "metadata": {"name": "bare"}, "status": {"b": "1"}}
    made = await http.create(f"{bare}/widgets", body)
    assert made["status"] == {"b": "1"}
    found = await http.patch(f"{bare}/widgets", "bare", {"status": {"b": "2"}})
    assert found["metadata"]["generation"] == 2
    assert (await http.call("GET", http.path(f"{bare}/widgets", "bare", "status"))).code == 404


async def test_lists_merge_by_what_the_schema_says(widgets: Widgets) -> None:
    await widgets.apply("merged", "one", {"size": 1, "items": [{"name": "a"}], "tags": ["x"]})
    answer = await widgets.apply("merged", "two", {"items": [{"name": "b", "v": 1}], "tags": ["y"]})
    assert answer.code == 200, answer.body
    spec = answer.body["spec"]
    assert {item["name"]: item["v"] for item in spec["items"]} == {"a": 7, "b": 1}
    assert set(spec["tags"]) == {"x", "y"}
    answer = await widgets.apply("merged", "two", {"size": 2})
    assert (answer.code, ".spec.size" in answer.message) == (409, True)
    answer = await widgets.apply("merged", "one", {"size": 1})
    assert ([item["name"] for item in answer.body["spec"]["items"]], answer.body["spec"]["tags"]) == (["b"], ["y"])


async def test_nobody_owns_defaults(widgets: Widgets) -> None:
    answer = await widgets.apply("defaulted", "one", {"size": 1})
    assert answer.body["spec"]["mode"] == "a"
    fields = answer.body["metadata"]["managedFields"][0]["fieldsV1"]
    assert fields == {"f:spec": {"f:size": {}}}
    assert (await widgets.apply("defaulted", "two", {"mode": "b"})).body["spec"]["mode"] == "b"
    assert (await widgets.apply("defaulted", "two", {})).body["spec"]["mode"] == "a"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"size": 1, "zap": 1}, ".spec.zap: field not declared in schema"),
        ({"size": "x"}, ".spec.size: expected numeric (int or float), got string"),
        ({"size": 1, "items": [{"v": 1}]}, "associative list with keys has an element that omits"),
        ({"size": 1, "items": [{"name": "a"}, {"name": "a"}]}, 'duplicate entries for key [name="a"]'),
    ],
)
async def test_an_applied_configuration_fits_the_schema(widgets: Widgets, spec: Object, said: str) -> None:
    answer = await widgets.apply("unfit", "one", spec)
    assert answer.code == 500, answer.body
    assert "failed to create typed patch object" in answer.message and said in answer.message


async def test_columns_are_computed_by_the_server(widgets: Widgets, cluster: Cluster) -> None:
    await widgets.create("shown", size=3)
    await widgets.http.patch(widgets.resource, "shown", {"status": {"phase": "Ready"}}, sub="status")
    found = await widgets.http.ok("GET", widgets.http.path(widgets.resource, "shown"), accept=TABLE)
    columns = {item["name"]: item for item in found["columnDefinitions"]}
    assert list(columns) == ["Name", "Size", "Phase", "Mode", "Made"]
    assert (columns["Size"]["type"], columns["Size"]["description"]) == ("integer", "how large it is")
    assert [columns[name]["priority"] for name in ("Size", "Mode")] == [0, 1]
    assert found["rows"][0]["cells"][:4] == ["shown", 3, "Ready", "a"]
    lines = cluster.kubectl("get", f"widgets.{widgets.group.split('/')[0]}", "shown").splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "PHASE", "MADE"]
    assert lines[1].split()[:3] == ["shown", "3", "Ready"]
    wide = cluster.kubectl("get", f"widgets.{widgets.group.split('/')[0]}", "shown", "-o", "wide")
    assert "MODE" in wide.splitlines()[0]


async def test_without_columns_the_age_is_shown(http: Http, define: Callable[..., str]) -> None:
    bare = define(an_object())
    found = await http.ok("GET", http.path(f"{bare}/widgets"), accept=TABLE)
    assert [column["name"] for column in found["columnDefinitions"]] == ["Name", "Age"]


@pytest.fixture(scope="module")
def gears(base: Cluster) -> Any:
    """A kind in two versions with one shape, and a third that is not served."""
    group = f"t{secrets.token_hex(4)}.mizzen.test"
    shape = {"openAPIV3Schema": an_object(spec=an_object(a=TEXT, b=TEXT))}
    crd = definition(group, {}, "gears")
    crd["spec"]["versions"] = [
        {"name": "v1", "served": True, "storage": True, "schema": shape},
        {"name": "v2", "served": True, "storage": False, "schema": shape},
        {"name": "v3alpha1", "served": False, "storage": False, "schema": shape},
    ]
    base.apply(crd)
    base.kubectl("wait", "--for=condition=Established", f"crd/gears.{group}", "--timeout=30s")
    yield group
    base.kubectl("delete", "crd", f"gears.{group}", "--wait=false", "--ignore-not-found")


async def test_versions_convert_by_their_name_alone(http: Http, gears: str) -> None:
    async def served() -> bool:
        return (await http.call("GET", http.path(f"{gears}/v2/gears"))).code == 200

    await eventually("both versions", served)
    body = {"apiVersion": f"{gears}/v2", "kind": "Gear", "metadata": {"name": "g"}, "spec": {"a": "1"}}
    made = await http.create(f"{gears}/v2/gears", body)
    old = await http.get(f"{gears}/v1/gears", "g")
    assert old["apiVersion"] == f"{gears}/v1"
    assert (old["spec"], old["metadata"]["uid"]) == (made["spec"], made["metadata"]["uid"])
    await http.patch(f"{gears}/v1/gears", "g", {"spec": {"b": "2"}})
    listed = await http.get(f"{gears}/v2/gears")
    assert (listed["apiVersion"], listed["items"][0]["apiVersion"]) == (f"{gears}/v2", f"{gears}/v2")
    assert listed["items"][0]["spec"] == {"a": "1", "b": "2"}
    seen = await http.seen(http.path(f"{gears}/v2/gears"), 1)
    assert seen == [("ADDED", "g")]
    assert (await http.call("GET", http.path(f"{gears}/v3alpha1/gears"))).code == 404
    body |= {"apiVersion": f"{gears}/v1"}
    answer = await http.call("POST", http.path(f"{gears}/v2/gears"), body)
    assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_the_newest_version_is_preferred(http: Http, gears: str) -> None:
    async def versions() -> list[str]:
        found = await http.call("GET", f"/apis/{gears}")
        return [item["version"] for item in found.body["versions"]] if found.code == 200 else []

    await eventually("both versions", versions)
    assert await versions() == ["v2", "v1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scope": "Cluster"}, "spec.scope: Invalid value"),
        ({"group": "other.test"}, "spec.group: Invalid value"),
    ],
)
async def test_what_a_definition_is_cannot_change(http: Http, gears: str, change: Object, said: str) -> None:
    answer = await http.call("PATCH", f"{DEFINITIONS}/gears.{gears}", {"spec": change}, media=MERGE)
    assert answer.code == 422, answer.body
    assert said in answer.message


async def test_a_stored_version_cannot_go(http: Http, gears: str) -> None:
    operations = [
        {"op": "remove", "path": "/spec/versions/0"},
        {"op": "replace", "path": "/spec/versions/0/storage", "value": True},
    ]
    answer = await http.call("PATCH", f"{DEFINITIONS}/gears.{gears}", operations, media=JSON_PATCH)
    assert answer.code == 422, answer.body
    assert 'status.storedVersions[0]: Invalid value: "v1"' in answer.message


@pytest.mark.parametrize(
    ("property", "said"),
    [
        ({}, "properties[a].type: Required value: must not be empty for specified object fields"),
        ({**TEXT, "pattern": "("}, "must be a valid regular expression"),
        ({**TEXT, "default": 1}, "properties[a].default: Invalid value"),
        ({**an_object(b=TEXT), "default": {"c": 1}}, "must not have unknown fields"),
        ({**an_object(b=TEXT), "additionalProperties": TEXT}, "and properties are mutual exclusive"),
        ({**TEXT, **rule("self ===")}, "x-kubernetes-validations[0].rule: Invalid value"),
        ({**an_object(b=TEXT), **rule("self.c == 'x'")}, "undefined field 'c'"),
        ({"type": "array", "items": an_object(n=TEXT), "x-kubernetes-list-type": "map"}, "must not be empty if"),
        (
            {"type": "array", "items": an_object(n=TEXT), "x-kubernetes-list-type": "map",
             "x-kubernetes-list-map-keys": ["m"]},
            "entries must all be names of item properties",
        ),
        (
            {"type": "array", "items": an_object(n=TEXT), "x-kubernetes-list-type": "map",
             "x-kubernetes-list-map-keys": ["n"]},
            "it must have a default or be a required property",
        ),
    ],
)  # fmt: skip
async def test_a_schema_is_structural(http: Http, property: Object, said: str) -> None:
    crd = definition("unfit.mizzen.test", an_object(a=property))
    answer = await http.call("POST", DEFINITIONS, crd, dryRun="All")
    assert (answer.code, answer.reason) == (422, "Invalid"), answer.body
    assert said in answer.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scope": "Nowhere"}, 'spec.scope: Unsupported value: "Nowhere": supported values: "Cluster", "Namespaced"'),
        ({"names": {"plural": "widgets", "kind": ""}}, "spec.names.kind: Required value"),
        ({"names": {"plural": "others", "kind": "Other"}}, 'must be spec.names.plural+"."+spec.group'),
        ({"versions": []}, "must have exactly one version marked as storage version"),
    ],
)
async def test_a_definition_is_checked(http: Http, change: Object, said: str) -> None:
    crd = definition("unfit.mizzen.test", an_object())
    crd["spec"] |= change
    answer = await http.call("POST", DEFINITIONS, crd, dryRun="All")
    assert (answer.code, answer.reason) == (422, "Invalid"), answer.body
    assert said in answer.message


async def test_selectable_fields_select(http: Http, define: Callable[..., str]) -> None:
    fields = {"selectableFields": [{"jsonPath": ".spec.colour"}]}
    group = define(an_object(spec=an_object(colour=TEXT)), **fields)
    for name, colour in (("a", "red"), ("b", "blue")):
        body = {"apiVersion": group, "kind": "Widget", "metadata": {"name": name}, "spec": {"colour": colour}}
        await http.create(f"{group}/widgets", body)
    found = await http.get(f"{group}/widgets", fieldSelector="spec.colour=red")
    assert [item["metadata"]["name"] for item in found["items"]] == ["a"]


async def test_a_definition_takes_its_objects_along(http: Http, define: Callable[..., str], cluster: Cluster) -> None:
    group = define(an_object(spec=an_object()))
    path = http.path(f"{group}/widgets")
    body: Object = {"apiVersion": group, "kind": "Widget", "metadata": {"name": "held"}}
    await http.ok("POST", path, {**body, "metadata": {"name": "held", "finalizers": ["a.test/hold"]}})
    name = f"widgets.{group.split('/')[0]}"
    await http.ok("DELETE", f"{DEFINITIONS}/{name}")

    async def ending() -> bool:
        found = await http.call("GET", f"{path}/held")
        return found.code == 200 and "deletionTimestamp" in found.body["metadata"]

    await eventually("the object to be told to go", ending)
    crd = await http.ok("GET", f"{DEFINITIONS}/{name}")
    assert "deletionTimestamp" in crd["metadata"]
    assert crd["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    await http.ok("PATCH", f"{path}/held", {"metadata": {"finalizers": None}}, media=MERGE)

    async def gone() -> bool:
        return (await http.call("GET", f"{DEFINITIONS}/{name}")).code == 404

    await eventually("the definition to go", gone)
    assert "the server doesn't have a resource type" in cluster.refused("get", name)
