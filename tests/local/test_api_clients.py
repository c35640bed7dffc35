"""What real clients do with the server: kubectl, Helm, Kopf and the Python client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ApiProcess

pytestmark = pytest.mark.cluster

Until = Callable[..., Any]


def space(server: ApiProcess, name: str) -> str:
    server.kubectl("create", "namespace", name)
    return name


def web(namespace: str, image: str = "nginx:1", **spec: Any) -> dict[str, Any]:
    container = {"name": "web", "image": image, "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


def widget_definition(group: str) -> dict[str, Any]:
    properties = {
        "spec": {
            "description": "The wanted widget.",
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "description": "How large."},
                "colour": {"type": "string", "default": "red"},
                "replicas": {"type": "integer", "default": 1},
            },
            "x-kubernetes-validations": [
                {"rule": "self.size < 10 || self.colour != 'red'", "message": "large widgets must not be red"}
            ],
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }
    ready = '.status.conditions[?(@.type=="Ready")].status'
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
        },
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Ready", "type": "string", "jsonPath": ready},
        ],
    }
    names = {"plural": "widgets", "kind": "Widget", "shortNames": ["wdg"], "categories": ["gadgets"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def widget(group: str, namespace: str, name: str = "w", **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": meta, "spec": {"size": 2, **spec}}


def test_kubectl_applies_diffs_patches_and_deletes(api_server: ApiProcess) -> None:
    ns = space(api_server, "kubectl")
    assert "created" in api_server.apply(web(ns))
    assert "unchanged" in api_server.apply(web(ns))
    difference = api_server.kubectl("diff", "-f", "-", stdin=yaml.safe_dump(web(ns, "nginx:2")), check=False)
    assert "image: nginx:2" in difference
    assert "configured" in api_server.apply(web(ns, "nginx:2"))
    api_server.kubectl("-n", ns, "scale", "deployment/web", "--replicas=3")
    api_server.kubectl("-n", ns, "label", "deployment/web", "tier=front")
    api_server.kubectl("-n", ns, "set", "image", "deployment/web", "web=nginx:3")
    found = json.loads(api_server.kubectl("-n", ns, "get", "deploy", "-l", "tier=front", "-o", "json"))["items"][0]
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert (found["spec"]["replicas"], container["image"]) == (3, "nginx:3")
    assert "0/3" in api_server.kubectl("-n", ns, "get", "deploy", "web", "--no-headers")
    assert "nginx:3" in api_server.kubectl("-n", ns, "describe", "deploy", "web")
    api_server.kubectl("-n", ns, "delete", "deploy", "web")
    assert "NotFound" in api_server.kubectl("-n", ns, "get", "deploy", "web", check=False)


def test_kubectl_creates_with_protobuf(api_server: ApiProcess) -> None:
    ns = space(api_server, "protobuf")
    api_server.kubectl("-n", ns, "create", "deployment", "d", "--image=x", "--replicas=0", "--port=80")
    api_server.kubectl("-n", ns, "create", "secret", "generic", "s", "--from-literal=a=b")
    api_server.kubectl("-n", ns, "create", "job", "j", "--image=x", "--", "sleep", "1")
    found = json.loads(api_server.kubectl("-n", ns, "get", "deploy,secret,job", "-o", "json"))
    deployment, secret, job = found["items"]
    assert deployment["spec"]["replicas"] == 0
    assert deployment["spec"]["template"]["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "protocol": "TCP"}
    ]
    assert secret["data"] == {"a": "Yg=="}
    assert job["spec"]["template"]["spec"]["containers"][0]["command"] == ["sleep", "1"]


def test_kubectl_applies_on_the_server_and_sees_conflicts(api_server: ApiProcess) -> None:
    ns = space(api_server, "serverside")
    api_server.apply(web(ns, replicas=1), args=("--server-side",))
    refused = api_server.apply(web(ns, replicas=2), args=("--server-side", "--field-manager=other"), check=False)
    assert 'conflict with "kubectl": .spec.replicas' in refused
    api_server.apply(web(ns, replicas=2), args=("--server-side", "--field-manager=other", "--force-conflicts"))
    assert api_server.kubectl("-n", ns, "get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"


def test_client_side_apply_migrates_to_the_server(api_server: ApiProcess) -> None:
    ns = space(api_server, "migrate")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": ns}}
    job["spec"] = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}  # type: ignore[assignment]
    api_server.apply(job, web(ns))
    assert "Warning" not in api_server.apply(job, web(ns), args=("--server-side",), check=False)


def test_kubectl_knows_a_custom_resource_at_once(api_server: ApiProcess) -> None:
    ns, group = space(api_server, "widgets"), "widgets.test.dev"
    api_server.apply(widget_definition(group))
    api_server.kubectl("wait", "--for=condition=Established", f"crd/widgets.{group}", "--timeout=5s")
    assert "created" in api_server.apply(widget(group, ns))
    assert "unchanged" in api_server.apply(widget(group, ns))
    assert "configured" in api_server.apply(widget(group, ns, size=3))
    assert "How large." in api_server.kubectl("explain", "widgets.spec.size", f"--api-version={group}/v1")
    status = json.dumps({"status": {"replicas": 2, "conditions": [{"type": "Ready", "status": "True"}]}})
    api_server.kubectl("-n", ns, "patch", "wdg", "w", "--type=merge", "--subresource=status", "-p", status)
    assert api_server.kubectl("-n", ns, "get", "gadgets").split()[:8] == ["NAME", "SIZE", "READY", "w", "3", "True"]
    api_server.kubectl("-n", ns, "scale", "wdg/w", "--replicas=4")
    found = json.loads(api_server.kubectl("-n", ns, "get", "wdg", "w", "-o", "json"))
    assert found["spec"] == {"size": 3, "colour": "red", "replicas": 4}
    assert found["metadata"]["generation"] == 3
    refused = api_server.apply(widget(group, ns, "x", size=10), check=False)
    assert "spec: Invalid value: large widgets must not be red" in refused
    refused = api_server.apply(widget(group, ns, "x", sise=10), check=False)
    assert 'unknown field "spec.sise"' in refused
    api_server.kubectl("delete", "crd", f"widgets.{group}", "--timeout=5s")
    gone = api_server.kubectl("-n", ns, "get", "widgets", check=False)
    assert "could not find the requested resource" in gone or "doesn't have a resource type" in gone


def test_kubectl_watches(api_server: ApiProcess, until: Until) -> None:
    ns = space(api_server, "watching")
    kubectl = str(Path(sys.executable).with_name("kubectl"))
    command = [
        kubectl,
        "--kubeconfig",
        str(api_server.kubeconfig),
        "-n",
        ns,
        "get",
        "configmaps",
        "-w",
        "--output-watch-events",
    ]
    with subprocess.Popen([*command, "--no-headers"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().split()[:2] == ["ADDED", "kube-root-ca.crt"]
        api_server.kubectl("-n", ns, "create", "configmap", "a", "--from-literal=x=1")
        assert process.stdout.readline().split()[:3] == ["ADDED", "a", "1"]
        api_server.kubectl("-n", ns, "delete", "configmap", "a")
        assert process.stdout.readline().split()[:2] == ["DELETED", "a"]
        process.send_signal(signal.SIGINT)


def test_a_service_account_does_what_its_role_says_and_nothing_else(api_server: ApiProcess) -> None:
    ns = space(api_server, "rbac")
    api_server.kubectl("-n", ns, "create", "serviceaccount", "robot")
    token = api_server.kubectl("-n", ns, "create", "token", "robot", "--duration=1h").strip()

    def robot(*args: str) -> str:
        # the kubeconfig of the admin would win over --token
        flags = ["--kubeconfig=/dev/null", f"--server={api_server.server}", f"--certificate-authority={api_server.ca}"]
        return api_server.kubectl(*flags, f"--token={token}", "-n", ns, *args, check=False)

    user = f"system:serviceaccount:{ns}:robot"
    assert robot("get", "pods") == (
        f'Error from server (Forbidden): pods is forbidden: User "{user}" cannot list resource "pods" in API group ""'
        f' in the namespace "{ns}"\n'
    )
    api_server.kubectl("-n", ns, "create", "role", "reader", "--verb=get,list,watch", "--resource=pods,roles")
    api_server.kubectl("-n", ns, "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={ns}:robot")
    assert "No resources found" in robot("get", "pods")
    assert robot("auth", "can-i", "list", "pods") == "yes\n"
    assert robot("auth", "can-i", "delete", "pods").startswith("no")
    assert user in robot("auth", "whoami")
    assert 'cannot list resource "pods" in API group "" in the namespace "default"' in robot(
        "get", "pods", "-n", "default"
    )
    api_server.kubectl(
        "-n", ns, "create", "role", "granter", "--verb=create", "--resource=roles.rbac.authorization.k8s.io"
    )
    api_server.kubectl("-n", ns, "create", "rolebinding", "granter", "--role=granter", f"--serviceaccount={ns}:robot")
    assert "attempting to grant RBAC permissions not currently held" in robot(
        "create", "role", "x", "--verb=get", "--resource=secrets"
    )
    assert "created" in robot("create", "role", "y", "--verb=get", "--resource=pods")
    api_server.kubectl("-n", ns, "delete", "serviceaccount", "robot")
    assert "Unauthorized" in robot("get", "pods") or "must be logged in" in robot("get", "pods")


@pytest.mark.cluster
def test_helm_installs_upgrades_and_uninstalls_a_chart_with_its_crds(api_server: ApiProcess, tmp_path: Path) -> None:
    import helm_python

    group = "helm.test.dev"
    chart = tmp_path / "tiny"
    (chart / "crds").mkdir(parents=True)
    (chart / "templates").mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\n")
    (chart / "crds" / "widgets.yaml").write_text(yaml.safe_dump(widget_definition(group)))
    deployment = yaml.safe_dump(web("{{ .Release.Namespace }}")).replace("nginx:1", "nginx:{{ .Values.tag }}")
    config = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tiny}\ndata: {tag: "{{ .Values.tag }}"}\n'
    custom = yaml.safe_dump(widget(group, "{{ .Release.Namespace }}"))
    (chart / "templates" / "all.yaml").write_text("---\n".join((deployment, config, custom)))
    (chart / "values.yaml").write_text("tag: one\n")

    def image() -> str:
        path = "jsonpath={.spec.template.spec.containers[0].image}"
        return api_server.kubectl("-n", "helm", "get", "deploy", "web", "-o", path)

    with helm_python.Config(kubeconfig_path=str(api_server.kubeconfig), namespace="helm") as helm:
        helm.install(str(chart), "tiny", {}, create_namespace=True)
        assert image() == "nginx:one"
        assert api_server.kubectl("-n", "helm", "get", f"widgets.{group}", "-o", "name").strip() == f"widget.{group}/w"
        helm.upgrade(str(chart), "tiny", {"tag": "two"})
        assert image() == "nginx:two"
        helm.rollback("tiny")
        assert image() == "nginx:one"
        assert [release["name"] for release in helm.list(all_states=True)] == ["tiny"]
        helm.uninstall("tiny")
        assert helm.list(all_states=True) == []
    assert "NotFound" in api_server.kubectl("-n", "helm", "get", "deploy", "web", check=False)


@pytest.mark.cluster
def test_a_kopf_operator_works(api_server: ApiProcess, tmp_path: Path, until: Until) -> None:
    ns, group = space(api_server, "kopf"), "kopf.test.dev"
    api_server.apply(widget_definition(group))
    handlers = tmp_path / "handlers.py"
    handlers.write_text(
        textwrap.dedent(f"""
        import kopf

        @kopf.on.create("{group}", "v1", "widgets")
        @kopf.on.update("{group}", "v1", "widgets")
        def made(spec, body, patch, **_):
            patch.status["seen"] = spec["size"]
            kopf.event(body, type="Normal", reason="Seen", message="seen it")

        @kopf.on.delete("{group}", "v1", "widgets")
        def gone(**_): ...
        """)
    )
    kopf = str(Path(sys.executable).with_name("kopf"))
    log = (tmp_path / "log").open("w+")
    environment = {"KUBECONFIG": str(api_server.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [kopf, "run", str(handlers), "-n", ns]
    with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            for size in (2, 5):
                api_server.apply(widget(group, ns, size=size))
                seen = ("-n", ns, "get", f"widgets.{group}", "w", "-o", "jsonpath={.status.seen}")
                until(f"status {size}", lambda want=str(size), get=seen: api_server.kubectl(*get) == want, 15)
            until("the event", lambda: "seen it" in api_server.kubectl("-n", ns, "get", "events"))
            api_server.kubectl("-n", ns, "delete", f"widgets.{group}", "w", "--timeout=10s")
        finally:
            process.terminate()


async def test_the_python_client_reads_writes_and_watches(api_server: ApiProcess) -> None:
    from kubernetes.aio import client, config, watch

    space(api_server, "aio")
    await config.load_kube_config(str(api_server.kubeconfig))
    async with client.ApiClient() as api:
        core = client.CoreV1Api(api)
        made = await core.create_namespaced_config_map("aio", {"metadata": {"generateName": "a-"}, "data": {"x": "1"}})
        name = made.metadata.name
        made.data["x"] = "2"
        await core.replace_namespaced_config_map(name, "aio", made)
        with pytest.raises(client.ApiException) as caught:
            await core.replace_namespaced_config_map(name, "aio", made)
        assert caught.value.status == 409
        await core.delete_namespaced_config_map(name, "aio")
        seen = []
        stream = watch.Watch().stream(
            core.list_namespaced_config_map, "aio", resource_version=made.metadata.resource_version, timeout_seconds=1
        )
        async for event in stream:
            seen.append(event["type"])
        assert seen == ["MODIFIED", "DELETED"]
