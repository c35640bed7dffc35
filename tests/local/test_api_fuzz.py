"""Whatever is sent, the server answers with a Status of the right code, never breaks on it, and lives on."""

from __future__ import annotations

import asyncio
import copy
import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mizzen_local.api import bootstrap
from mizzen_local.api.app import App
from mizzen_local.api.auth import Authenticator
from mizzen_local.api.kubelets import Kubelets
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.rbac import Authorizer
from mizzen_local.api.store import Store

TOKEN = "secret"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))  # `make fuzz` draws others each time, and many
PATCHES = ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
TYPES = ("application/json", "application/yaml", "text/plain", "application/vnd.kubernetes.protobuf", "", "x/")
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["x.dev/f"]},
    "spec": {
        "containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]}
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]}
WIDGETS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.fuzz.dev"},
    "spec": {
        "group": "fuzz.dev",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "x-kubernetes-validations": [{"rule": "self.low <= self.high", "message": "order"}],
                                "properties": {
                                    "low": {"type": "integer", "default": 1},
                                    "high": {"type": "integer", "default": 2},
                                    "names": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}
SPACE = "/namespaces/default"
OBJECTS: list[tuple[str, dict[str, Any]]] = [
    (f"/api/v1{SPACE}/pods", POD),
    (f"/api/v1{SPACE}/configmaps", {"metadata": {"name": "m"}, "data": {"a": "b"}, "binaryData": {"c": "ZA=="}}),
    (f"/api/v1{SPACE}/secrets", {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}),
    (f"/api/v1{SPACE}/services", {"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 1}]}}),
    ("/api/v1/namespaces", {"metadata": {"name": "n"}}),
    (
        f"/apis/apps/v1{SPACE}/deployments",
        {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}},
    ),
    (f"/apis/batch/v1{SPACE}/jobs", {"metadata": {"name": "j"}, "spec": {"template": TEMPLATE, "completions": 2}}),
    ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS),
    (
        f"/apis/fuzz.dev/v1{SPACE}/widgets",
        {
            "apiVersion": "fuzz.dev/v1",
            "kind": "Widget",
            "metadata": {"name": "w"},
            "spec": {"low": 1, "names": ["x"]},
        },
    ),
    (f"/api/v1{SPACE}/serviceaccounts", {"metadata": {"name": "default"}, "spec": {"audiences": ["a"]}}),
    (
        "/apis/authentication.k8s.io/v1/tokenreviews",
        {"metadata": {"name": "t"}, "spec": {"token": "x"}},
    ),
    (
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {"metadata": {"name": "a"}, "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}},
    ),
    (
        f"/apis/autoscaling/v2{SPACE}/horizontalpodautoscalers",
        {
            "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 2, "metrics": []},
        },
    ),
    (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    ),
]
QUERIES = {
    "labelSelector": st.sampled_from(["a=b", "a in (b,", "!", "a==", "a notin ()", "=,=", "a=b,c", "(((", "é=ü"]),
    "fieldSelector": st.sampled_from(["metadata.name=x", "spec.nope=1", "metadata.name", "=", "status.phase!=Running"]),
    "limit": st.sampled_from(["1", "0", "-1", "x", "99999999999999999999"]),
    "continue": st.sampled_from(["", "x", "e30=", "eyJydiI6MX0="]),
    "resourceVersion": st.sampled_from(["0", "1", "-5", "x", "999999999"]),
    "resourceVersionMatch": st.sampled_from(["Exact", "NotOlderThan", "x"]),
    "dryRun": st.sampled_from(["All", "x"]),
    "fieldValidation": st.sampled_from(["Strict", "Warn", "Ignore", "x"]),
    "fieldManager": st.sampled_from(["me", "", "x" * 200, "\n"]),
    "force": st.sampled_from(["true", "x"]),
    "propagationPolicy": st.sampled_from(["Foreground", "Orphan", "x"]),
    "gracePeriodSeconds": st.sampled_from(["0", "-1", "x"]),
    "timeoutSeconds": st.sampled_from(["1", "x"]),
}
BARE_500 = (
    "resourceVersion should not be set on objects to be created", "strconv.ParseUint", "unknown patch type",
    "does not contain declared merge key",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


@st.composite
def bodies(draw: st.DrawFn, base: dict[str, Any]) -> bytes:
    """A manifest with one to three of its values replaced by anything; now and then no manifest at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=40))
    body: Any = copy.deepcopy(base)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(places(body))))
        if not path:
            return json.dumps(draw(JSON)).encode()
        owner = body
        for key in path[:-1]:
            owner = owner[key]
        owner[path[-1]] = draw(JSON)
    if draw(st.integers(0, 4)) == 0:
        body = [{"op": draw(st.sampled_from(["add", "test", "remove", "x"])), "path": draw(st.text()), "value": body}]
    return json.dumps(body).encode()


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str, str, bytes]:
    """Method, path, query, content type and body."""
    path, base = draw(st.sampled_from(OBJECTS))
    method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]))
    if draw(st.integers(0, 9)) > (6 if method == "POST" else 1):
        path += "/" + draw(st.sampled_from([base["metadata"]["name"], "none", "%00", "a%2Fb", "é"]))
        path += draw(
            st.sampled_from(["", "", "", "/status", "/scale", "/eviction", "/binding", "/token", "/finalize", "/x"])
        )
    names = draw(st.lists(st.sampled_from(list(QUERIES)), unique=True, max_size=3))
    query = urlencode({name: draw(QUERIES[name]) for name in names})
    if draw(st.integers(0, 19)) == 0:
        query += "&%ff=%fe"
    kinds = [f"application/{patch}" for patch in PATCHES] if method == "PATCH" else list(TYPES)
    return method, path, query, draw(st.sampled_from(kinds)), draw(bodies(base))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    store = Store(tmp_path_factory.mktemp("fuzz") / "state.db")
    machinery = Machinery(store)
    bootstrap.populate(machinery, "127.20.0.1", 6443)
    bootstrap.NamespaceDefaults(machinery, "CA")
    authenticator = Authenticator(machinery, TOKEN, ec.generate_private_key(ec.SECP256R1()))
    found = App(machinery, authenticator, Authorizer(machinery), Kubelets(machinery, None))
    for path, body in (OBJECTS[7], OBJECTS[1], OBJECTS[8]):
        assert send(found, "POST", path, "", "application/json", json.dumps(body).encode())[0] == 201
    yield found
    store.close()


def send(app: App, method: str, path: str, query: str, content_type: str, body: bytes) -> tuple[int, bytes]:
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [
            (b"content-type", content_type.encode()),
            (b"accept", b"application/json"),
            (b"authorization", f"Bearer {TOKEN}".encode()),
        ],
    }  # fmt: skip
    parts: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def collect(message: dict[str, Any]) -> None:
        parts.append(message)

    asyncio.run(app(scope, receive, collect))
    return parts[0]["status"], b"".join(part.get("body", b"") for part in parts[1:])


def test_a_yaml_bomb_is_defused(app: App) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    code, said = send(app, "POST", OBJECTS[1][0], "", "application/yaml", "\n".join(lines).encode())
    assert code == 400 and "document contains excessive aliasing" in json.loads(said)["message"]


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES or 400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=not EXAMPLES
)
@given(request=requests())
def test_any_request_is_answered_in_words(app: App, request: tuple[str, str, str, str, bytes]) -> None:
    code, said = send(app, *request)
    if code == 404 and said == b"404 page not found\n":
        return  # a group that nobody serves
    answer = json.loads(said) if code >= 400 else {}
    # for these mistakes the real server, too, has no better code
    assert code in (*range(500), 504) or (
        "reason" not in answer and any(words in answer["message"] for words in BARE_500)
    ), said
    if code >= 400:
        assert (answer["kind"], answer["apiVersion"], answer["status"]) == ("Status", "v1", "Failure")
        assert answer["code"] == code
        assert answer["message"] and (answer.get("reason") or code == 500)
    assert send(app, "GET", "/api/v1/namespaces/default", "", "", b"")[0] == 200
