"""The server over TLS: authentication, discovery, lists, watches, errors, and its life and death."""

from __future__ import annotations

import io
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest

from .conftest import ApiProcess

MAPS = "/api/v1/namespaces/default/configmaps"


class Http:
    """A plain HTTP client with the admin's token."""

    def __init__(self, server: ApiProcess, token: str | None = None) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=str(server.ca))
        headers = {"Authorization": f"Bearer {server.token if token is None else token}"} if token != "" else {}
        self.session = aiohttp.ClientSession(
            server.server, connector=aiohttp.TCPConnector(ssl=context), headers=headers,
            timeout=aiohttp.ClientTimeout(total=10),
        )  # fmt: skip

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        if body is not None:
            options["data"] = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        async with self.session.request(method, path, headers=headers, **options) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def watch(self, path: str, **query: str) -> AsyncGenerator[dict[str, Any], None]:
        """Events until the server ends it; a caller that leaves sooner closes it, with `aclosing`."""
        async with self.session.get(path, params={"watch": "1", **query}) as answer:
            assert answer.status == 200, await answer.text()
            try:
                async for line in answer.content:
                    yield json.loads(line)
            finally:
                if answer.connection is not None and answer.connection.transport is not None:
                    # the TLS farewell of a half-read answer would outlive the test's event loop
                    answer.connection.transport.abort()


@pytest.fixture
async def http(api_server: ApiProcess) -> AsyncIterator[Http]:
    async with Http(api_server) as client:
        yield client


async def make_map(
    http: Http, name: str, labels: dict[str, str] | None = None, space: str = "default"
) -> dict[str, Any]:
    body = {"metadata": {"name": name, "labels": labels or {}}, "data": {"a": "1"}}
    code, made = await http.call("POST", f"/api/v1/namespaces/{space}/configmaps", body)
    assert code == 201, made
    return dict(made)


async def make_space(http: Http, name: str) -> str:
    code, made = await http.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert code == 201, made
    return f"/api/v1/namespaces/{name}/configmaps"


async def test_without_a_token_there_is_nothing_but_health_and_version(api_server: ApiProcess) -> None:
    async with Http(api_server, token="") as nobody, Http(api_server, token="wrong") as stranger:
        for client in (nobody, stranger):
            code, body = await client.call("GET", "/api/v1/pods")
            assert (code, body["kind"], body["reason"]) == (401, "Status", "Unauthorized")
        assert (await nobody.call("GET", "/readyz")) == (200, "ok")
        assert (await nobody.call("GET", "/version"))[1]["minor"] == "37"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code", "reason"),
    [
        ("GET", "/api/v1/unheardof", None, {}, 404, "NotFound"),
        ("GET", "/apis/apps/v1/things", None, {}, 404, "NotFound"),
        ("GET", f"{MAPS}/absent", None, {}, 404, "NotFound"),
        ("POST", MAPS, b"{nope", {}, 400, "BadRequest"),
        ("POST", MAPS, {"kind": "Secret", "apiVersion": "v1"}, {}, 400, "BadRequest"),
        ("POST", MAPS, b"x" * (3 * 2**20 + 1), {}, 413, "RequestEntityTooLarge"),
        ("POST", MAPS, b"x", {"Content-Type": "text/csv"}, 415, "UnsupportedMediaType"),
        ("PATCH", MAPS + "/x", b"{}", {}, 415, "UnsupportedMediaType"),
        ("GET", MAPS, None, {"Accept": "application/vnd.kubernetes.protobuf"}, 406, "NotAcceptable"),
        ("GET", MAPS + "?fieldSelector=data.a%3D1", None, {}, 400, "BadRequest"),
        ("DELETE", "/api/v1/configmaps/x", None, {}, 404, "NotFound"),
    ],
)  # fmt: skip
async def test_mistakes_are_answered_with_a_status(
    http: Http, method: str, path: str, body: Any, headers: dict[str, str], code: int, reason: str
) -> None:
    got, answer = await http.call(method, path, body, headers=headers)
    assert (got, answer["kind"], answer["status"], answer["reason"]) == (code, "Status", "Failure", reason)


async def test_discovery_tells_the_same_in_both_forms(http: Http) -> None:
    _, legacy = await http.call("GET", "/apis/apps/v1")
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    _, new = await http.call("GET", "/apis", headers={"Accept": accept})
    group = next(item for item in new["items"] if item["metadata"]["name"] == "apps")
    resources = {item["resource"]: item for item in group["versions"][0]["resources"]}
    assert {item["name"] for item in legacy["resources"] if "/" not in item["name"]} == set(resources)
    assert resources["deployments"]["shortNames"] == ["deploy"]
    assert {"scale", "status"} == {item["subresource"] for item in resources["deployments"]["subresources"]}
    assert (await http.call("GET", "/apis"))[1]["kind"] == "APIGroupList"


async def test_openapi_describes_what_is_served(http: Http) -> None:
    _, index = await http.call("GET", "/openapi/v3")
    _, document = await http.call("GET", index["paths"]["apis/apps/v1"]["serverRelativeURL"])
    schema = document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    operation = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "fieldValidation" in {parameter["name"] for parameter in operation["parameters"]}
    _, swagger = await http.call("GET", "/openapi/v2")
    assert "io.k8s.api.core.v1.Pod" in swagger["definitions"]


async def test_lists_come_in_pages(http: Http) -> None:
    maps = await make_space(http, "pages")
    for number in range(4):
        await make_map(http, f"m{number}", space="pages")
    _, first = await http.call("GET", f"{maps}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 3
    _, rest = await http.call("GET", f"{maps}?limit=9&continue={first['metadata']['continue']}")
    names = [item["metadata"]["name"] for item in first["items"] + rest["items"]]
    assert names == ["kube-root-ca.crt", "m0", "m1", "m2", "m3"]
    assert "continue" not in rest["metadata"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("labelSelector=app%3Da", ["a"]),
        ("labelSelector=app%21%3Da,app", ["b"]),
        ("labelSelector=app+in+(a,b)", ["a", "b"]),
        ("labelSelector=app+notin+(a),%21none", ["b", "kube-root-ca.crt"]),
        ("fieldSelector=metadata.name%3Db", ["b"]),
        ("fieldSelector=metadata.name%21%3Db&labelSelector=app", ["a"]),
    ],
)
async def test_selectors_select(http: Http, query: str, names: list[str]) -> None:
    code, _ = await http.call("POST", "/api/v1/namespaces", {"metadata": {"name": "select"}})
    if code == 201:
        for name in ("a", "b"):
            await make_map(http, name, {"app": name}, "select")
    _, found = await http.call("GET", f"/api/v1/namespaces/select/configmaps?{query}")
    assert [item["metadata"]["name"] for item in found["items"]] == names


async def test_a_watch_sees_each_change_from_its_version_on(http: Http) -> None:
    maps = await make_space(http, "watched")
    start = (await make_map(http, "a", space="watched"))["metadata"]["resourceVersion"]
    await make_map(http, "b", {"app": "x"}, "watched")
    merge = {"Content-Type": "application/merge-patch+json"}
    await http.call("PATCH", f"{maps}/b", {"metadata": {"labels": {"app": "y"}}}, headers=merge)
    await http.call("DELETE", f"{maps}/b")

    async def seen(count: int, **query: str) -> list[tuple[str, str]]:
        found = []
        async with aclosing(http.watch(maps, resourceVersion=start, timeoutSeconds="5", **query)) as events:
            async for event in events:
                found.append((event["type"], event["object"]["metadata"]["name"]))
                if len(found) == count:
                    break
        return found

    assert await seen(3) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]
    assert await seen(2, labelSelector="app=x") == [("ADDED", "b"), ("DELETED", "b")], "leaving looks like deletion"


async def test_a_watch_list_marks_the_end_of_its_beginning(http: Http) -> None:
    maps = await make_space(http, "watchlist")
    await make_map(http, "a", space="watchlist")
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    types = []
    async with aclosing(http.watch(maps, timeoutSeconds="5", **query)) as events:
        async for event in events:
            types.append(event["type"])
            if event["type"] == "BOOKMARK":
                assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
                break
    assert types == ["ADDED", "ADDED", "BOOKMARK"]


async def test_a_watch_ends_at_its_timeout(http: Http) -> None:
    assert [
        event async for event in http.watch(MAPS, resourceVersion="0", labelSelector="none=x", timeoutSeconds="1")
    ] == []


async def test_a_version_from_the_future_is_refused(http: Http) -> None:
    code, answer = await http.call("GET", f"{MAPS}?resourceVersion=99999999")
    assert (code, answer["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


async def test_tables_and_metadata_on_request(http: Http) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    _, table = await http.call("GET", "/api/v1/namespaces", headers={"Accept": accept})
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Status", "Age"]
    assert ["default", "Active"] in [row["cells"][:2] for row in table["rows"]]
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    _, partial = await http.call("GET", "/api/v1/namespaces", headers={"Accept": accept})
    assert partial["kind"] == "PartialObjectMetadataList"
    assert set(partial["items"][0]) == {"kind", "apiVersion", "metadata"}


async def test_unknown_fields_come_as_warning_headers(http: Http) -> None:
    body = json.dumps({"metadata": {"name": "warned"}, "date": {}}).encode()
    async with http.session.post(MAPS, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.headers["Warning"] == '299 - "unknown field \\"date\\""'


async def test_nothing_acknowledged_is_lost_by_kill_nine(own_server: ApiProcess) -> None:
    async with Http(own_server) as http:
        made = [await make_map(http, f"m{number}") for number in range(50)]
        await http.call("DELETE", f"{MAPS}/m0")
    own_server.end(signal.SIGKILL)
    own_server.start()
    async with Http(own_server) as http:
        _, found = await http.call("GET", MAPS)
        versions = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in found["items"]}
        assert versions.pop("kube-root-ca.crt")
        assert versions == {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in made[1:]}
        last = (await make_map(http, "after"))["metadata"]["resourceVersion"]
        assert int(last) > int(found["metadata"]["resourceVersion"]) >= max(int(v) for v in versions.values())
        # a watch from before the end is told to list again, not given half of the truth
        old = made[0]["metadata"]["resourceVersion"]
        events = [event async for event in http.watch(MAPS, resourceVersion=old, timeoutSeconds="5")]
        assert [(event["type"], event["object"]["code"]) for event in events] == [("ERROR", 410)]
        # and one that missed nothing goes on
        current = http.watch(MAPS, resourceVersion=found["metadata"]["resourceVersion"], timeoutSeconds="5")
        async with aclosing(current):
            assert (await anext(current))["object"]["metadata"]["name"] == "after"


def test_files_with_secrets_are_the_owners_alone(own_server: ApiProcess) -> None:
    private = [own_server.kubeconfig, own_server.state / "admin.token", *(own_server.state / "pki").glob("*.key")]
    assert len(private) == 5
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


@pytest.mark.parametrize("case", ["port", "state"])
def test_a_second_server_is_refused_in_one_line(own_server: ApiProcess, case: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = own_server.port if case == "port" else free.getsockname()[1]
    state = own_server.state.with_name("other") if case == "port" else own_server.state
    command = [sys.executable, "-m", "mizzen_local.api", "--state", str(state), "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    wanted = f"cannot listen on 127.0.0.1:{port}" if case == "port" else "another server is using"
    assert done.stderr.startswith(wanted)
    assert done.stderr.count("\n") == 1
    assert own_server.kubectl("get", "--raw", "/readyz") == "ok"


async def test_the_server_stops_while_watches_are_open(own_server: ApiProcess, until: Callable[..., Any]) -> None:
    async with Http(own_server) as http:
        events = http.watch(MAPS)
        await anext(events)
        assert own_server.process
        own_server.process.send_signal(signal.SIGTERM)
        assert [event async for event in events] == []
    process = own_server.process
    assert until("the end", lambda: process.poll() is not None, 5)
    assert process.returncode == 0
    assert process.stdout
    process.stdout.close()
