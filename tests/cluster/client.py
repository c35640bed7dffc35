"""How the suite talks to the cluster under test: kubectl as a process, and plain HTTP where no client shows enough."""

from __future__ import annotations

import asyncio
import io
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes.aio import client, config

Object = dict[str, Any]

POLL = 0.05
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Cluster:
    """A cluster by its kubeconfig; `namespace` is where kubectl works unless it is told otherwise."""

    kubeconfig: Path
    namespace: str = "default"

    def command(self, *args: str, kubeconfig: str = "") -> list[str]:
        kubectl = str(Path(sys.executable).with_name("kubectl"))
        space = [] if {"-n", "-A"} & set(args) else ["-n", self.namespace]
        return [kubectl, "--kubeconfig", kubeconfig or str(self.kubeconfig), *space, *args]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECTL_KUBERC": "false", "KUBECONFIG": str(self.kubeconfig)}

    def run(
        self, *args: str, stdin: str | bytes | None = None, kubeconfig: str = ""
    ) -> subprocess.CompletedProcess[str]:
        text = stdin.decode() if isinstance(stdin, bytes) else stdin
        return subprocess.run(
            self.command(*args, kubeconfig=kubeconfig), input=text, capture_output=True, text=True, timeout=120,
            check=False, env=self.environment,
        )  # fmt: skip

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        done = self.run(*args, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *args: str, stdin: str | None = None) -> str:
        """What kubectl writes when it fails, which it must."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(args)} went well: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *args: str) -> subprocess.Popen[str]:
        """A kubectl that goes on, to follow or to forward; the caller ends it."""
        return subprocess.Popen(
            self.command(*args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self.environment,
        )  # fmt: skip

    def apply(self, *manifests: Object, args: tuple[str, ...] = ()) -> str:
        return self.kubectl("apply", *args, "-f", "-", stdin=documents(*manifests))

    def get(self, *args: str) -> Object:
        found: Object = json.loads(self.kubectl("get", *args, "-o", "json"))
        return found


def documents(*manifests: Object) -> str:
    return "\n---\n".join(json.dumps(manifest) for manifest in manifests)


@dataclass
class Answer:
    code: int
    headers: Mapping[str, str]
    body: Any

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class Http:
    """A plain HTTP client with the kubeconfig's credentials, another token's, or none."""

    def __init__(self, session: aiohttp.ClientSession, namespace: str) -> None:
        self.session, self.namespace = session, namespace

    @classmethod
    async def connect(cls, cluster: Cluster, token: str | None = None) -> Http:
        settings = client.Configuration()
        await config.load_kube_config(config_file=str(cluster.kubeconfig), client_configuration=settings)
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        headers = {}
        if token is None and settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        if token is None and "BearerToken" in settings.api_key:
            headers["Authorization"] = settings.api_key["BearerToken"]
        elif token:
            headers["Authorization"] = f"Bearer {token}"
        session = aiohttp.ClientSession(
            settings.host, connector=aiohttp.TCPConnector(ssl=context), headers=headers,
            timeout=aiohttp.ClientTimeout(total=60),
        )  # fmt: skip
        return cls(session, cluster.namespace)

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    def path(self, resource: str, name: str = "", sub: str = "") -> str:
        """`configmaps` or `apps/v1/deployments` in the test's namespace."""
        prefix, _, plural = resource.rpartition("/")
        base = f"/apis/{prefix}" if prefix else "/api/v1"
        return "/".join(filter(None, (f"{base}/namespaces/{self.namespace}/{plural}", name, sub)))

    async def call(
        self, method: str, path: str, body: Any = None, *, media: str = "application/json",
        accept: str = "application/json", headers: dict[str, str] | None = None, **query: str,
    ) -> Answer:  # fmt: skip
        raw = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Accept": accept, **({"Content-Type": media} if raw is not None else {}), **(headers or {})}
        # a stream, for aiohttp warns of large bodies in memory
        data = None if raw is None else io.BytesIO(raw)
        async with self.session.request(method, path, data=data, headers=sent, params=query) as answer:
            text = await answer.text()
            found = json.loads(text) if text.startswith(("{", "[")) else text
            return Answer(answer.status, answer.headers, found)

    async def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Object:
        answer = await self.call(method, path, body, **options)
        assert 200 <= answer.code < 300, f"{method} {path}: {answer.code} {answer.body}"
        found: Object = answer.body
        return found

    async def get(self, resource: str, name: str = "", **query: str) -> Object:
        return await self.ok("GET", self.path(resource, name), **query)

    async def create(self, resource: str, body: Object, **query: str) -> Object:
        return await self.ok("POST", self.path(resource), body, **query)

    async def patch(self, resource: str, name: str, body: Any, media: str = MERGE, sub: str = "", **query: str) -> Any:
        return await self.ok("PATCH", self.path(resource, name, sub), body, media=media, **query)

    async def delete(self, resource: str, name: str, **options: Any) -> Object:
        return await self.ok("DELETE", self.path(resource, name), options or None)

    async def watch(self, path: str, **query: str) -> AsyncGenerator[Object, None]:
        """Events until the server ends it; a caller that leaves sooner closes it, with `aclosing`."""
        query.setdefault("timeoutSeconds", "30")
        async with self.session.get(path, params={"watch": "1", **query}) as answer:
            assert answer.status == 200, await answer.text()
            try:
                async for line in answer.content:
                    yield json.loads(line)
            finally:
                if answer.connection is not None and answer.connection.transport is not None:
                    # the TLS farewell of a half-read answer would outlive the test's event loop
                    answer.connection.transport.abort()

    async def seen(self, path: str, count: int, **query: str) -> list[tuple[str, str]]:
        """The first `count` events of a watch: type and name."""
        found = []
        async with aclosing(self.watch(path, **query)) as events:
            async for event in events:
                found.append((event["type"], event["object"]["metadata"]["name"]))
                if len(found) == count:
                    break
        return found

    async def until(
        self, resource: str, name: str, what: str, look: Callable[[Object], Any], seconds: float = 60.0
    ) -> Object:
        """Poll one object until `look` finds in it what the test waits for."""
        deadline, last = time.monotonic() + seconds, Answer(0, {}, {})
        while time.monotonic() < deadline:
            last = await self.call("GET", self.path(resource, name))
            if last.code == 200 and look(last.body):
                return dict(last.body)
            await asyncio.sleep(POLL)
        pytest.fail(
            f"{resource} {name}: waited {seconds} s in vain for {what}; status: {last.body.get('status', last)}"
        )

    async def until_gone(self, resource: str, name: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while (await self.call("GET", self.path(resource, name))).code != 404:
            assert time.monotonic() < deadline, f"{resource} {name} is still there after {seconds} s"
            await asyncio.sleep(POLL)


async def eventually(what: str, look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll a function (plain or async) until it gives something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(POLL)
    pytest.fail(f"waited {seconds} s in vain for {what}")
