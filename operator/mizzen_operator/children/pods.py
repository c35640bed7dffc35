"""Pod templates: one container under Pod Security "restricted", without an API token, with the mounts that it needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from mizzen_api import contract
from mizzen_api.meta import Resources
from mizzen_operator.crew import Devices
from mizzen_operator.plan import Manifest
from mizzen_operator.settings import Settings

CONTAINER = "main"
# The group that owns mounted volumes; the images run as the user of the same number.
USER = 65532
LOST_NODE_SECONDS = 30  # before pods of a Ray cluster are replaced elsewhere


@dataclass(frozen=True)
class Workload:
    """What is particular about one pod."""

    command: tuple[str, ...]
    requests: Resources
    limits: Resources
    restart_policy: str = "Never"
    config: str = ""  # ConfigMap
    token: str = ""  # Secret of the Ray cluster; makes it a Ray pod
    artifacts: bool = False
    secrets: tuple[tuple[str, str], ...] = ()  # (Secret, key) that it reads as files; without a key all of it
    port: int | None = None
    probes: Manifest = field(default_factory=dict)
    grace_seconds: int = 30
    image: str = ""  # in place of the runtime image
    code: str = ""  # ConfigMap of the user's Python files
    devices: Devices = field(default_factory=Devices)


def template(workload: Workload, labels: dict[str, str], annotations: dict[str, str], settings: Settings) -> Manifest:
    """The pod template of a Job or Deployment."""
    return {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {
            **_placement(workload),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": workload.restart_policy,
            "terminationGracePeriodSeconds": workload.grace_seconds,
            "securityContext": {
                "runAsNonRoot": True,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(workload, settings)],
            "volumes": [volume for volume, _ in _mounts(workload, settings)],
        },
    }


def _container(workload: Workload, settings: Settings) -> Manifest:
    container: Manifest = {
        "name": CONTAINER,
        "image": workload.image or settings.runtime_image,
        "command": list(workload.command),
        "env": _environment(workload, settings),
        "resources": {
            "requests": _amounts(workload.requests, workload.devices),
            "limits": _amounts(workload.limits, workload.devices),
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": contract.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount for _, mount in _mounts(workload, settings)],
        **workload.probes,
    }
    if workload.port is not None:
        container["ports"] = [{"name": "http", "containerPort": workload.port, "protocol": "TCP"}]
    return container


def _amounts(resources: Resources, devices: Devices) -> dict[str, str]:
    amounts = {"cpu": resources.cpu, "memory": resources.memory}
    if devices.count and devices.row.resource:
        amounts[devices.row.resource] = str(devices.count)
    return {name: amount for name, amount in amounts.items() if amount is not None}


def _placement(workload: Workload) -> Manifest:
    """Where the pod may be, and how long on a node that no longer answers."""
    devices = workload.devices
    tolerations = [*(_lost_node(key) for key in ("not-ready", "unreachable") if workload.token)]
    if devices.count and devices.row.taint:
        tolerations.append({"key": devices.row.taint, "operator": "Exists", "effect": "NoSchedule"})
        tolerations += devices.tolerations
    return {
        **({"tolerations": tolerations} if tolerations else {}),
        **({"nodeSelector": dict(devices.node_selector)} if devices.node_selector else {}),
    }


def _lost_node(key: str) -> Manifest:
    """Clusters wait five minutes by default; the group of a training wants its worker back sooner."""
    return {
        "key": f"node.kubernetes.io/{key}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": LOST_NODE_SECONDS,
    }


def _environment(workload: Workload, settings: Settings) -> list[Manifest]:
    def field_of(name: str, path: str) -> Manifest:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    values = {"HOME": "/tmp"}  # noqa: S108 (the pod's own emptyDir; the root file system is read-only)
    if settings.mlflow_uri:
        values[contract.ENV_MLFLOW] = settings.mlflow_uri
    if workload.config:
        values[contract.ENV_CONFIG] = f"{contract.CONFIG_DIR}/{contract.CONFIG_FILE}"
    if workload.token:
        values[contract.ENV_RAY_AUTH_MODE] = "token"
        values[contract.ENV_RAY_AUTH_TOKEN_PATH] = f"{contract.RAY_TOKEN_DIR}/{contract.RAY_TOKEN_FILE}"
    if workload.code:
        values["PYTHONPATH"] = contract.CODE_DIR
    if workload.devices.count:
        values |= workload.devices.row.environment
    return [
        field_of(contract.ENV_POD_IP, "status.podIP"),
        field_of(contract.ENV_POD_NAME, "metadata.name"),
        field_of(contract.ENV_NAMESPACE, "metadata.namespace"),
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def _mounts(workload: Workload, settings: Settings) -> list[tuple[Manifest, Manifest]]:
    """Pairs of a volume and its mount."""
    pairs: list[tuple[Manifest, Manifest]] = [({"name": "tmp", "emptyDir": {}}, {"name": "tmp", "mountPath": "/tmp"})]  # noqa: S108
    if workload.config:
        volume = {"name": "config", "configMap": {"name": workload.config}}
        pairs.append((volume, {"name": "config", "mountPath": contract.CONFIG_DIR, "readOnly": True}))
    if workload.code:
        volume = {"name": "code", "configMap": {"name": workload.code}}
        pairs.append((volume, {"name": "code", "mountPath": contract.CODE_DIR, "readOnly": True}))
    if workload.token:
        volume = {"name": "ray-token", "secret": {"secretName": workload.token, "defaultMode": 0o440}}
        pairs.append((volume, {"name": "ray-token", "mountPath": contract.RAY_TOKEN_DIR, "readOnly": True}))
        # Ray's object store and the snapshots of a training are shared memory; the 64 MiB that a container gets by
        # default do not do. The volume lives as long as the pod: snapshots survive a container that is killed. What is
        # in it counts as memory of the pod, and the pod's limit bounds it.
        memory = {"name": "shm", "emptyDir": {"medium": "Memory"}}
        pairs.append((memory, {"name": "shm", "mountPath": "/dev/shm"}))  # noqa: S108
    for number, (name, key) in enumerate(workload.secrets):
        items = {"items": [{"key": key, "path": key}]} if key else {}
        volume = {"name": f"secret-{number}", "secret": {"secretName": name, "defaultMode": 0o440, **items}}
        mount = {"name": f"secret-{number}", "mountPath": f"{contract.SECRETS_DIR}/{name}", "readOnly": True}
        if key:
            mount |= {"mountPath": f"{contract.SECRETS_DIR}/{name}/{key}", "subPath": key}
        pairs.append((volume, mount))
    if workload.artifacts and settings.datasets_secret:
        # Optional: a pod that waits for a Secret says nothing, one that cannot read the store says why.
        secret = {"secretName": settings.datasets_secret, "defaultMode": 0o440, "optional": True}
        mount = {"name": "datasets-secret", "mountPath": contract.DATASETS_SECRET_DIR, "readOnly": True}
        pairs.append(({"name": "datasets-secret", "secret": secret}, mount))
    if workload.artifacts and settings.uses_claim:
        volume = {"name": "artifacts", "persistentVolumeClaim": {"claimName": contract.ARTIFACTS_CLAIM}}
        pairs.append((volume, {"name": "artifacts", "mountPath": contract.ARTIFACTS_DIR}))
    return pairs
