"""What a node needs to join a control plane: who may call it, its network, its streams, its Services' variables."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import make_mocked_request

from mizzen_local.agent import grpc_health
from mizzen_local.agent.callers import Caller, Callers, asked, certified
from mizzen_local.agent.hosts import api_server_variables, service_variables
from mizzen_local.agent.joining import Join, join
from mizzen_local.agent.netns import Namespace, NetworkError, Plan
from mizzen_local.agent.streams import Wanted
from mizzen_local.client import Object
from mizzen_local.http_client import HttpClient, Kubeconfig

CERTIFIED = {"subject": ((("organizationName", "system:masters"),), (("commonName", "kube-apiserver-kubelet-client"),))}


class Reviews:
    """An API server that knows one token and one user who may, and counts questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def request(self, method: str, path: str, body: Object) -> Object:
        assert method == "POST"
        self.asked.append(path.rpartition("/")[2])
        if path.endswith("tokenreviews"):
            known = body["spec"]["token"] == "known"
            return {"status": {"authenticated": known, "user": {"username": "scraper", "groups": ["metrics"]}}}
        attributes = body["spec"]["resourceAttributes"]
        assert attributes["resource"] == "nodes" and attributes["name"] == "n"
        return {
            "status": {"allowed": "system:masters" in body["spec"]["groups"] or attributes["subresource"] == "metrics"}
        }


class Transport:
    def __init__(self, peer: Object | None) -> None:
        self._peer = peer

    def get_extra_info(self, name: str) -> Any:
        return self._peer if name == "peercert" else None


async def answer(callers: Callers, path: str, token: str = "", peer: Object | None = None, method: str = "GET") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = make_mocked_request(method, path, headers=headers, transport=cast("asyncio.Transport", Transport(peer)))
    refusal = await callers.check(request)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("path", "token", "peer", "code"),
    [
        ("/pods", "", None, 401),
        ("/healthz", "", None, 401),
        ("/pods", "unknown", None, 401),
        ("/pods", "known", None, 403),
        ("/metrics/resource", "known", None, 200),
        ("/exec/ns/p/c", "known", None, 403),
        ("/exec/ns/p/c", "", CERTIFIED, 200),
        ("/exec/ns/p/c", "shared", None, 200),
        ("/pods", "", {"subject": ((("organizationName", "system:masters"),),)}, 401),
    ],
)
async def test_nobody_calls_a_node_without_leave(path: str, token: str, peer: Object | None, code: int) -> None:
    assert await answer(Callers(cast("HttpClient", Reviews()), "n", "shared"), path, token, peer) == code


async def test_reviews_are_remembered() -> None:
    reviews = Reviews()
    callers = Callers(cast("HttpClient", reviews), "n", "")
    for _ in range(3):
        assert await answer(callers, "/metrics/resource", "known") == 200
    assert reviews.asked == ["tokenreviews", "subjectaccessreviews"]
    assert await answer(callers, "/pods", "") == 401  # an empty shared token opens nothing


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/containerLogs/ns/p/c", ("get", ("proxy",))),
        ("GET", "/exec/ns/p/c", ("create", ("proxy",))),
        ("POST", "/portForward/ns/p", ("create", ("proxy",))),
        ("GET", "/metrics/resource", ("get", ("metrics",))),
        ("GET", "/healthz", ("get", ("healthz", "proxy"))),
        ("GET", "/metricsandmore", ("get", ("proxy",))),
    ],
)
def test_what_a_request_needs(method: str, path: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert asked(method, path) == expected


def test_a_certificate_names_user_and_groups() -> None:
    assert certified(CERTIFIED) == Caller("kube-apiserver-kubelet-client", ("system:masters", "system:authenticated"))
    assert certified(None) is None and certified({}) is None


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ({"pods": "127.40.0.0/16"}, "must not be loopback"),
        ({"pods": "10.96.4.0/24"}, "overlap"),
        ({"services": "ten"}, "not an address range"),
    ],
)
def test_ranges_that_cannot_be(ranges: dict[str, str], why: str) -> None:
    with pytest.raises(NetworkError, match=why):
        Plan("n", **ranges)


def test_the_plan_of_a_network() -> None:
    plan = Plan("a-rather-long-name-for-a-network", link="10.9.0.0/30")
    assert (plan.host, plan.node) == ("10.9.0.1", "10.9.0.2") and len(plan.outer) <= 15
    lines = [" ".join(command) for command in plan.commands()]
    assert f"-n {plan.name} route replace local 10.244.0.0/16 dev lo" in lines
    assert f"route replace 10.96.0.0/16 via 10.9.0.2 dev {plan.outer}" in lines


def test_a_network_namespace_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NetworkError, match="needs root"):
        Namespace.create(Plan("n"))


def test_one_agent_has_a_state_folder_at_a_time(tmp_path: Path) -> None:
    options = Join(
        kubeconfig=tmp_path / "kubeconfig", name="n", state=tmp_path, images=None, cpus=None, memory=None, extended=[],
        client_ca=None, network_namespace="", pod_range="", service_range="", link_range="", proxy=False,
    )  # fmt: skip
    with (tmp_path / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NetworkError, match="another node agent uses"):
            join(options)


CLAIMS = """
import subprocess, sys
from mizzen_local.agent.joining import Join, join
from mizzen_local.agent.netns import Namespace, Plan
network = Namespace(Plan(sys.argv[1], pods="10.231.0.0/16", services="10.232.0.0/16", link="10.233.0.0/30"))
network.enter()
network.claim("10.231.0.7")
subprocess.run(["ip", "-o", "addr", "show", "dev", "lo"], check=True)
print("----", flush=True)
network.release("10.231.0.7")
subprocess.run(["ip", "-o", "addr", "show", "dev", "lo"], check=True)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")
def test_a_pod_finds_its_address_among_the_interfaces() -> None:
    name = f"mztest{os.getpid()}"
    network = Namespace.create(Plan(name, pods="10.231.0.0/16", services="10.232.0.0/16", link="10.233.0.0/30"))
    try:
        # a process of its own enters: this one stays in the host's network
        done = subprocess.run([sys.executable, "-c", CLAIMS, name], capture_output=True, text=True, check=True)
        claimed, released = done.stdout.split("----")
        assert "10.231.0.7/32" in claimed
        assert "10.231.0.7" not in released
    finally:
        network.remove()


def test_a_kubeconfig_may_hold_the_certificate_itself(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("""
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: https://192.0.2.1:6443/}}]
users: [{name: u, user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}}]
""")
    config = Kubeconfig.load(path)
    assert config.client_pem == b"cert\nkey" and config.server == "https://192.0.2.1:6443"


def test_which_streams_are_wanted() -> None:
    wanted = Wanted.parse({"input": "1", "output": "true", "error": "1", "tty": "1"})
    assert wanted == Wanted(stdin=True, stdout=True, stderr=False, tty=True)  # a terminal has one output
    assert wanted.names == {"error", "stdin", "stdout", "resize"}
    assert Wanted.parse({"output": "1"}).names == {"error", "stdout"}


def test_variables_of_services() -> None:
    ports = [{"name": "http-web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    service = {"metadata": {"name": "my-web"}, "spec": {"clusterIP": "10.96.0.7", "ports": ports}}
    headless = {"metadata": {"name": "none"}, "spec": {"clusterIP": "None", "ports": ports}}
    assert service_variables([service, headless]) == {
        "MY_WEB_SERVICE_HOST": "10.96.0.7", "MY_WEB_SERVICE_PORT": "80", "MY_WEB_PORT": "tcp://10.96.0.7:80",
        "MY_WEB_SERVICE_PORT_HTTP_WEB": "80", "MY_WEB_SERVICE_PORT_DNS": "53",
        "MY_WEB_PORT_80_TCP": "tcp://10.96.0.7:80", "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80", "MY_WEB_PORT_80_TCP_ADDR": "10.96.0.7",
        "MY_WEB_PORT_53_UDP": "udp://10.96.0.7:53", "MY_WEB_PORT_53_UDP_PROTO": "udp",
        "MY_WEB_PORT_53_UDP_PORT": "53", "MY_WEB_PORT_53_UDP_ADDR": "10.96.0.7",
    }  # fmt: skip
    assert api_server_variables("10.96.0.1", 443)["KUBERNETES_PORT_443_TCP_ADDR"] == "10.96.0.1"


@pytest.fixture
async def health_port() -> AsyncIterator[int]:
    """A server of the gRPC library's own: it is up for "ready" and down for "down"."""
    grpc = pytest.importorskip("grpc")
    server = grpc.aio.server()

    async def check(body: bytes, context: Any) -> bytes:
        if body == b"\x0a\x04gone":
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return b"\x08\x02" if body == b"\x0a\x04down" else b"\x08\x01"

    handler = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


async def test_health_over_grpc(health_port: int) -> None:
    found = [await grpc_health.check("127.0.0.1", health_port, name, 10.0) for name in ("", "ready", "down", "gone")]
    assert found == [
        None, None, 'service unhealthy (responded with "NOT_SERVING")',
        "error: health rpc probe failed: the server answered without a health status",
    ]  # fmt: skip
