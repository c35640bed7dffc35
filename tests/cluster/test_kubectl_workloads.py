"""What kubectl does with workloads: roll-outs and their history, sizes, templates, logs and Services."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.cluster.client import Cluster, Http, eventually
from tests.cluster.objects import FOREVER, IMAGE, deployment, idle_deployment, server, service, shell

DEPLOYMENTS = "apps/v1/deployments"


@pytest.fixture(scope="module")
def idle(cluster: Cluster) -> str:
    """A Deployment of no pods, for what concerns its template."""
    cluster.apply(idle_deployment("idle"))
    return "deployment/idle"


def container(cluster: Cluster, name: str) -> Any:
    return cluster.get(name)["spec"]["template"]["spec"]["containers"][0]


async def causes(cluster: Cluster, name: str, wanted: dict[str, str]) -> None:
    """Wait until the history of a Deployment is this: causes of change by revision."""

    def found() -> bool:
        lines = cluster.kubectl("rollout", "history", name)
        return dict(re.findall(r"^(\d+) +(.+)$", lines, re.MULTILINE)) == wanted

    await eventually(f"the history {wanted}", found)


async def test_a_rollout_from_its_creation_to_its_undoing(cluster: Cluster) -> None:
    script = ("sh", "-c", FOREVER)
    name = "deployment/told"
    cluster.kubectl("create", "deployment", "told", f"--image={IMAGE}", "--replicas=2", "--port=80", "--", *script)
    said = cluster.kubectl("rollout", "status", name, "--timeout=60s")
    assert said.endswith('deployment "told" successfully rolled out\n')
    cluster.kubectl("annotate", name, "kubernetes.io/change-cause=the beginning")
    await causes(cluster, name, {"1": "the beginning"})
    cluster.kubectl("set", "env", name, "WORD=two")
    cluster.kubectl("annotate", name, "kubernetes.io/change-cause=a word", "--overwrite")
    cluster.kubectl("rollout", "status", name, "--timeout=60s")
    await causes(cluster, name, {"1": "the beginning", "2": "a word"})
    assert re.search(r"WORD:\s+two", cluster.kubectl("rollout", "history", name, "--revision=2"))
    assert "unable to find the specified revision" in cluster.refused("rollout", "history", name, "--revision=9")
    assert "unable to find specified revision 9" in cluster.refused("rollout", "undo", name, "--to-revision=9")
    assert cluster.kubectl("rollout", "undo", name, "--to-revision=1") == "deployment.apps/told rolled back\n"
    cluster.kubectl("rollout", "status", name, "--timeout=60s")
    await causes(cluster, name, {"2": "a word", "3": "the beginning"})
    assert "env" not in container(cluster, name)
    sets = cluster.get("rs", "-l", "app=told")["items"]
    histories = [rs["metadata"]["annotations"].get("deployment.kubernetes.io/revision-history") for rs in sets]
    assert sorted(histories, key=str) == ["1", None]
    assert cluster.kubectl("rollout", "restart", name) == "deployment.apps/told restarted\n"
    cluster.kubectl("rollout", "status", name, "--timeout=60s")
    template = cluster.get(name)["spec"]["template"]["metadata"]
    assert "kubectl.kubernetes.io/restartedAt" in template["annotations"]
    pods = cluster.get("pods", "-l", "app=told")["items"]
    current = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    assert len(current) == 2 and all("annotations" in pod["metadata"] for pod in current)
    text = cluster.kubectl("describe", name)
    assert "Scaled up replica set told-" in text and "2 desired | 2 updated" in text
    cluster.kubectl("delete", name)


def test_pausing(cluster: Cluster, idle: str) -> None:
    def rollout(verb: str) -> str:
        return cluster.kubectl("rollout", verb, idle)

    assert rollout("pause") == "deployment.apps/idle paused\n"
    assert "is already paused" in cluster.refused("rollout", "pause", idle)
    assert "can't restart paused deployment (run rollout resume first)" in cluster.refused("rollout", "restart", idle)
    assert rollout("resume") == "deployment.apps/idle resumed\n"
    assert "is not paused" in cluster.refused("rollout", "resume", idle)


def test_templates_are_set(cluster: Cluster, idle: str) -> None:
    assert cluster.kubectl("set", "image", idle, "c=other:1") == "deployment.apps/idle image updated\n"
    assert 'unable to find container named "x"' in cluster.refused("set", "image", idle, "x=other:1")
    cluster.kubectl("set", "env", idle, "A=1", "B=2")
    cluster.kubectl("set", "env", idle, "A-")
    assert cluster.kubectl("set", "env", idle, "--list").splitlines()[1:] == ["B=2"]
    cluster.kubectl("set", "resources", idle, "--requests=cpu=100m", "--limits=cpu=200m,memory=64Mi")
    cluster.kubectl("set", "serviceaccount", idle, "default")
    found = container(cluster, idle)
    assert found["image"] == "other:1" and found["env"] == [{"name": "B", "value": "2"}]
    assert found["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    said = cluster.refused("set", "resources", idle, "--requests=cpu=300m")
    assert "must be less than or equal to cpu limit of 200m" in said
    assert cluster.get(idle)["spec"]["template"]["spec"]["serviceAccountName"] == "default"


def test_sizes(cluster: Cluster) -> None:
    cluster.apply(idle_deployment("sized"))
    name = "deployment/sized"
    said = cluster.refused("scale", name, "--replicas=0", "--current-replicas=2")
    assert "Expected replicas to be 2, was 0" in said
    assert cluster.kubectl("scale", name, "--replicas=0", "--current-replicas=0") == "deployment.apps/sized scaled\n"
    assert cluster.kubectl("autoscale", name, "--min=2", "--max=4", "--cpu=50%").endswith("autoscaled\n")
    heads, row = cluster.kubectl("get", "hpa", "sized").splitlines()
    assert heads.split() == ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]
    assert row.split()[:6] == ["sized", "Deployment/sized", "cpu:", "<unknown>/50%", "2", "4"]
    cluster.kubectl("delete", "hpa/sized", name)


async def test_a_deployment_is_exposed_and_its_pods_speak(cluster: Cluster, http: Http) -> None:
    cluster.apply(deployment("spoken", server("a word"), 2))
    name = "deployment/spoken"
    assert cluster.kubectl("expose", name, "--port=80", "--target-port=http") == "service/spoken exposed\n"
    cluster.kubectl("rollout", "status", name, "--timeout=60s")
    found = cluster.get("svc", "spoken")["spec"]
    assert found["selector"] == {"app": "spoken"} and found["ports"][0]["targetPort"] == "http"
    row = cluster.kubectl("get", "svc", "spoken", "-o", "wide", "--no-headers")
    assert row.split()[1:5] == ["ClusterIP", found["clusterIP"], "<none>", "80/TCP"] and row.split()[-1] == "app=spoken"
    pods = cluster.get("pods", "-l", "app=spoken")["items"]
    addresses = {pod["status"]["podIP"] for pod in pods}

    def described() -> bool:
        text = cluster.kubectl("describe", "svc", "spoken")
        return all(f"{address}:8000" in text for address in addresses)

    await eventually("its endpoints", described)
    assert cluster.kubectl("exec", name, "--", "printenv", "WORD") == "a word\n"
    cluster.kubectl("delete", name, "svc/spoken")


def test_logs_of_many(cluster: Cluster) -> None:
    say = f"echo from $HOSTNAME; {FOREVER}"
    name = "deployment/many"
    cluster.apply(deployment("many", shell(say, env=[{"name": "MARK", "value": "x"}]), 2))
    cluster.kubectl("rollout", "status", name, "--timeout=60s")
    pods = [pod["metadata"]["name"] for pod in cluster.get("pods", "-l", "app=many")["items"]]
    lines = cluster.kubectl("logs", "-l", "app=many", "--prefix").splitlines()
    assert {re.sub(r"\[pod/(.*)/c\] .*", r"\1", line) for line in lines} == set(pods)
    assert cluster.kubectl("logs", name, "--all-pods", "--prefix").count("from") == 2
    assert cluster.run("logs", name).stdout.startswith("from")
    assert "Found 2 pods" in cluster.run("logs", name).stderr
    cluster.kubectl("delete", name)


def test_a_manifest_is_applied_until_another_owns_a_field(cluster: Cluster) -> None:
    """Client-side and server-side, and what stays of others' changes."""
    name = "deployment/owned"
    body = idle_deployment("owned")
    flags = ("apply", "--server-side", "-f", "-")
    assert cluster.kubectl(*flags, stdin=json.dumps(body)) == "deployment.apps/owned serverside-applied\n"
    cluster.kubectl("set", "image", name, f"c={IMAGE}-other", "--field-manager=somebody")
    said = cluster.refused(*flags, stdin=json.dumps(body))
    assert 'conflict with "somebody"' in said and '.spec.template.spec.containers[name="c"].image' in said
    assert "--force-conflicts" in said
    diff = cluster.run("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(body))
    assert diff.returncode == 1 and f"-      - image: {IMAGE}-other" in re.sub(
        r"^- +", "-      ", diff.stdout, flags=re.M
    )
    cluster.kubectl(*flags, "--force-conflicts", stdin=json.dumps(body))
    assert container(cluster, name)["image"] == IMAGE
    cluster.kubectl("label", name, "foreign=yes")
    cluster.kubectl(*flags, stdin=json.dumps(body))
    assert cluster.get(name)["metadata"]["labels"] == {"app": "owned", "foreign": "yes"}
    cluster.kubectl("delete", name)


async def test_children_go_with_their_deployment(cluster: Cluster, http: Http) -> None:
    cluster.apply(deployment("parent", shell(FOREVER)), service("parent"))
    cluster.kubectl("rollout", "status", "deployment/parent", "--timeout=60s")
    assert cluster.kubectl("delete", "deployment/parent", "--cascade=foreground", "--timeout=60s")
    assert not cluster.kubectl("get", "rs,pods", "-l", "app=parent", "-o", "name")
    cluster.apply(deployment("parent", shell(FOREVER)))
    cluster.kubectl("rollout", "status", "deployment/parent", "--timeout=60s")
    cluster.kubectl("delete", "deployment/parent", "--cascade=background")
    await eventually(
        "its children to go", lambda: not cluster.kubectl("get", "rs,pods", "-l", "app=parent", "-o", "name")
    )
    cluster.kubectl("delete", "svc/parent")
