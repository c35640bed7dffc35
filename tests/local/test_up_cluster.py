"""The embedded cluster through kubectl: workloads, names, storage, deletion, and what survives `kill -9`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mizzen_local.http_client import HttpClient
from mizzen_local.trouble import troubles
from tests.conftest import EmbeddedCluster

pytestmark = pytest.mark.cluster

SERVE = "import http.server as h,os; h.test(h.SimpleHTTPRequestHandler, bind=os.environ['POD_IP'], port=8000)"
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"name": "c", "image": "busybox", "command": ["sh", "-c", script], **more}


def pod(name: str, container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"app": name}}
    body = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def web(name: str, replicas: int, **template: Any) -> list[dict[str, Any]]:
    labels = {"app": name}
    container = {
        "name": "c", "image": "python", "command": ["python3", "-c", SERVE], "workingDir": "/tmp", "env": [POD_IP],
        "ports": [{"name": "http", "containerPort": 8000}], "readinessProbe": {"httpGet": {"port": "http"}},
    }  # fmt: skip
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels, **template}, "spec": {"containers": [container]}},
    }
    service = {"type": "LoadBalancer", "selector": labels, "ports": [{"port": 8080, "targetPort": "http"}]}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service},
    ]


def job(name: str, script: str, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": "Never", "containers": [shell(script)]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def phase(cluster: EmbeddedCluster, name: str) -> str:
    return str(cluster.get("pod", name).get("status", {}).get("phase"))


def container_state(cluster: EmbeddedCluster, name: str) -> dict[str, Any]:
    statuses = cluster.get("pod", name).get("status", {}).get("containerStatuses") or [{}]
    state: dict[str, Any] = statuses[0].get("state", {})
    return state


def message(cluster: EmbeddedCluster, name: str) -> str:
    """What a pod that has ended wrote to /dev/termination-log."""
    cluster.wait(f"pod {name} to end", lambda: phase(cluster, name) in ("Succeeded", "Failed"))
    return str(container_state(cluster, name)["terminated"].get("message", ""))


def test_a_deployment_is_rolled_out_balanced_and_rolled_over(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    cluster.apply(*web("site", 2))
    cluster.kubectl("rollout", "status", "deployment/site", "--timeout=20s")
    address = cluster.get("service", "site")["status"]["loadBalancer"]["ingress"][0]["ip"]
    with urllib.request.urlopen(f"http://{address}:8080/", timeout=5) as answer:
        assert answer.status == 200
    cluster.apply(*web("site", 3, annotations={"version": "2"}))
    cluster.kubectl("rollout", "status", "deployment/site", "--timeout=20s")
    revisions = {
        rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for rs in cluster.get("rs")["items"]
    }
    assert {"1", "2"} <= revisions
    asker = shell(f'python3 -c "{ASK.format("site")}" > /dev/termination-log', image="python")
    cluster.apply(pod("asker", asker))
    assert message(cluster, "asker") == "200 200\n"
    cluster.kubectl("delete", "deployment/site", "service/site", "--wait")
    cluster.wait("its pods to go", lambda: not cluster.get("pods", "-l", "app=site")["items"])


ASK = "import urllib.request as u; print(*[u.urlopen('http://'+n+':8080').status for n in ('{0}', '{0}.default.svc')])"


def test_a_pod_sees_its_configuration_and_nothing_stays_on_the_host(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    script = """
    { cat /etc/test-config/file; echo; echo "$KEY $SECRET $POD_IP $(hostname)"; cat $SA/namespace; echo
      echo kept > /data/file; echo x > /usr/test-trace; } > /dev/termination-log
    """
    mounts = [{"name": "config", "mountPath": "/etc/test-config"}, {"name": "data", "mountPath": "/data"}]
    env = [
        POD_IP,
        {"name": "SA", "value": "/var/run/secrets/kubernetes.io/serviceaccount"},
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "file"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}},
    ]
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"file": "value"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"word": "hush"}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim},
        pod(
            "reader",
            shell(script, env=env, volumeMounts=mounts),
            volumes=[
                {"name": "config", "configMap": {"name": "settings"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            ],
        ),
    )
    lines = message(cluster, "reader").splitlines()
    address = cluster.get("pod", "reader")["status"]["podIP"]
    assert lines == ["value", f"value hush {address} reader", "default"]
    assert (cluster.state / "volumes" / "default" / "data" / "file").read_text() == "kept\n"
    assert not Path("/usr/test-trace").exists() and not Path("/etc/test-config").exists()


def test_jobs_complete_and_fail_with_reasons(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    cluster.apply(
        job("good", "exit 0", completions=3, parallelism=2),
        job("bad", "echo why; exit 3", backoffLimit=1),
        job("brief", "exit 0", ttlSecondsAfterFinished=1),
    )
    cluster.kubectl("wait", "--for=condition=complete", "job/good", "--timeout=20s")
    cluster.kubectl("wait", "--for=condition=failed", "job/bad", "--timeout=20s")
    good, bad = cluster.get("job", "good")["status"], cluster.get("job", "bad")["status"]
    assert (good["succeeded"], bad["failed"]) == (3, 2)
    assert {c["type"]: c["reason"] for c in bad["conditions"]}["Failed"] == "BackoffLimitExceeded"
    cluster.wait("the brief job to go", lambda: "NotFound" in cluster.kubectl("get", "job", "brief", check=False))
    cluster.kubectl("delete", "job", "good", "bad", "--cascade=foreground")
    assert not cluster.get("pods", "-l", "job-name in (good, bad, brief)")["items"]


def test_what_does_not_fit_stays_pending_until_there_is_room(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    large = {"resources": {"requests": {"cpu": "6"}}}
    cluster.apply(pod("first", shell("sleep 60", **large)))
    cluster.wait("the first to run", lambda: phase(cluster, "first") == "Running")
    cluster.apply(pod("second", shell("sleep 60", **large)))

    def scheduled() -> dict[str, Any] | None:
        conditions = cluster.get("pod", "second")["status"].get("conditions") or []
        return next((c for c in conditions if c["type"] == "PodScheduled"), None)

    verdict = cluster.wait("the scheduler's verdict", scheduled)
    assert (verdict["status"], verdict["reason"]) == ("False", "Unschedulable")
    assert "Insufficient cpu" in verdict["message"]
    cluster.kubectl("delete", "pod", "first")
    cluster.wait("the second to run", lambda: phase(cluster, "second") == "Running")
    cluster.kubectl("delete", "pod", "second")


def test_unknown_images_and_crashes_say_what_is_wrong(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    cluster.apply(
        pod("pulled", {"name": "c", "image": "nginx:1"}), pod("crash", shell("exit 1"), restartPolicy="Always")
    )
    waiting = cluster.wait(
        "the image's error", lambda: container_state(cluster, "pulled").get("waiting", {}).get("message")
    )
    assert "busybox" in waiting and "nginx" in waiting
    cluster.wait(
        "the crash loop",
        lambda: container_state(cluster, "crash").get("waiting", {}).get("reason") == "CrashLoopBackOff",
    )
    cluster.kubectl("delete", "pod", "pulled", "crash")


def test_logs_and_commands_reach_the_container(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    script = "test -e /d/2 && exec sleep 60; echo one; sleep 1; echo two; touch /d/2; exit 1"
    container = shell(script, volumeMounts=[{"name": "d", "mountPath": "/d"}])
    cluster.apply(pod("talker", container, restartPolicy="OnFailure", volumes=[{"name": "d", "emptyDir": {}}]))
    cluster.wait("its first start", lambda: container_state(cluster, "talker").get("running"))
    assert cluster.kubectl("logs", "talker", "-f").splitlines() == ["one", "two"]
    restarts = "{.status.containerStatuses[0].restartCount}"
    cluster.kubectl("wait", f"--for=jsonpath={restarts}=1", "pod/talker", "--timeout=20s")
    cluster.kubectl("wait", "--for=condition=ready", "pod/talker", "--timeout=20s")
    assert cluster.kubectl("logs", "talker", "--previous", "--tail=1") == "two\n"
    assert cluster.kubectl("exec", "talker", "--", "sh", "-c", "hostname; ls /d") == "talker\n2\n"
    assert "exit code 7" in cluster.kubectl("exec", "talker", "--", "sh", "-c", "exit 7", check=False)
    cluster.kubectl("delete", "pod", "talker", "--wait=false")


def test_a_deleted_namespace_takes_everything_along(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    cluster.kubectl("create", "namespace", "passing")
    cluster.wait("its service account", lambda: cluster.get("serviceaccounts", "-n", "passing")["items"])
    manifest = pod("inside", shell("sleep 60"))
    manifest["metadata"]["namespace"] = "passing"
    cluster.apply(manifest)
    cluster.kubectl("delete", "namespace", "passing", "--timeout=20s")
    assert "NotFound" in cluster.kubectl("get", "namespace", "passing", check=False)


def test_pods_survive_the_death_of_the_daemon(embedded_cluster: EmbeddedCluster) -> None:
    cluster = embedded_cluster
    mounts = [{"name": "d", "mountPath": "/d"}]
    waits = shell("while ! test -e /d/go; do sleep 0.05; done; exit 4", volumeMounts=mounts)
    volumes = [{"name": "d", "emptyDir": {}}]
    cluster.apply(pod("survivor", shell("echo up; sleep 60")), pod("ending", waits, volumes=volumes))
    for name in ("survivor", "ending"):
        cluster.kubectl("wait", "--for=condition=ready", f"pod/{name}", "--timeout=20s")
    uid = cluster.get("pod", "ending")["metadata"]["uid"]
    os.kill(json.loads((cluster.state / "daemon.json").read_text())["pid"], signal.SIGKILL)
    folder = cluster.state / "node" / "pods" / uid
    (folder / "volumes" / "d" / "go").touch()  # it ends while nobody watches
    cluster.wait("its exit status", (folder / "containers/c/0/exit.json").exists)
    cluster.mizzen_local("up", "--no-chart", "--port", str(cluster.port), "--cpus", "8", "--memory", "16Gi")
    cluster.wait("its end to be told", lambda: phase(cluster, "ending") == "Failed")
    assert container_state(cluster, "ending")["terminated"]["exitCode"] == 4
    survivor = cluster.get("pod", "survivor")["status"]
    assert survivor["phase"] == "Running" and survivor["containerStatuses"][0]["restartCount"] == 0
    cluster.kubectl("delete", "pod", "survivor", "ending")


def test_up_twice_is_fine_and_status_tells(embedded_cluster: EmbeddedCluster) -> None:
    assert "already running" in embedded_cluster.mizzen_local("up", "--no-chart").stdout
    found = json.loads(embedded_cluster.mizzen_local("status").stdout)
    assert found["running"] and found["nodes"] == {"local": "Ready"}
    assert Path(found["kubeconfig"]) == embedded_cluster.kubeconfig.resolve()
    assert found["freeMiB"] > 0
    again = embedded_cluster.mizzen_local("up", "--no-chart", "--cpus", "7").stdout
    assert "--cpus: no effect on a running cluster, only after `mizzen down`" in again


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = EmbeddedCluster(tmp_path / "state", port)
        done = other.mizzen_local("up", "--no-chart", "--port", str(port), check=False)
    assert done.returncode == 1
    assert f"port {port} is taken by another process" in done.stderr


async def test_a_pod_in_trouble_is_explained(embedded_cluster: EmbeddedCluster) -> None:
    script = "echo opening the ledger; echo ledger is locked; exit 3"
    embedded_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "troubled"}})
    crashing = pod("crashing", shell(script), restartPolicy="Always")
    unknown = pod("unknown", {"name": "c", "image": "nowhere.test/nothing:1"})
    embedded_cluster.kubectl(
        "apply", "-n", "troubled", "-f", "-", stdin=json.dumps(crashing) + "\n---\n" + json.dumps(unknown)
    )
    async with HttpClient.from_kubeconfig(embedded_cluster.kubeconfig) as client:
        async with asyncio.timeout(30):
            said = ""
            while "CrashLoopBackOff" not in said or "nothing:1" not in said:
                said = "\n".join(await troubles(client, "troubled"))
                await asyncio.sleep(0.1)
    assert "pod crashing is Running" in said
    assert "ledger is locked" in said
    assert "pod unknown is Pending" in said


def test_an_extended_resource_is_given_once(embedded_cluster: EmbeddedCluster) -> None:
    """Two of mizzen.dev/accelerator: the second pod waits until the first has ended."""
    amount = {"limits": {"mizzen.dev/accelerator": "2"}}
    embedded_cluster.apply(pod("holds", shell("sleep 60", resources=amount)))
    embedded_cluster.wait("the first pod", lambda: phase(embedded_cluster, "holds") == "Running")
    embedded_cluster.apply(pod("waits", shell("true", resources=amount)))

    def why() -> str:
        conditions = embedded_cluster.get("pod", "waits").get("status", {}).get("conditions", [])
        return next((c.get("message", "") for c in conditions if c["type"] == "PodScheduled"), "")

    embedded_cluster.wait("a word", lambda: "Insufficient mizzen.dev/accelerator" in why())
    assert phase(embedded_cluster, "waits") == "Pending"
    embedded_cluster.kubectl("delete", "pod", "holds", "--grace-period=0", "--force")
    embedded_cluster.wait("its turn", lambda: phase(embedded_cluster, "waits") == "Succeeded")
    embedded_cluster.kubectl("delete", "pod", "waits")
