"""Deployment: the pods that serve one variant of a ModelService."""

from __future__ import annotations

from mizzen_api import ModelService, contract
from mizzen_api.modelservice import Predictor
from mizzen_operator import names
from mizzen_operator.children.meta import labels, metadata, selector, stable_hash
from mizzen_operator.children.pods import Workload, template
from mizzen_operator.plan import Manifest
from mizzen_operator.settings import Settings


def variant_deployment(
    service: ModelService, variant: str, predictor: Predictor, model_uri: str, replicas: int, settings: Settings
) -> Manifest:
    """A roll-out takes no pod away before its successor is ready."""
    name = names.variant(service.metadata.name, variant)
    command = _command(service.metadata.name, variant, predictor, model_uri)
    workload = Workload(
        command=command,
        requests=predictor.resources,
        limits=predictor.resources,
        restart_policy="Always",
        port=contract.PORT_HTTP,
        probes=_probes(),
        grace_seconds=45,  # the model server drains first
    )
    on_pods = {
        contract.ANNOTATION_MODEL_URI: model_uri,
        contract.ANNOTATION_CONFIG_HASH: stable_hash([*command, predictor.resources.to_wire()]),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(service, name, contract.ROLE_SERVER, variant=variant, annotations=on_pods),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector(service, contract.ROLE_SERVER, variant)},
            "template": template(workload, labels(service, contract.ROLE_SERVER, variant), on_pods, settings),
        },
    }


def _command(service: str, variant: str, predictor: Predictor, model_uri: str) -> tuple[str, ...]:
    options = {
        "--model-uri": model_uri,
        "--model-name": service,
        "--variant": variant,
        "--max-batch-size": str(predictor.batcher.max_batch_size),
        "--max-latency-ms": f"{predictor.batcher.max_latency_ms:g}",
    }
    return ("mizzen", "serve", *(word for option in options.items() for word in option))


def _probes() -> Manifest:
    """Start-up may take five minutes (a model is fetched and warmed); afterwards a silent server goes quickly."""

    def get(path: str, period: int, failures: int) -> Manifest:
        return {
            "httpGet": {"path": path, "port": contract.PORT_HTTP},
            "periodSeconds": period,
            "failureThreshold": failures,
            "timeoutSeconds": 2,
        }

    return {
        "startupProbe": get(contract.PATH_READY, 2, 150),
        "readinessProbe": get(contract.PATH_READY, 3, 2),
        "livenessProbe": get(contract.PATH_LIVE, 10, 3),
    }
