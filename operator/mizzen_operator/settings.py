"""What the chart tells the operator through its environment; planners get it as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mizzen_api import contract


@dataclass(frozen=True)
class Settings:
    """The operator's configuration. The defaults are those of a bare process beside a cluster."""

    runtime_image: str = contract.IMAGE_RUNTIME
    artifacts_uri: str = f"file://{contract.ARTIFACTS_DIR}"
    artifacts_claim_size: str = "10Gi"
    artifacts_storage_class: str = ""
    artifacts_access_mode: str = "ReadWriteMany"
    mlflow_uri: str = ""
    gateway: str = ""  # namespace/name
    watch_namespaces: tuple[str, ...] = ()
    pod_ip: str = "127.0.0.1"

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
            mlflow_uri=env.get(contract.ENV_MLFLOW, "").rstrip("/"),
            gateway=env.get(contract.ENV_GATEWAY, ""),
            watch_namespaces=tuple(name for name in (part.strip() for part in namespaces.split(",")) if name),
            pod_ip=env.get(contract.ENV_POD_IP) or cls.pod_ip,
        )

    @property
    def uses_claim(self) -> bool:
        """Whether artifacts live on a volume of the namespace instead of in an object store."""
        return self.artifacts_uri.removeprefix("file://").rstrip("/") == contract.ARTIFACTS_DIR

    def run_uri(self, namespace: str, kind: str, name: str, uid: str) -> str:
        """Folder of one resource's checkpoints."""
        return f"{self.artifacts_uri.rstrip('/')}/runs/{namespace}/{kind.lower()}/{name}/{uid}"
