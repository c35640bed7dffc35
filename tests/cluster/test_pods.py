"""Pods: how they start, what they see, how they are watched, and how they end.

All pods of this file are created at once; each test then waits for its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.client import Cluster, Http, eventually
from tests.cluster.objects import (
    FOREVER,
    IMAGE,
    PYTHON_IMAGE,
    Object,
    conditions,
    config_map,
    field,
    has_ended,
    is_ready,
    pod,
    shell,
    state,
)

SIDECAR = "echo sidecar up; " + FOREVER
ENVIRONMENT = {
    "PLAIN": "word",
    "EXPANDED": "word-and-$(UNKNOWN)-$(PLAIN)",
    "POD": "environment",
    "ACCOUNT": "default",
    "CPU_MILLIS": "250",
    "MEMORY": "67108864",
    "FROM_MAP": "from the map",
    "FROM_SECRET": "from the secret",
    "PRE_key": "from the map",
    "ARGUMENT": "word",
    "HOSTNAME": "environment",
    "host": "environment",
}
GRPC = """
import os, socket, struct
def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body
def text(word):
    return bytes([len(word)]) + word.encode()
def exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
def serve(connection):
    exactly(connection, 24)
    connection.sendall(frame(4, 0, 0))
    while True:
        head = exactly(connection, 9)
        body = exactly(connection, int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind == 4 and not flags & 1:
            connection.sendall(frame(4, 1, 0))
        if kind == 0 and flags & 1:
            status = 1 if body[5:] == b"\\x0a\\x05ready" else 2
            answer = b"\\x88" + b"\\x00" + text("content-type") + text("application/grpc")
            trailers = b"\\x00" + text("grpc-status") + text("0")
            connection.sendall(
                frame(1, 4, stream, answer)
                + frame(0, 0, stream, b"\\x00" + struct.pack(">I", 2) + bytes([8, status]))
                + frame(1, 5, stream, trailers)
            )
listener = socket.create_server((os.environ["POD_IP"], 9000))
while True:
    connection, _ = listener.accept()
    try:
        serve(connection)
    except (EOFError, OSError):
        pass
"""


def environment_pod() -> Object:
    script = "env; echo ARGUMENT=$0; echo host=`hostname`"
    env: list[Object] = [
        {"name": "PLAIN", "value": "word"},
        {"name": "EXPANDED", "value": "$(PLAIN)-and-$(UNKNOWN)-$$(PLAIN)"},
        field("POD", "metadata.name"),
        field("ACCOUNT", "spec.serviceAccountName"),
        {"name": "CPU_MILLIS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "source", "key": "key"}}},
        {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "source", "key": "key"}}},
        {"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "key", "optional": True}}},
    ]
    sources = [
        {"prefix": "PRE_", "configMapRef": {"name": "source"}},
        {"secretRef": {"name": "nowhere", "optional": True}},
    ]
    resources = {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}}
    container = shell(script, env=env, envFrom=sources, resources=resources, args=["$(PLAIN)"])
    return pod("environment", container)


def volumes_pod() -> Object:
    """Prints what is where; the second container reads what the first wrote."""
    script = """
    cat /map/renamed; echo; cat /projected/labels; echo; cat /projected/secret/key; echo
    cat /projected/cpu; echo; cat /sub/file; echo
    stat -L -c '%a' /secret/key; stat -L -c '%a' /map/renamed; ls /optional | wc -l
    test -L /map/renamed && echo link
    touch /map/x 2>/dev/null || echo read-only
    touch /readonly/x 2>/dev/null || echo read-only
    test "$(cat /token/token | tr -d -c . | wc -c)" = 2 && echo token
    test -s /var/run/secrets/kubernetes.io/serviceaccount/ca.crt && echo ca
    cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo
    echo shared > /memory/note; while ! test -e /memory/seen; do sleep 0.05; done
    """
    mounts = [
        ("map", "/map", {}), ("secret", "/secret", {}), ("projected", "/projected", {}), ("optional", "/optional", {}),
        ("token", "/token", {}), ("memory", "/memory", {}), ("memory", "/readonly", {"readOnly": True}),
        ("map", "/sub/file", {"subPathExpr": "$(WHICH)"}),
    ]  # fmt: skip
    items = [{"key": "key", "path": "renamed", "mode": 0o640}]
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    cpu = {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "requests.cpu", "divisor": "1m"}}
    secret = {"name": "source", "items": [{"key": "key", "path": "secret/key"}]}
    token = {"path": "token", "audience": "somebody", "expirationSeconds": 600}
    volumes = [
        {"name": "map", "configMap": {"name": "source", "items": items}},
        {"name": "secret", "secret": {"secretName": "source", "defaultMode": 0o400}},
        {
            "name": "projected",
            "projected": {"sources": [{"downwardAPI": {"items": [labels, cpu]}}, {"secret": secret}]},
        },
        {"name": "optional", "configMap": {"name": "nowhere", "optional": True}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]
    listed = [{"name": name, "mountPath": path, **more} for name, path, more in mounts]
    env = [{"name": "WHICH", "value": "renamed"}]
    main = shell(script, volumeMounts=listed, env=env, resources={"requests": {"cpu": "125m"}})
    reader = shell(
        "while ! test -e /shared/note; do sleep 0.05; done; cat /shared/note; touch /shared/seen", "reader",
        volumeMounts=[{"name": "memory", "mountPath": "/shared"}],
    )  # fmt: skip
    return pod("volumes", main, reader, labels={"of": "volumes"}, volumes=volumes)


def probed(script: str, **probes: Object) -> Object:
    """A container whose shell script runs for ever, with probes that look every second."""
    every = {"periodSeconds": 1, "failureThreshold": 1}
    return shell(f"{script}; {FOREVER}", **{f"{kind}Probe": {**every, **probe} for kind, probe in probes.items()})


def grpc(service: str) -> Object:
    probe = {"grpc": {"port": 9000, "service": service}, "periodSeconds": 1}
    command = ["python3", "-c", GRPC]
    env = [field("POD_IP", "status.podIP")]
    return {"name": "c", "image": PYTHON_IMAGE, "command": command, "env": env, "readinessProbe": probe}


def test_file(path: str) -> Object:
    return {"exec": {"command": ["test", "-e", path]}}


LOOKED_AFTER = {"volumeMounts": [{"name": "notes", "mountPath": "/notes"}]}
NOTES = [{"name": "notes", "emptyDir": {}}]
HOOKS = {
    "postStart": {"exec": {"command": ["sh", "-c", "echo after start > /proc/1/fd/1"]}},
    "preStop": {"exec": {"command": ["sh", "-c", "echo before stop > /proc/1/fd/1"]}},
}
WARM = "test -e /notes/warm || { touch /notes/warm; exit 3; }; exit 0"
USER = {"runAsUser": 1234, "runAsGroup": 4321, "runAsNonRoot": True}
PODS: list[Object] = [
    environment_pod(),
    volumes_pod(),
    pod("good", shell("exit 0")),
    pod("bad", shell("echo last words; exit 7", terminationMessagePolicy="FallbackToLogsOnError")),
    pod("told", shell("echo told > /tmp/words; exit 1", terminationMessagePath="/tmp/words")),
    pod("killed", shell("sh -c 'kill -9 $$$$'; exit $?")),
    pod("late", shell(FOREVER), activeDeadlineSeconds=1),
    pod("no-command", {"name": "c", "image": IMAGE, "command": ["no-such-command"]}),
    pod("no-image", {"name": "c", "image": "mizzen.invalid/none:1", "command": ["true"]}),
    pod("no-map", shell("exit 0", env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}])),
    pod("no-volume", shell("exit 0"), volumes=[{"name": "v", "secret": {"secretName": "no"}}]),
    pod("crashing", shell("exit 5"), restartPolicy="Always"),
    pod("second-try", shell(WARM, **LOOKED_AFTER), restartPolicy="OnFailure", volumes=NOTES),
    pod(
        "prepared", shell("cat /notes/list", **LOOKED_AFTER), volumes=NOTES,
        initContainers=[
            shell("echo one >> /notes/list", "first", **LOOKED_AFTER),
            shell("echo two >> /notes/list", "second", **LOOKED_AFTER),
        ],
    ),
    pod("unprepared", shell("exit 0"), initContainers=[shell("exit 9", "first")]),
    pod(
        "accompanied", shell("test -e /notes/up && echo together", **LOOKED_AFTER), volumes=NOTES,
        initContainers=[
            shell(f"touch /notes/up; {FOREVER}", "beside", restartPolicy="Always",
                  startupProbe={**test_file("/notes/up"), "periodSeconds": 1}, **LOOKED_AFTER),
        ],
    ),
    pod("slow-start", probed("sleep 1; touch /tmp/up", startup={**test_file("/tmp/up"), "failureThreshold": 60},
                             liveness={**test_file("/tmp/up"), "timeoutSeconds": 20})),
    pod("never-started", probed("true", startup=test_file("/tmp/never")), restartPolicy="Always"),
    pod("dying", probed("touch /tmp/alive; sleep 1; rm /tmp/alive", startup=test_file("/tmp/alive"),
                        liveness=test_file("/tmp/alive")), restartPolicy="Always"),
    pod("changing", probed("true", readiness=test_file("/tmp/ready"))),
    pod("unreachable", probed("true", readiness={"tcpSocket": {"port": 9}})),
    pod("grpc-ready", grpc("ready")),
    pod("grpc-unready", grpc("other")),
    pod("gated", shell(FOREVER), readinessGates=[{"conditionType": "mizzen.test/gate"}]),
    pod("hooked", shell(f"sleep 0.5; {FOREVER}", lifecycle=HOOKS), terminationGracePeriodSeconds=20),
    pod("stubborn", shell("trap '' TERM; while :; do sleep 0.1; done"), terminationGracePeriodSeconds=1),
    pod("user", shell("id -u; id -g; touch /notes/mine && echo mine", securityContext=USER, **LOOKED_AFTER),
        volumes=NOTES, securityContext={"fsGroup": 4321}),
    pod("root", shell("id -u"), securityContext={"runAsNonRoot": True}),
    pod("read-only", shell("touch /x 2>/dev/null || echo no; touch /tmp/x && echo yes",
                           securityContext={"readOnlyRootFilesystem": True},
                           volumeMounts=[{"name": "notes", "mountPath": "/tmp"}]), volumes=NOTES),
    pod("aliased", shell("grep -c other.mizzen.test /etc/hosts"),
        hostAliases=[{"ip": "192.0.2.7", "hostnames": ["other.mizzen.test"]}]),
    pod("following", shell(FOREVER, volumeMounts=[{"name": "map", "mountPath": "/map"}]),
        volumes=[{"name": "map", "configMap": {"name": "moving"}}]),
]  # fmt: skip
test_file.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def pods(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "source"}}
    cluster.apply(
        config_map("source", key="from the map"),
        config_map("moving", key="old"),
        {**secret, "stringData": {"key": "from the secret"}},
    )
    cluster.apply(*PODS)


async def ended(http: Http, name: str) -> Object:
    return await http.until("pods", name, "its end", has_ended)


def container(found: Object, name: str = "c") -> Object:
    status = found.get("status", {})
    entries = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((dict(entry) for entry in entries if entry["name"] == name), {})


def waits_for(*reasons: str, name: str = "c") -> Callable[[Object], Any]:
    return lambda found: (state(found, name).get("waiting") or {}).get("reason") in reasons


async def events(http: Http, name: str, reason: str) -> list[str]:
    selector = f"involvedObject.name={name},reason={reason}"
    return [event["message"] for event in (await http.get("events", fieldSelector=selector))["items"]]


@dataclass(frozen=True)
class End:
    phase: str
    code: int
    reason: str
    message: str = ""


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("good", End("Succeeded", 0, "Completed")),
        ("bad", End("Failed", 7, "Error", "last words\n")),
        ("told", End("Failed", 1, "Error", "told\n")),
        ("killed", End("Failed", 137, "Error")),
    ],
)
async def test_how_a_container_ends_is_told(http: Http, name: str, end: End) -> None:
    found = await ended(http, name)
    last = state(found)["terminated"]
    assert End(found["status"]["phase"], last["exitCode"], last["reason"], last.get("message", "")) == end
    assert conditions(found)["Ready"]["reason"] == ("PodCompleted" if end.code == 0 else "PodFailed")


async def test_a_pod_that_takes_too_long_is_ended(http: Http) -> None:
    found = await ended(http, "late")
    assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "DeadlineExceeded")
    assert found["status"]["message"] == "Pod was active on the node longer than the specified deadline"


async def test_a_command_that_is_not_there_is_named(http: Http) -> None:
    found = await ended(http, "no-command")
    last = state(found)["terminated"]
    assert last["exitCode"] == 128 and last["reason"] == "StartError"
    assert 'exec: "no-such-command": executable file not found in $PATH' in last["message"]


@pytest.mark.parametrize(
    ("name", "reasons", "text"),
    [
        ("no-image", ("ErrImagePull", "ImagePullBackOff"), "mizzen.invalid/none:1"),
        ("no-map", ("CreateContainerConfigError",), 'configmap "no" not found'),
        ("root", ("CreateContainerConfigError",), "container has runAsNonRoot and image will run as root"),
    ],
)
async def test_what_keeps_a_container_from_starting(http: Http, name: str, reasons: tuple[str, ...], text: str) -> None:
    found = await http.until("pods", name, str(reasons), waits_for(*reasons))
    assert text in state(found)["waiting"]["message"] and found["status"]["phase"] == "Pending"


async def test_a_volume_that_cannot_be_mounted_is_told(http: Http) -> None:
    found = await eventually("an event", lambda: events(http, "no-volume", "FailedMount"))
    assert 'MountVolume.SetUp failed for volume "v"' in found[0] and 'secret "no" not found' in found[0]
    waiting = state(await http.get("pods", "no-volume"))["waiting"]
    assert waiting["reason"] == "ContainerCreating"


async def test_a_crash_loop_backs_off(http: Http) -> None:
    found = await http.until("pods", "crashing", "back-off", waits_for("CrashLoopBackOff"))
    seen = container(found)
    assert found["status"]["phase"] == "Running" and seen["restartCount"] >= 1
    assert seen["lastState"]["terminated"]["exitCode"] == 5
    assert "back-off" in seen["state"]["waiting"]["message"]


async def test_a_second_try_may_succeed(http: Http) -> None:
    found = await ended(http, "second-try")
    assert found["status"]["phase"] == "Succeeded" and container(found)["restartCount"] == 1
    assert container(found)["lastState"]["terminated"]["exitCode"] == 3


async def test_init_containers_run_in_order(http: Http, cluster: Cluster) -> None:
    found = await ended(http, "prepared")
    assert cluster.kubectl("logs", "prepared") == "one\ntwo\n"
    assert [container(found, name)["ready"] for name in ("first", "second")] == [True, True]


async def test_a_failed_init_container_fails_the_pod(http: Http) -> None:
    found = await ended(http, "unprepared")
    assert found["status"]["phase"] == "Failed" and state(found)["waiting"]["reason"] == "PodInitializing"
    assert conditions(found)["Initialized"]["status"] == "False"


async def test_a_sidecar_starts_first_and_holds_nothing_up(http: Http, cluster: Cluster) -> None:
    found = await ended(http, "accompanied")
    assert found["status"]["phase"] == "Succeeded"
    assert cluster.kubectl("logs", "accompanied", "-c", "c") == "together\n"
    beside = container(found, "beside")
    assert "terminated" in beside["state"] and beside["restartCount"] == 0


async def test_environment(http: Http, cluster: Cluster) -> None:
    await ended(http, "environment")
    lines = cluster.kubectl("logs", "environment").splitlines()
    assert ENVIRONMENT.items() <= dict(line.split("=", 1) for line in lines if "=" in line).items()
    assert not any(line.startswith("MISSING=") for line in lines)


async def test_volumes(http: Http, cluster: Cluster) -> None:
    found = await ended(http, "volumes")
    assert found["status"]["phase"] == "Succeeded"
    assert cluster.kubectl("logs", "volumes", "-c", "c").splitlines() == [
        "from the map", 'of="volumes"', "from the secret", "125", "from the map",
        "400", "640", "0", "link", "read-only", "read-only", "token", "ca", cluster.namespace,
    ]  # fmt: skip
    assert cluster.kubectl("logs", "volumes", "-c", "reader") == "shared\n"


async def test_a_config_map_is_followed(http: Http, cluster: Cluster) -> None:
    await http.until("pods", "following", "readiness", is_ready)
    await http.patch("configmaps", "moving", {"data": {"key": "new"}})
    # a change of the pod makes the kubelet look at once, not only within its minute
    await http.patch("pods", "following", {"metadata": {"annotations": {"changed": str(time.time())}}})
    await eventually("the new value", lambda: cluster.run("exec", "following", "--", "cat", "/map/key").stdout == "new")


async def test_a_startup_probe_holds_the_others_back(http: Http) -> None:
    found = await http.until("pods", "slow-start", "readiness", is_ready)
    assert container(found)["restartCount"] == 0 and container(found)["started"] is True


async def test_a_container_that_never_starts_is_restarted(http: Http) -> None:
    found = await http.until("pods", "never-started", "a restart", lambda p: container(p).get("restartCount"))
    assert not is_ready(found)
    assert any(text.startswith("Startup probe failed") for text in await events(http, "never-started", "Unhealthy"))


async def test_a_container_that_is_not_alive_is_restarted(http: Http) -> None:
    await http.until("pods", "dying", "a restart", lambda p: container(p).get("restartCount"))
    assert any(text.startswith("Liveness probe failed") for text in await events(http, "dying", "Unhealthy"))
    killing = "Container c failed liveness probe, will be restarted"
    assert killing in await events(http, "dying", "Killing")


async def test_readiness_comes_and_goes(http: Http, cluster: Cluster) -> None:
    await http.until("pods", "changing", "its start", lambda p: "running" in state(p))
    assert conditions(await http.get("pods", "changing"))["Ready"]["reason"] == "ContainersNotReady"
    cluster.kubectl("exec", "changing", "--", "touch", "/tmp/ready")
    await http.until("pods", "changing", "readiness", is_ready)
    cluster.kubectl("exec", "changing", "--", "rm", "/tmp/ready")
    found = await http.until("pods", "changing", "its end", lambda p: not is_ready(p))
    assert conditions(found)["ContainersReady"]["message"] == "containers with unready status: [c]"


async def test_probes_over_the_network(http: Http) -> None:
    await http.until("pods", "grpc-ready", "readiness", is_ready)
    for name in ("unreachable", "grpc-unready"):
        await eventually(f"a failed probe of {name}", lambda name=name: events(http, name, "Unhealthy"))
        assert not is_ready(await http.get("pods", name))


async def test_a_readiness_gate_is_for_others_to_open(http: Http) -> None:
    found = await http.until(
        "pods", "gated", "its start", lambda p: conditions(p).get("ContainersReady", {}).get("status") == "True"
    )
    assert conditions(found)["Ready"]["reason"] == "ReadinessGatesNotReady"
    gate = {"type": "mizzen.test/gate", "status": "True"}
    media = "application/strategic-merge-patch+json"
    await http.patch("pods", "gated", {"status": {"conditions": [gate]}}, media=media, sub="status")
    found = await http.until("pods", "gated", "readiness", is_ready)
    assert conditions(found)["mizzen.test/gate"]["status"] == "True"


async def test_hooks_and_a_graceful_end(http: Http, cluster: Cluster) -> None:
    await http.until("pods", "hooked", "readiness", is_ready)
    follower = cluster.start("logs", "-f", "hooked")
    try:
        cluster.kubectl("delete", "pod", "hooked", "--wait=false")
        text, _ = follower.communicate(timeout=60)
    finally:
        follower.kill()
    assert text.splitlines() == ["after start", "before stop"]
    await http.until_gone("pods", "hooked")


async def test_who_does_not_listen_is_killed(http: Http) -> None:
    await http.until("pods", "stubborn", "its start", lambda p: "running" in state(p))
    deleted = await http.delete("pods", "stubborn")
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 1
    await http.until_gone("pods", "stubborn")


async def test_a_user_of_its_own(http: Http, cluster: Cluster) -> None:
    await ended(http, "user")
    assert cluster.kubectl("logs", "user").splitlines() == ["1234", "4321", "mine"]


async def test_a_read_only_root(http: Http, cluster: Cluster) -> None:
    await ended(http, "read-only")
    assert cluster.kubectl("logs", "read-only").splitlines() == ["no", "yes"]


async def test_names_given_in_the_manifest(http: Http, cluster: Cluster) -> None:
    await ended(http, "aliased")
    assert cluster.kubectl("logs", "aliased") == "1\n"


async def test_a_pod_has_its_addresses_and_class(http: Http) -> None:
    found = await ended(http, "good")
    status = found["status"]
    assert status["qosClass"] == "BestEffort" and status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["hostIP"] and status["startTime"] and container(found)["containerID"].partition("://")[1]


async def test_a_claim_on_a_folder_outlives_its_pods(http: Http, cluster: Cluster) -> None:
    name = cluster.namespace
    capacity = {"storage": "1Mi"}
    folder = {"path": f"/var/tmp/{name}", "type": "DirectoryOrCreate"}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": capacity, "hostPath": folder, "claimRef": {"namespace": name, "name": "claim"}, **common},
    }  # fmt: skip
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim"},
        "spec": {"volumeName": name, "resources": {"requests": capacity}, **common},
    }  # fmt: skip
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}]
    try:
        cluster.apply(volume, claim, pod("writer", shell("echo kept > /data/file", **mounts), volumes=volumes))
        await ended(http, "writer")
        clean = shell("cat /data/file; rm /data/file", **mounts)
        cluster.apply(pod("reader", clean, volumes=volumes))
        await ended(http, "reader")
        assert cluster.kubectl("logs", "reader") == "kept\n"
        assert (await http.get("persistentvolumeclaims", "claim"))["status"]["phase"] == "Bound"
    finally:
        cluster.kubectl("delete", "pod/writer", "pod/reader", "pvc/claim", "--ignore-not-found", "--now")
        cluster.kubectl("delete", "pv", name, "--ignore-not-found")
