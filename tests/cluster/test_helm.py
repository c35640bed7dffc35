"""What Helm does: releases and their history, waiting, hooks, definitions, look-ups and what others changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests.cluster.client import Cluster
from tests.cluster.objects import FOREVER, Object, config_map, definition, deployment, job, pod, shell

Chart = Callable[..., str]
TIMEOUT = 60


@pytest.fixture
def helm(cluster: Cluster) -> Iterator[helm_python.Config]:
    with helm_python.Config(kubeconfig_path=str(cluster.kubeconfig), namespace=cluster.namespace) as config:
        yield config


@pytest.fixture
def chart(tmp_path: Path) -> Chart:
    """Writes a chart: manifests or template texts, definitions, and the chart's version; answers its folder."""

    def write(*templates: Object | str, crds: tuple[Object, ...] = (), version: str = "0.1.0") -> str:
        folder = tmp_path / f"chart-{version}"
        for part, found in (("templates", templates), ("crds", crds)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            for number, item in enumerate(found):
                text = item if isinstance(item, str) else json.dumps(item)
                (folder / part / f"{number}.yaml").write_text(text)
        (folder / "Chart.yaml").write_text(f"apiVersion: v2\nname: tiny\nversion: {version}\n")
        (folder / "values.yaml").write_text("word: one\n")
        return str(folder)

    return write


def hook(body: Object, when: str, **notes: str) -> Object:
    annotations = {"helm.sh/hook": when, **{f"helm.sh/{key.replace('_', '-')}": value for key, value in notes.items()}}
    return {**body, "metadata": {**body["metadata"], "annotations": annotations}}


def releases(cluster: Cluster, name: str) -> dict[str, str]:
    """What Helm stores of a release: its status by revision."""
    found = cluster.get("secrets", "-l", f"owner=helm,name={name}")["items"]
    assert {secret["type"] for secret in found} <= {"helm.sh/release.v1"}
    assert all(
        s["metadata"]["name"] == f"sh.helm.release.v1.{name}.v{s['metadata']['labels']['version']}" for s in found
    )
    return {s["metadata"]["labels"]["version"]: s["metadata"]["labels"]["status"] for s in found}


def state(release: Any) -> str:
    return str(release.get("status") or release["info"]["status"])


def test_a_release_from_its_installation_to_its_end(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    both = config_map("life", word="{{ .Values.word }}", kept="yes")
    first = chart(both, config_map("life-more", a="1"))
    helm.install(first, "life", {})
    found = cluster.get("cm", "life")
    assert found["data"] == {"word": "one", "kept": "yes"}
    assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert found["metadata"]["annotations"]["meta.helm.sh/release-name"] == "life"
    assert releases(cluster, "life") == {"1": "deployed"}
    foreign = {"metadata": {"labels": {"foreign": "yes"}}, "data": {"foreign": "yes"}}
    cluster.kubectl("patch", "cm", "life", "--type=merge", "-p", json.dumps(foreign))
    helm.upgrade(chart(config_map("life", word="{{ .Values.word }}"), version="0.2.0"), "life", {"word": "two"})
    found = cluster.get("cm", "life")
    assert found["data"] == {"word": "two", "foreign": "yes"}, "what the chart dropped goes, what others added stays"
    assert found["metadata"]["labels"]["foreign"] == "yes"
    assert "not found" in cluster.refused("get", "cm", "life-more")
    assert [(entry["revision"], state(entry)) for entry in helm.history("life")] == [(1, "superseded"), (2, "deployed")]
    helm.rollback("life", version=1)
    assert cluster.get("cm", "life")["data"] == {"word": "one", "kept": "yes", "foreign": "yes"}
    assert cluster.get("cm", "life-more")["data"] == {"a": "1"}
    assert releases(cluster, "life") == {"1": "superseded", "2": "superseded", "3": "deployed"}
    assert state(helm.status("life")) == "deployed"
    assert [entry["name"] for entry in helm.list() if entry["name"] == "life"] == ["life"]
    with pytest.raises(helm_python.HelmError, match="cannot reuse a name that is still in use"):
        helm.install(first, "life", {})
    helm.uninstall("life")
    assert "not found" in cluster.refused("get", "cm", "life") and releases(cluster, "life") == {}
    with pytest.raises(helm_python.HelmError, match="not found"):
        helm.status("life")


def test_waiting_for_what_becomes_ready(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    slow = deployment("slow", shell(f"sleep 1; touch /tmp/ready; {FOREVER}", readinessProbe=probe))
    once = job("once", "true")
    helm.install(chart(slow, once), "waits", {}, wait="watcher", timeout=TIMEOUT)
    assert cluster.get("deployment", "slow")["status"]["readyReplicas"] == 1
    assert cluster.get("job", "once")["status"]["succeeded"] == 1
    helm.uninstall("waits", wait="watcher", timeout=TIMEOUT)
    assert not cluster.kubectl("get", "deployment,rs,pods,job", "-l", "app=slow", "-o", "name")


def test_waiting_in_vain(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    """An upgrade that never gets ready fails clearly; with a roll-back what was before is there again."""
    helm.install(chart(deployment("vain", shell(FOREVER))), "vain", {}, wait="watcher", timeout=TIMEOUT)
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    worse = chart(deployment("vain", shell(FOREVER, readinessProbe=probe)), version="0.2.0")
    with pytest.raises(helm_python.HelmError, match=r"(?s)vain.*(not ready|deadline|InProgress)"):
        helm.upgrade(worse, "vain", {}, wait="watcher", timeout=2)
    assert state(helm.status("vain")) == "failed"
    assert releases(cluster, "vain") == {"1": "deployed", "2": "failed"}
    helm.rollback("vain", version=1, wait="watcher", timeout=TIMEOUT)
    found = cluster.get("deployment", "vain")
    assert "readinessProbe" not in found["spec"]["template"]["spec"]["containers"][0]
    assert found["status"]["readyReplicas"] == 1
    helm.uninstall("vain")


def test_hooks_run_in_their_turn(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    before = hook(job("before", "echo prepared"), "pre-install", hook_delete_policy="hook-succeeded")
    after = hook(job("after", "echo gone"), "post-delete")
    installed = chart(before, after, config_map("hooked", a="1"))
    helm.install(installed, "hooked", {}, timeout=TIMEOUT)
    assert "not found" in cluster.refused("get", "job", "before")
    assert "not found" in cluster.refused("get", "job", "after")
    events = cluster.kubectl(
        "get", "events", "--field-selector=reason=Completed,involvedObject.name=before", "-o", "name"
    )
    assert events, "the hook has run"
    helm.uninstall("hooked", timeout=TIMEOUT)
    assert cluster.get("job", "after")["status"]["succeeded"] == 1
    assert "not found" in cluster.refused("get", "cm", "hooked")
    cluster.kubectl("delete", "job", "after")


def test_a_hook_that_fails_stops_the_installation(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    fails = hook(job("refuses", "exit 1", backoffLimit=0), "pre-install")
    with pytest.raises(helm_python.HelmError, match="pre-install"):
        helm.install(chart(fails, config_map("never", a="1")), "refused", {}, timeout=TIMEOUT)
    assert "not found" in cluster.refused("get", "cm", "never")
    assert releases(cluster, "refused") == {"1": "failed"}
    helm.uninstall("refused")
    cluster.kubectl("delete", "job", "refuses")


def test_a_chart_tests_itself(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    helm.install(chart(hook(pod("checks", shell("echo fine")), "test")), "tested", {})
    helm.test("tested", timeout=TIMEOUT)
    assert cluster.kubectl("logs", "checks") == "fine\n"
    helm.uninstall("tested")
    cluster.kubectl("delete", "pod", "checks")


def test_definitions_come_first_and_stay(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    group = f"{cluster.namespace}.mizzen.test"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    custom = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 2}}
    crd = definition(group, schema)
    try:
        helm.install(chart(custom, crds=(crd,)), "defines", {})
        assert cluster.get(f"widgets.{group}", "w")["spec"] == {"size": 2}
        helm.uninstall("defines")
        assert "not found" in cluster.refused("get", f"widgets.{group}", "w")
        assert cluster.get("crd", crd["metadata"]["name"])
    finally:
        cluster.kubectl("delete", "crd", crd["metadata"]["name"], "--ignore-not-found", "--wait=false")


LOOK = """
apiVersion: v1
kind: ConfigMap
metadata: {name: looked}
data:
  seen: {{ (lookup "v1" "ConfigMap" .Release.Namespace "there").data.a | default "nothing" | quote }}
  missing: {{ lookup "v1" "ConfigMap" .Release.Namespace "not-there" | empty | quote }}
  listed: {{ gt (len (lookup "v1" "ConfigMap" .Release.Namespace "").items) 0 | quote }}
  capable: {{ and (.Capabilities.APIVersions.Has "apps/v1") (.Capabilities.APIVersions.Has "batch/v1/Job") | quote }}
  incapable: {{ .Capabilities.APIVersions.Has "nothing.test/v1" | quote }}
  major: {{ .Capabilities.KubeVersion.Major | quote }}
"""


def test_templates_look_into_the_cluster(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    cluster.apply(config_map("there", a="found"))
    dry = helm.install(chart(LOOK), "looks", {}, dry_run="server")
    assert "found" in dry["manifest"] and "not found" in cluster.refused("get", "cm", "looked")
    helm.install(chart(LOOK), "looks", {})
    assert cluster.get("cm", "looked")["data"] == {
        "seen": "found", "missing": "true", "listed": "true", "capable": "true", "incapable": "false", "major": "1",
    }  # fmt: skip
    helm.uninstall("looks")


def test_what_is_not_helms_is_left_alone(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    cluster.apply(config_map("foreign", a="1"))
    with pytest.raises(helm_python.HelmError, match="invalid ownership metadata"):
        helm.install(chart(config_map("foreign", a="2")), "takes", {})
    assert cluster.get("cm", "foreign")["data"] == {"a": "1"}
    kept = config_map("kept", a="1")
    kept["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    helm.install(chart(kept, config_map("unkept", a="1"), version="0.3.0"), "keeps", {})
    helm.uninstall("keeps")
    assert cluster.get("cm", "kept") and "not found" in cluster.refused("get", "cm", "unkept")


def test_what_the_server_refuses_helm_reports(cluster: Cluster, helm: helm_python.Config, chart: Chart) -> None:
    wrong = deployment("wrong", shell(FOREVER))
    wrong["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    with pytest.raises(helm_python.HelmError, match=r"does not match template .labels"):
        helm.install(chart(wrong), "wrong", {})
    assert releases(cluster, "wrong") == {"1": "failed"}
    helm.uninstall("wrong")
