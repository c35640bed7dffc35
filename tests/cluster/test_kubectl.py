"""What kubectl does with objects: reading, waiting, creating, changing and describing them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.client import Cluster, Http
from tests.cluster.objects import FOREVER, IMAGE, Object, conditions, config_map, idle_deployment, pod, shell


@pytest.fixture(scope="module", autouse=True)
def things(cluster: Cluster) -> None:
    """A pod that stays, and ConfigMaps to read."""
    cluster.apply(
        pod("stays", shell(f"echo begun; {FOREVER}"), labels={"app": "stays", "tier": "front"}),
        config_map("read-b", {"set": "read", "rank": "one"}, x="1"),
        config_map("read-a", {"set": "read"}, x="1", y="2"),
    )


@pytest.fixture
def stays(cluster: Cluster) -> str:
    cluster.kubectl("wait", "pod/stays", "--for=condition=Ready", "--timeout=60s")
    return "stays"


def test_objects_are_shown_as_asked(cluster: Cluster) -> None:
    def get(*args: str) -> str:
        return cluster.kubectl("get", "cm", *args)

    ours = ("-l", "set=read", "--no-headers")
    assert [line.split()[:2] for line in get(*ours).splitlines()] == [["read-a", "2"], ["read-b", "1"]]
    assert get(*ours, "-o", "name", "--sort-by=.data.y").split() == ["configmap/read-b", "configmap/read-a"]
    columns = "custom-columns=NAME:.metadata.name,Y:.data.y"
    assert get("-l", "set=read", "-o", columns).split() == ["NAME", "Y", "read-a", "2", "read-b", "<none>"]
    assert get("read-a", "-o", "jsonpath={.data}") == '{"x":"1","y":"2"}'
    assert get("read-a", "-o", "go-template={{.data.x}}") == "1"
    assert [line.split()[-1] for line in get(*ours, "-L", "rank").splitlines()][1] == "one"
    assert "set=read" in get(*ours, "--show-labels")
    assert get("--field-selector=metadata.name=read-a", "-o", "name") == "configmap/read-a\n"
    assert cluster.kubectl("get", "cm/read-a", "pod/stays", "-o", "name").split() == ["configmap/read-a", "pod/stays"]
    everywhere = cluster.kubectl("get", "cm", "-A", "-l", "set=read").splitlines()
    assert everywhere[0].split()[0] == "NAMESPACE" and everywhere[1].split()[0] == cluster.namespace
    assert 'configmaps "absent" not found' in cluster.refused("get", "cm", "absent")
    assert 'doesn\'t have a resource type "nonsense"' in cluster.refused("get", "nonsense")


def test_wide_output_tells_where_a_pod_is(cluster: Cluster, stays: str) -> None:
    heads, row = cluster.kubectl("get", "pod", stays, "-o", "wide").splitlines()
    found = cluster.get("pod", stays)
    assert heads.split()[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert row.split()[:4] == [stays, "1/1", "Running", "0"]
    assert row.split()[5:7] == [found["status"]["podIP"], found["spec"]["nodeName"]]
    assert f"pod/{stays}" in cluster.kubectl("get", "all")


@pytest.mark.parametrize("only", [False, True])
def test_changes_are_watched(cluster: Cluster, only: bool) -> None:
    name, flag = f"watched-{only}".lower(), "--watch-only" if only else "--watch"
    label = f"watched={name}"
    cluster.apply(config_map(name, {"watched": name}, a="1"))
    watcher = cluster.start("get", "cm", "-l", label, flag, "--output-watch-events", "--no-headers")
    assert watcher.stdout is not None
    try:
        seen: list[list[str]] = []
        if not only:
            seen.append(watcher.stdout.readline().split()[:3])
            cluster.kubectl("patch", "cm", name, "-p", '{"data":{"b":"2"}}')
        else:
            # nothing tells when it watches: change until it says so
            deadline, count = time.monotonic() + 60, 1
            import select

            while not select.select([watcher.stdout], [], [], 0.2)[0]:
                assert time.monotonic() < deadline
                count += 1
                cluster.kubectl("patch", "cm", name, "-p", json.dumps({"data": {f"k{count}": "2"}}))
        seen.append(watcher.stdout.readline().split()[:2])
        cluster.kubectl("delete", "cm", name)
        last = seen[-1]
        while last[0] != "DELETED":
            last = watcher.stdout.readline().split()[:2]
    finally:
        watcher.kill()
        watcher.communicate()
    assert seen == ([] if only else [["ADDED", name, "1"]]) + [["MODIFIED", name]] and last == ["DELETED", name]


def test_waiting(cluster: Cluster, stays: str) -> None:
    name = f"pod/{stays}"
    met = f"{name} condition met\n"
    assert cluster.kubectl("wait", name, "--for=jsonpath={.status.phase}=Running", "--timeout=10s") == met
    assert cluster.kubectl("wait", name, "--for=jsonpath={.status.podIP}", "--timeout=10s") == met
    assert cluster.kubectl("wait", "pod", "-l", "app=stays", "--for=create", "--timeout=10s") == met
    said = cluster.refused("wait", name, "--for=condition=Nothing", "--timeout=100ms")
    assert f"timed out waiting for the condition on pods/{stays}" in said
    assert 'pods "nobody" not found' in cluster.refused("wait", "pod/nobody", "--for=condition=Ready")
    waiter = cluster.start("wait", "cm/comes", "--for=create", "--timeout=60s")
    cluster.apply(config_map("comes", a="1"))
    assert waiter.communicate(timeout=60)[0] == "configmap/comes condition met\n" and waiter.returncode == 0
    waiter = cluster.start("wait", "cm/comes", "--for=delete", "--timeout=60s")
    cluster.kubectl("delete", "cm/comes")
    waiter.communicate(timeout=60)
    assert waiter.returncode == 0


def test_generators(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("A=1\nB=2\n")

    def create(*args: str) -> Object:
        found: Object = json.loads(cluster.kubectl("create", "-o", "json", *args))
        return found

    assert create("configmap", "from-file", f"--from-file={file}")["data"] == {"settings.env": "A=1\nB=2\n"}
    assert create("configmap", "from-env", f"--from-env-file={file}")["data"] == {"A": "1", "B": "2"}
    assert create("secret", "generic", "literal", "--from-literal=p=q")["data"] == {"p": "cQ=="}
    made = create("secret", "docker-registry", "pull", "--docker-username=u", "--docker-password=p")
    assert made["type"] == "kubernetes.io/dockerconfigjson" and list(made["data"]) == [".dockerconfigjson"]
    made = create("cronjob", "timed", f"--image={IMAGE}", "--schedule=0 0 1 1 *", "--", "true")
    assert made["spec"]["schedule"] == "0 0 1 1 *"
    made = create("job", "manual", "--from=cronjob/timed")
    assert made["metadata"]["annotations"] == {"cronjob.kubernetes.io/instantiate": "manual"}
    assert made["metadata"]["ownerReferences"][0]["name"] == "timed"
    assert "batch.kubernetes.io/controller-uid" in made["spec"]["selector"]["matchLabels"]
    cluster.kubectl("wait", "job/manual", "--for=condition=Complete", "--timeout=60s")
    assert cluster.kubectl("get", "job", "-l", "job-name=manual", "-o", "name") == "job.batch/manual\n"
    heads, row = cluster.kubectl("get", "cronjob", "timed", "-o", "wide").splitlines()
    assert heads.split()[-3:] == ["CONTAINERS", "IMAGES", "SELECTOR"] and row.split()[-3:] == ["timed", IMAGE, "<none>"]
    create("serviceaccount", "robot")
    token = cluster.kubectl("create", "token", "robot", "--duration=1h").split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(token + "=="))
    assert claims["sub"] == f"system:serviceaccount:{cluster.namespace}:robot" and claims["exp"] - claims["iat"] == 3600
    create("role", "reads", "--verb=get,list", "--resource=pods,deployments.apps")
    create("rolebinding", "reads", "--role=reads", f"--serviceaccount={cluster.namespace}:robot", "--group=readers")
    heads, row = cluster.kubectl("get", "rolebinding", "reads", "-o", "wide").splitlines()
    assert heads.split() == ["NAME", "ROLE", "AGE", "USERS", "GROUPS", "SERVICEACCOUNTS"]
    assert row.split()[-2:] == ["readers", f"{cluster.namespace}/robot"]
    listed = cluster.kubectl("auth", "can-i", "--list", f"--as=system:serviceaccount:{cluster.namespace}:robot")
    rules = [line.split() for line in listed.splitlines()]
    assert ["pods", "[]", "[]", "[get", "list]"] in rules and ["deployments.apps", "[]", "[]", "[get", "list]"] in rules
    everything = cluster.kubectl("auth", "can-i", "--list")
    assert "*.*" in everything and "selfsubjectreviews.authentication.k8s.io" in everything
    dry = cluster.kubectl("create", "configmap", "dry", "--dry-run=server", "-o", "jsonpath={.metadata.uid}")
    assert dry and "not found" in cluster.refused("get", "cm", "dry")


def test_one_pod_from_the_command_line(cluster: Cluster) -> None:
    """`kubectl run --rm -i` attaches, whether the pod has begun or ended by then, and leaves nothing."""

    def run(name: str, script: str, stdin: str = "") -> tuple[int, str]:
        flags = (
            f"--image={IMAGE}",
            "--restart=Never",
            "--rm",
            "-i",
            "--quiet",
            "--command",
            "--pod-running-timeout=60s",
        )
        done = cluster.run("run", name, *flags, "--", "sh", "-c", script, stdin=stdin)
        return done.returncode, done.stdout

    assert run("once", "echo hello; sleep 0.3") == (0, "hello\n")
    assert run("fails", "echo before; sleep 0.3; exit 3")[0] == 3
    assert run("typed", "cat; sleep 0.3", "to its stdin\n") == (0, "to its stdin\n")
    assert "not found" in cluster.refused("get", "pod", "once")


def test_labels_annotations_and_patches(cluster: Cluster) -> None:
    cluster.apply(config_map("changed", a="1"))
    name = "cm/changed"
    assert cluster.kubectl("label", name, "a=1", "b=1") == "configmap/changed labeled\n"
    assert "'a' already has a value (1), and --overwrite is false" in cluster.refused("label", name, "a=2")
    assert cluster.kubectl("label", name, "a=2", "--overwrite") == "configmap/changed labeled\n"
    assert cluster.kubectl("label", name, "a-") == "configmap/changed unlabeled\n"
    assert cluster.kubectl("label", name, "b=1") == "configmap/changed not labeled\n"
    assert "a valid label must be an empty string or consist of" in cluster.refused("label", name, "c=no way")
    assert cluster.kubectl("annotate", name, "note=some words") == "configmap/changed annotated\n"
    assert "note=some words" in cluster.kubectl("annotate", name, "--list")
    assert cluster.kubectl("patch", name, "-p", '{"data":{"b":"2"}}') == "configmap/changed patched\n"
    assert cluster.kubectl("patch", name, "-p", '{"data":{"b":"2"}}') == "configmap/changed patched (no change)\n"
    found = cluster.get(name)
    assert found["metadata"]["labels"] == {"b": "1"} and found["data"] == {"a": "1", "b": "2"}


def test_editing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.apply(config_map("edited", word="old"))
    monkeypatch.setenv("KUBE_EDITOR", "sed -i s/old/new/")
    assert cluster.kubectl("edit", "cm/edited") == "configmap/edited edited\n"
    assert cluster.get("cm/edited")["data"] == {"word": "new"}
    monkeypatch.setenv("KUBE_EDITOR", "true")
    assert "Edit cancelled, no changes made." in cluster.run("edit", "cm/edited").stderr
    applied = json.loads(cluster.kubectl("apply", "view-last-applied", "cm/edited", "-o", "json"))
    assert applied["data"] == {"word": "new"}, "what is edited counts as applied"


def test_replacing_by_force(cluster: Cluster) -> None:
    """What cannot be changed is deleted and made anew."""
    cluster.apply(pod("forced", shell(FOREVER)))
    before = cluster.get("pod/forced")
    changed = pod("forced", shell(FOREVER, env=[{"name": "WORD", "value": "new"}]))
    said = cluster.refused("replace", "-f", "-", stdin=json.dumps(changed))
    assert "pod updates may not change fields other than" in said
    assert "pod/forced replaced" in cluster.kubectl("replace", "--force", "-f", "-", stdin=json.dumps(changed))
    after = cluster.get("pod/forced")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["containers"][0]["env"] == [{"name": "WORD", "value": "new"}]
    said = cluster.kubectl("delete", "pod/forced", "--grace-period=0", "--force")
    assert f'pod "forced" force deleted from {cluster.namespace} namespace' in said


def test_what_is_no_longer_applied_is_pruned(cluster: Cluster) -> None:
    def apply(*names: str) -> list[str]:
        maps = [config_map(name, {"pruned": "yes"}, a="1") for name in names]
        flags = ("--prune", "-l", "pruned=yes", "--prune-allowlist=core/v1/ConfigMap")
        return cluster.apply(*maps, args=flags).splitlines()

    assert apply("p1", "p2") == ["configmap/p1 created", "configmap/p2 created"]
    assert apply("p2") == ["configmap/p2 unchanged", "configmap/p1 pruned"]


def test_deleting_what_is_selected(cluster: Cluster) -> None:
    cluster.apply(*(config_map(f"del-{number}", {"del": str(number > 1)}, a="1") for number in range(4)))
    would = cluster.kubectl("delete", "cm", "-l", "del=True", "--dry-run=server").splitlines()
    assert [line.split()[1] for line in would] == ['"del-2"', '"del-3"']
    assert len(cluster.kubectl("delete", "cm", "-l", "del=True").splitlines()) == 2
    left = cluster.kubectl("get", "cm", "-l", "del", "-o", "name").split()
    assert left == ["configmap/del-0", "configmap/del-1"]
    said = cluster.refused("delete", "cm", "del-0", "absent")
    assert 'configmap "del-0" deleted' in said and 'configmaps "absent" not found' in said


def test_a_pod_is_described(cluster: Cluster, stays: str) -> None:
    text = cluster.kubectl("describe", "pod", stays)
    for words in ("Status:           Running", "QoS Class:                   BestEffort", "Ready:          True"):
        assert words in text, words
    for reason in ("Scheduled", "Created", "Started"):
        assert f"Normal  {reason}" in text, text
    events = cluster.kubectl("events", "--for", f"pod/{stays}", "--types=Normal")
    assert "Started" in events and f"Pod/{stays}" in events
    assert "No events found" in cluster.run("events", "--for", f"pod/{stays}", "--types=Warning").stderr


def test_a_node_is_described(cluster: Cluster, stays: str) -> None:
    node = cluster.get("pod", stays)["spec"]["nodeName"]
    text = cluster.kubectl("describe", "node", node)
    for words in (
        f"Name:               {node}",
        "Ready            True",
        "KubeletReady",
        "Allocatable:",
        "Allocated resources",
    ):
        assert words in text, words
    (row,) = (line.split() for line in text.splitlines() if line.split()[:2] == [cluster.namespace, stays])
    assert row[2:4] == ["0", "(0%)"]


def test_other_things_are_described(cluster: Cluster) -> None:
    cluster.kubectl("create", "quota", "described", "--hard=count/leases.coordination.k8s.io=5")
    cluster.kubectl("create", "pdb", "described", "--selector=app=stays", "--min-available=1")
    cluster.apply(idle_deployment("described"))
    cluster.kubectl("autoscale", "deployment/described", "--min=2", "--max=5", "--cpu=50%")
    for name, words in {
        "quota/described": ["count/leases.coordination.k8s.io", "0     5"],
        "pdb/described": ["Min available:  1", "Selector:       app=stays"],
        "hpa/described": ["Min replicas:", "Deployment/described", "(as a percentage of request)"],
        "deployment/described": [
            "StrategyType:           RollingUpdate",
            "25% max unavailable, 25% max surge",
            "Pod Template:",
        ],
        "configmap/read-a": ["BinaryData"],
        f"namespace/{cluster.namespace}": ["Status:       Active", "Resource Quotas"],
    }.items():
        text = cluster.kubectl("describe", name)
        assert all(word in text for word in words), text
    cluster.kubectl("delete", "hpa/described", "deployment/described", "quota/described", "pdb/described")


def test_what_the_server_is(cluster: Cluster) -> None:
    versions = set(cluster.kubectl("api-versions").split())
    assert {"v1", "apps/v1", "batch/v1", "autoscaling/v2", "events.k8s.io/v1", "policy/v1"} <= versions
    assert "Server Version: v1." in cluster.kubectl("version")
    assert "Kubernetes control plane" in cluster.kubectl("cluster-info")
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    assert cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{cluster.namespace}/configmaps/read-a")


@pytest.fixture
def node(cluster: Cluster, stays: str) -> Iterator[str]:
    name = cluster.get("pod", stays)["spec"]["nodeName"]
    yield name
    cluster.kubectl("uncordon", name)


async def test_a_node_is_drained_as_far_as_budgets_let_it(cluster: Cluster, http: Http, node: str) -> None:
    cluster.apply(pod("drained", shell(FOREVER), nodeName=node))
    cluster.kubectl("create", "pdb", "drained", "--selector=app=drained", "--min-available=1")
    cluster.kubectl("wait", "pod/drained", "--for=condition=Ready", "--timeout=60s")
    await http.until("policy/v1/poddisruptionbudgets", "drained", "its count", lambda b: b["status"]["currentHealthy"])
    drain = ("drain", node, "--pod-selector=app=drained", "--ignore-daemonsets")
    said = cluster.refused(*drain, "--timeout=60s")
    assert "cannot delete Pods that declare no controller (use --force to override)" in said
    said = cluster.refused(*drain, "--force", "--timeout=1s")
    assert "Cannot evict pod as it would violate the pod's disruption budget." in said
    assert cluster.kubectl("get", "node", node, "--no-headers").split()[1] == "Ready,SchedulingDisabled"
    cluster.apply(pod("kept-off", shell(FOREVER), nodeSelector={"kubernetes.io/hostname": node}))
    found = await http.until("pods", "kept-off", "its refusal", lambda p: "PodScheduled" in conditions(p))
    assert "node(s) were unschedulable" in conditions(found)["PodScheduled"]["message"]
    cluster.kubectl("delete", "pdb", "drained")
    assert "pod/drained evicted" in cluster.kubectl(*drain, "--force", "--timeout=60s")
    assert "not found" in cluster.refused("get", "pod", "drained")
    assert cluster.kubectl("uncordon", node) == f"node/{node} uncordoned\n"
    assert cluster.kubectl("uncordon", node) == f"node/{node} already uncordoned\n"
    assert cluster.kubectl("cordon", node) == f"node/{node} cordoned\n"
    assert cluster.kubectl("uncordon", node) == f"node/{node} uncordoned\n"
    cluster.kubectl("wait", "pod/kept-off", "--for=condition=Ready", "--timeout=60s")
    cluster.kubectl("delete", "pod/kept-off", "--now")
