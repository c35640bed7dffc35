"""What the chart tells the operator through its environment; planners get it as a value."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from mizzen_api import contract
from mizzen_api.accelerators import RESOURCES
from mizzen_operator.errors import ConfigurationError
from mizzen_operator.plan import Manifest


@dataclass(frozen=True)
class Offer:
    """An accelerator that the cluster has, as the chart's values say: where its nodes are and what they ask of pods."""

    resource: str
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Manifest, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The operator's configuration. The defaults are those of a bare process beside a cluster."""

    runtime_image: str = contract.IMAGE_RUNTIME
    artifacts_uri: str = f"file://{contract.ARTIFACTS_DIR}"
    artifacts_claim_size: str = "10Gi"
    artifacts_storage_class: str = ""
    artifacts_access_mode: str = "ReadWriteMany"
    datasets_store: str = ""  # s3://BUCKET/PREFIX of dataset versions, where they are not below artifacts_uri
    datasets_secret: str = ""  # Secret in each namespace with the store's keys
    mlflow_uri: str = ""
    gateway: str = ""  # namespace/name
    watch_namespaces: tuple[str, ...] = ()
    pod_ip: str = "127.0.0.1"
    accelerators: tuple[Offer, ...] = ()  # empty: the nodes are asked

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        env = os.environ if environ is None else environ
        namespaces = env.get(contract.ENV_WATCH_NAMESPACES, "")
        return cls(
            runtime_image=env.get(contract.ENV_RUNTIME_IMAGE) or cls.runtime_image,
            artifacts_uri=env.get(contract.ENV_ARTIFACTS_URI) or cls.artifacts_uri,
            artifacts_claim_size=env.get(contract.ENV_ARTIFACTS_CLAIM_SIZE) or cls.artifacts_claim_size,
            artifacts_storage_class=env.get(contract.ENV_ARTIFACTS_STORAGE_CLASS, ""),
            artifacts_access_mode=env.get(contract.ENV_ARTIFACTS_ACCESS_MODE) or cls.artifacts_access_mode,
            datasets_store=env.get(contract.ENV_DATASETS_URI, "").rstrip("/"),
            datasets_secret=env.get(contract.ENV_DATASETS_SECRET, ""),
            mlflow_uri=env.get(contract.ENV_MLFLOW, "").rstrip("/"),
            gateway=env.get(contract.ENV_GATEWAY, ""),
            watch_namespaces=tuple(name for name in (part.strip() for part in namespaces.split(",")) if name),
            pod_ip=env.get(contract.ENV_POD_IP) or cls.pod_ip,
            accelerators=_offers(env.get(contract.ENV_ACCELERATORS) or "[]"),
        )

    @property
    def datasets_uri(self) -> str:
        """The store of dataset versions."""
        return self.datasets_store or self.artifacts_uri

    @property
    def uses_claim(self) -> bool:
        """Whether artifacts live on a volume of the namespace instead of in an object store."""
        return self.artifacts_uri.removeprefix("file://").rstrip("/") == contract.ARTIFACTS_DIR

    def run_uri(self, namespace: str, kind: str, name: str, uid: str) -> str:
        """Folder of one resource's checkpoints."""
        return f"{self.artifacts_uri.rstrip('/')}/runs/{namespace}/{kind.lower()}/{name}/{uid}"


def _offers(text: str) -> tuple[Offer, ...]:
    """ConfigurationError for a resource that no row of the table of accelerators has."""
    try:
        entries = [
            (each["resource"], each.get("nodeSelector", {}), each.get("tolerations", [])) for each in json.loads(text)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"the chart's value accelerators cannot be read ({error!r}): {text}") from error
    for resource, _, _ in entries:
        if resource not in RESOURCES:
            known = ", ".join(sorted(RESOURCES))
            raise ConfigurationError(f"the chart's value accelerators names {resource!r}, which is none of {known}")
    return tuple(Offer(resource, dict(selector), tuple(tolerations)) for resource, selector, tolerations in entries)
