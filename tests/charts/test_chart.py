"""The chart renders cleanly in each shape it offers, and what it refuses it refuses with a reason."""

import json
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from mizzen_api import contract
from mizzen_api.accelerators import RESOURCES
from mizzen_operator.cluster import CLUSTER_PERMISSIONS, PERMISSIONS
from mizzen_operator.settings import Offer, Settings

CHART = Path(__file__).parents[2] / "charts" / "mizzen"
EXISTING = {"gateway": {"existing": "infra/shared"}}
OWN_CLASS = {"gateway": {"className": "cilium", "installCRDs": False}}
SHAPES: dict[str, dict[str, Any]] = {
    "default": {},
    "existing gateway": EXISTING,
    "gateway class of the cluster": OWN_CLASS,
    "two namespaces": {"watchNamespaces": ["a", "b"]},
    "own mlflow": {"mlflow": {"enabled": False, "trackingUri": "https://mlflow.example.org"}},
    "monitoring": {"monitoring": {"podMonitor": {"enabled": True}, "dashboards": {"enabled": True}}},
    "high port": {"gateway": {"port": 8000}},
    "digest": {"operator": {"image": {"digest": "sha256:" + "0" * 64}}},
}


def named(manifests, kind, name):
    return next(m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)


def pods(manifests):
    return [m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "Deployment"]


def test_lint_is_clean(chart_folder):
    report = helm.lint(chart_folder, strict=True, kube_version="v1.32.0")
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_every_shape_is_restricted_and_binds_to_the_pods_address(render, values):
    for pod in pods(render(values)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {next(iter(set(v) - {"name"})) for v in pod.get("volumes", [])} <= {"emptyDir", "persistentVolumeClaim"}
        for sysctl in pod["securityContext"].get("sysctls", []):
            assert sysctl["name"] == "net.ipv4.ip_unprivileged_port_start"  # on the list of the restricted profile
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "0.0.0.0" not in json.dumps(container)
            assert {"name": contract.ENV_POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}} in container[
                "env"
            ]
            assert not any("hostPort" in port for port in container["ports"])


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_every_object_can_be_told_apart_and_found(render, values):
    manifests = render(values)
    keys = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests]
    assert len(keys) == len(set(keys))
    for manifest in manifests:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "mizzen"
    for deployment in (m for m in manifests if m["kind"] == "Deployment"):
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_the_operator_gets_what_the_contract_promises(render):
    (operator,) = named(render(), "Deployment", "mizzen-operator")["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in operator["env"]}
    promised = {value for name, value in vars(contract).items() if name.startswith(("ENV_ARTIFACTS", "ENV_WATCH"))}
    assert promised <= env.keys()
    assert env[contract.ENV_RUNTIME_IMAGE] == f"{contract.IMAGE_RUNTIME}:0.1.0"
    assert env[contract.ENV_ARTIFACTS_URI] == f"file://{contract.ARTIFACTS_DIR}"
    assert env[contract.ENV_GATEWAY] == "mizzen-system/mizzen"
    assert env[contract.ENV_MLFLOW] == f"http://mizzen-mlflow.mizzen-system.svc:{contract.PORT_MLFLOW}"
    ports = {port["name"]: port["containerPort"] for port in operator["ports"]}
    assert ports == {"health": contract.PORT_OPERATOR_HEALTH, "metrics": contract.PORT_OPERATOR_METRICS}


def test_only_who_talks_to_the_api_has_a_token(render):
    tokens = {
        m["metadata"]["name"]: m["spec"]["template"]["spec"]["automountServiceAccountToken"]
        for m in render()
        if m["kind"] == "Deployment"
    }
    assert tokens == {"mizzen-operator": True, "mizzen-traefik": True, "mizzen-mlflow": False}


def test_traefik_listens_on_the_listeners_port(render):
    manifests = render({"gateway": {"port": 8000}})
    (traefik,) = named(manifests, "Deployment", "mizzen-traefik")["spec"]["template"]["spec"]["containers"]
    assert "--entrypoints.http.address=$(MIZZEN_POD_IP):8000" in traefik["args"]
    assert named(manifests, "Gateway", "mizzen")["spec"]["listeners"][0]["port"] == 8000
    assert named(manifests, "Service", "mizzen-traefik")["spec"]["ports"][0]["port"] == 8000


def test_the_dashboard_travels_with_the_chart(render):
    config = named(render(SHAPES["monitoring"]), "ConfigMap", "mizzen-dashboard")
    assert json.loads(config["data"]["mizzen.json"])["uid"] == "mizzen-overview"


@pytest.mark.parametrize(("values", "kinds"), [(EXISTING, set()), (OWN_CLASS, {"Gateway"})])
def test_a_gateway_of_the_cluster_is_used(render, values, kinds):
    manifests = render(values)
    assert {m["kind"] for m in manifests if m["apiVersion"].startswith("gateway.")} == kinds
    assert not any("traefik" in m["metadata"]["name"] for m in manifests)


def test_watched_namespaces_need_no_cluster_wide_rights(render):
    manifests = render({**EXISTING, "watchNamespaces": ["a", "b"]})
    assert not any(m["kind"].startswith("ClusterRole") for m in manifests)
    assert {m["metadata"]["namespace"] for m in manifests if m["kind"] == "Role"} == {"a", "b", "infra"}


def rights(rules):
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operator_may_do_what_it_does_and_no_more(render):
    needed = {(group, resource, verb) for group, resource, verbs in PERMISSIONS for verb in verbs}
    everywhere = {(group, resource, verb) for group, resource, verbs in CLUSTER_PERMISSIONS for verb in verbs}
    assert rights(named(render(), "ClusterRole", "mizzen-operator")["rules"]) == needed | everywhere
    roles = [m for m in render({"watchNamespaces": ["a"]}) if m["kind"] == "Role"]
    roles = [role for role in roles if "operator" in role["metadata"]["name"]]
    assert set().union(*(rights(role["rules"]) for role in roles)) == needed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"operater": {}}, "operater"),
        ({"mlflow": {"enabled": "yes"}}, "mlflow"),
        ({"gateway": {"port": 0}}, "port"),
        ({"operator": {"image": {"digest": "latest"}}}, "digest"),
        ({"artifacts": {"uri": "/data"}}, "uri"),
        ({"artifacts": {"datasets": {"uri": "file:///data"}}}, "uri"),
        ({"accelerators": [{"resource": "example.com/fpga"}]}, "accelerators"),
        ({"artifacts": {"claim": {"accessMode": "ReadOnlyMany"}}}, "accessMode"),
        ({"mlflow": {"enabled": False}}, "mlflow.trackingUri"),
        ({"gateway": {"traefik": {"enabled": False}}}, "set existing or className"),
    ],
)
def test_what_is_wrong_is_refused_by_name(render, values, message):
    with pytest.raises(helm.HelmError, match=message):
        render(values)


def test_the_operator_hears_of_accelerators(render):
    known = json.loads((CHART / "values.schema.json").read_text())["properties"]["accelerators"]["items"]["properties"]
    assert set(known["resource"]["enum"]) == RESOURCES
    gpus = {"resource": "nvidia.com/gpu", "nodeSelector": {"pool": "a"}, "tolerations": [{"operator": "Exists"}]}
    (container,) = next(
        m["spec"]["template"]["spec"]["containers"]
        for m in render({"accelerators": [gpus]})
        if m["kind"] == "Deployment" and m["metadata"]["name"] == "mizzen-operator"
    )
    environ = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    offer = Offer("nvidia.com/gpu", {"pool": "a"}, ({"operator": "Exists"},))
    assert Settings.from_environment(environ).accelerators == (offer,)


def test_the_operator_hears_of_the_store_of_datasets(render):
    store = {"uri": "s3://models/datasets", "secretName": "bucket"}
    operator = named(render({"artifacts": {"datasets": store}}), "Deployment", "mizzen-operator")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    settings = Settings.from_environment({e["name"]: e["value"] for e in container["env"] if "value" in e})
    assert (settings.datasets_uri, settings.datasets_secret) == ("s3://models/datasets", "bucket")
    assert settings.uses_claim, "checkpoints are on the volume"


def paths(values: Any, prefix: str = "") -> set[str]:
    """Each leaf; an object without fixed fields (`resources`, `labels`) counts as one."""
    out: set[str] = set()
    for key, value in values.items():
        path = f"{prefix}{key}"
        out |= paths(value, f"{path}.") if isinstance(value, dict) and value and key not in FREE else {path}
    return out


FREE = {"resources", "labels", "annotations", "nodeSelector"}


def test_every_value_is_documented_with_its_default(chart_folder):
    values = yaml.safe_load((chart_folder / "values.yaml").read_text())
    rows = re.findall(r"^\| `([\w.]+)` \| `?([^|`]*)", (chart_folder.parents[1] / "docs/values.md").read_text(), re.M)
    documented = dict(rows)
    assert documented.keys() == paths(values)
    for path, shown in documented.items():
        value: Any = values
        for key in path.split("."):
            value = value[key]
        if not isinstance(value, dict):
            assert yaml.safe_load(shown) == value, path


def test_gateway_api_crds_are_those_that_traefik_lists(chart_folder):
    with helm.Chart.load(chart_folder) as chart:
        crds = [yaml.safe_load(crd["data"]) for crd in chart.crds]
    served = {f"{v['name']}/{c['spec']['names']['plural']}" for c in crds for v in c["spec"]["versions"]}
    gateway = {"gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "backendtlspolicies"}
    assert {f"v1/{plural}" for plural in gateway} | {"v1beta1/referencegrants"} <= served
    assert {f"v1alpha1/{plural}" for plural in ("datasets", "searchjobs", "trainingjobs", "modelservices")} <= served
