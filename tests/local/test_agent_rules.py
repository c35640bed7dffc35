"""The pure rules of the node agent, as tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mizzen_local.agent.containers import Exit
from mizzen_local.agent.environment import environment, expand, field_value
from mizzen_local.agent.hosts import render, service_addresses, write_in_place
from mizzen_local.agent.images import Images, UnknownImageError, repository
from mizzen_local.agent.lifecycle import View, back_off, decide
from mizzen_local.agent.logs import log_lines
from mizzen_local.agent.proxy import backends
from mizzen_local.agent.status import pod_status, qos_class
from mizzen_local.client import ApiError, Object, Resource

NEW = View("x")
RUNS = replace(NEW, attempt=0, running=True, started=True, ready=True, started_at=1.0)
GOOD = replace(NEW, attempt=0, exit=Exit(0, 1.0, 2.0, "Completed"))
BAD = replace(NEW, attempt=0, exit=Exit(3, 1.0, 2.0, "Error"), crashes=1)


def views(**named: View) -> dict[str, View]:
    return {name: replace(view, name=name) for name, view in named.items()}


def spec(policy: str = "Always", inits: tuple[str, ...] = (), sidecars: tuple[str, ...] = ()) -> Object:
    first = [{"name": n, "restartPolicy": "Always"} for n in sidecars]
    return {
        "restartPolicy": policy,
        "initContainers": [*first, *({"name": n} for n in inits)],
        "containers": [{"name": "c"}],
    }


@pytest.mark.parametrize(
    ("given", "fare", "phase", "start", "stop"),
    [
        (spec(), {"c": NEW}, "Pending", ("c",), ()),
        (spec(), {"c": RUNS}, "Running", (), ()),
        (spec("Never"), {"c": GOOD}, "Succeeded", (), ()),
        (spec("Never"), {"c": BAD}, "Failed", (), ()),
        (spec("OnFailure"), {"c": BAD}, "Running", ("c",), ()),
        (spec("OnFailure"), {"c": GOOD}, "Succeeded", (), ()),
        (spec("Always"), {"c": GOOD}, "Running", ("c",), ()),
        (spec("Always"), {"c": replace(BAD, retry_at=200.0)}, "Running", (), ()),
        (spec(inits=("a", "b")), {"a": NEW, "b": NEW, "c": NEW}, "Pending", ("a",), ()),
        (spec(inits=("a", "b")), {"a": GOOD, "b": NEW, "c": NEW}, "Pending", ("b",), ()),
        (spec(inits=("a",)), {"a": GOOD, "c": NEW}, "Pending", ("c",), ()),
        (spec("Never", inits=("a",)), {"a": BAD, "c": NEW}, "Failed", (), ()),
        (spec("OnFailure", inits=("a",)), {"a": BAD, "c": NEW}, "Pending", ("a",), ()),
        (spec(sidecars=("s",)), {"s": NEW, "c": NEW}, "Pending", ("s",), ()),
        (spec(sidecars=("s",)), {"s": RUNS, "c": NEW}, "Pending", ("c",), ()),
        (spec(sidecars=("s",)), {"s": BAD, "c": RUNS}, "Running", ("s",), ()),
        (spec("Never", sidecars=("s",)), {"s": RUNS, "c": GOOD}, "Succeeded", (), ("s",)),
        ({**spec(), "activeDeadlineSeconds": 10}, {"c": RUNS}, "Failed", (), ("c",)),
    ],
)
def test_a_pods_life(
    given: Object, fare: dict[str, View], phase: str, start: tuple[str, ...], stop: tuple[str, ...]
) -> None:
    decided = decide(given, views(**fare), pod_started_at=0.0, now=100.0)
    assert (decided.phase, decided.start, decided.stop) == (phase, start, stop)


def test_the_first_restart_is_at_once_then_the_wait_doubles() -> None:
    assert [back_off(n, 1.0, 60.0) for n in (1, 2, 3, 4, 20)] == [0.0, 1.0, 2.0, 4.0, 60.0]


def status_of(given: Object, fare: dict[str, View], now: float = 100.0) -> Object:
    seen = views(**fare)
    pod = {"metadata": {"uid": "0123456789abcdef", "name": "p"}, "spec": given}
    return pod_status(pod, seen, decide(given, seen, 0.0, now), {"podIP": "127.30.0.2"}, now)


def test_a_crash_loop_looks_like_one() -> None:
    status = status_of(spec(), {"c": replace(BAD, attempt=2, retry_at=200.0)})
    (container,) = status["containerStatuses"]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 3 and container["restartCount"] == 2


def test_readiness_is_told_in_the_conditions() -> None:
    ready = status_of(spec(), {"c": RUNS})
    unready = status_of(spec(), {"c": replace(RUNS, ready=False)})
    done = status_of(spec("Never"), {"c": GOOD})
    found = [{c["type"]: c for c in s["conditions"]}["Ready"] for s in (ready, unready, done)]
    assert [(c["status"], c.get("reason")) for c in found] == [
        ("True", None), ("False", "ContainersNotReady"), ("False", "PodCompleted"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_qos(resources: Object, expected: str) -> None:
    assert qos_class({"containers": [{"resources": resources}]}) == expected


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("busybox", "busybox"),
        ("docker.io/library/traefik:v3.7", "traefik"),
        ("ghcr.io/mizzen-dev/runtime:0.1@sha256:abc", "ghcr.io/mizzen-dev/runtime"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b"),
    ],
)
def test_image_names(reference: str, name: str) -> None:
    assert repository(reference) == name


def test_an_unknown_image_says_what_is_known_and_a_file_adds_more(tmp_path: Path) -> None:
    with pytest.raises(UnknownImageError, match=r"nginx.*busybox.*--images"):
        Images.default().find("nginx:1")
    extra = tmp_path / "images.yaml"
    extra.write_text("nginx: {path: [/opt/nginx], entrypoint: [nginx, -g], env: {A: 1}}")
    image = Images.default(extra).find("docker.io/nginx:1")
    assert image.entrypoint == ("nginx", "-g") and image.environment()["PATH"].startswith("/opt/nginx:")


POD = {
    "metadata": {"name": "p", "namespace": "ns", "labels": {"a": "b"}, "annotations": {"k/x": "1"}},
    "spec": {"nodeName": "n"},
    "status": {"podIP": "127.30.0.2"},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.labels['a']", "b"),
        ("metadata.annotations['k/x']", "1"),
        ("metadata.annotations['none']", ""),
        ("metadata.labels", 'a="b"'),
        ("status.podIP", "127.30.0.2"),
        ("spec.nodeName", "n"),
    ],
)
def test_field_references(path: str, value: str) -> None:
    assert field_value(POD, path) == value


def test_expansion_leaves_unknown_names() -> None:
    assert expand("$(A)-$(B)-$$(A)-$", {"A": "1"}) == "1-$(B)-$(A)-$"


async def test_the_environment_is_built_in_order() -> None:
    async def fetch(resource: Resource, name: str) -> Object:
        if name == "none":
            raise ApiError(404, "NotFound", name)
        return {"data": {"key": "dmFsdWU=" if resource.plural == "secrets" else "value"}}

    container = {
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "none", "optional": True}}],
        "env": [
            {"name": "A", "value": "$(P_key)!"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "key", "optional": True}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
        ],
        "resources": {"requests": {"cpu": "1500m"}},
    }
    env = await environment(POD, container, {"BASE": "x"}, fetch, {})
    assert env == {
        "BASE": "x", "P_key": "value", "A": "value!", "B": "value", "IP": "127.30.0.2", "CPU": "2",
    }  # fmt: skip


def endpoint(address: str, *, ready: bool = True, serving: bool = False, hostname: str = "") -> Object:
    found: Object = {"addresses": [address], "conditions": {"ready": ready, "serving": serving}}
    return {**found, "hostname": hostname} if hostname else found


def test_names_of_services_resolve() -> None:
    headless = service_addresses(
        {"spec": {"clusterIP": "None"}},
        [{"endpoints": [endpoint("127.30.0.5", hostname="h-0"), endpoint("127.30.0.6", ready=False)]}],
    )
    assert headless == [("127.30.0.5", "h-0")]
    text = render("ns", ("127.30.0.2", "p"), [("ns", "head", headless), ("other", "db", [("127.20.0.9", "")])])
    lines = text.splitlines()
    assert "127.30.0.2\tp" in lines
    assert any(line.startswith("127.30.0.5\t") and line.split("\t")[1].split()[3] == "head" for line in lines)
    assert any(" h-0.head" in line for line in lines)
    assert any(line == "127.20.0.9\tdb.other.svc.cluster.local db.other.svc db.other" for line in lines)


def test_the_hosts_file_keeps_its_inode(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    write_in_place(path, "long text\n")
    inode = path.stat().st_ino
    write_in_place(path, "short\n")
    assert path.read_text() == "short\n" and path.stat().st_ino == inode


def test_backends_prefer_the_ready_and_fall_back_to_the_serving() -> None:
    service = {"spec": {"ports": [{"port": 80, "name": "web"}, {"port": 53, "protocol": "UDP"}]}}

    def piece(*endpoints: Object) -> Object:
        return {"ports": [{"name": "web", "port": 8080}], "endpoints": list(endpoints)}

    ending = endpoint("127.30.0.6", ready=False, serving=True)
    assert backends(service, [piece(endpoint("127.30.0.5"), ending)]) == {80: [("127.30.0.5", 8080)]}
    assert backends(service, [piece(ending)]) == {80: [("127.30.0.6", 8080)]}
    assert backends(service, [piece(endpoint("127.30.0.7", ready=False))]) == {80: []}


def test_log_lines() -> None:
    lines = [
        b"2026-01-01T00:00:01.000000000Z stdout F one",
        b"2026-01-01T00:00:02.000000000Z stdout P tw",
        b"2026-01-01T00:00:02.500000000Z stdout F o",
        b"2026-01-01T00:00:03.000000000Z stdout F ",
    ]

    def read(tail: int | None = None, since: datetime | None = None, timestamps: bool = False) -> bytes:
        return b"".join(log_lines(lines, tail=tail, since=since, timestamps=timestamps))

    assert read() == b"one\ntwo\n\n"
    assert read(tail=1) == b"\n" and read(tail=0) == b""
    assert read(since=datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)) == b"two\n\n"
    assert read(tail=3, timestamps=True).startswith(b"2026-01-01T00:00:01.000000000Z one\n")
