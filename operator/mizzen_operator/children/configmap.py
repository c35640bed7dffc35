"""ConfigMap: the workload's whole configuration as one JSON document."""

from __future__ import annotations

from mizzen_api.contract import ANNOTATION_CONFIG_HASH, CONFIG_FILE
from mizzen_api.workload import WorkloadConfig
from mizzen_operator.children.meta import metadata
from mizzen_operator.plan import Manifest, Resource


def configmap(resource: Resource, name: str, role: str, config: WorkloadConfig, config_hash: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(resource, name, role, annotations={ANNOTATION_CONFIG_HASH: config_hash}),
        "data": {CONFIG_FILE: config.model_dump_json(by_alias=True, exclude_none=True, indent=2)},
    }
