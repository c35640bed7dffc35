"""The three seams between the pure middle and the world: the cluster, the workload pods, the model registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mizzen_api.workload import Progress
from mizzen_operator.observed import ModelAnswer, Traffic
from mizzen_operator.plan import Event, Manifest, Ref


class Cluster(Protocol):
    """A Kubernetes API. Every method raises ClusterError; what is not there is None or an empty list."""

    async def get(self, ref: Ref) -> Manifest | None: ...

    async def list(self, api_version: str, kind: str, namespace: str, labels: dict[str, str]) -> list[Manifest]: ...

    async def events_about(self, about: Ref) -> Sequence[Manifest]:
        """What others said about this very object."""
        ...

    async def nodes(self) -> Sequence[Manifest]:
        """All nodes; none where the operator may not look at them."""
        ...

    async def serves(self, api_version: str) -> bool:
        """Whether the API server knows the group and version."""
        ...

    async def apply(self, manifest: Manifest) -> None:
        """Server-side apply: what the operator set before and does not set now goes; others' fields stay."""
        ...

    async def patch(self, ref: Ref, body: Manifest) -> None: ...

    async def apply_status(self, ref: Ref, status: dict[str, Any]) -> None: ...

    async def delete(self, ref: Ref) -> None:
        """In the background; with a uid in `ref` only that incarnation. What is gone already is fine."""
        ...

    async def publish(self, about: Ref, event: Event) -> None: ...


class Workloads(Protocol):
    """Pulls from pods. None where a pod does not answer in time: it will be asked again."""

    async def progress(self, ip: str) -> Progress | None: ...

    async def traffic(self, ip: str) -> Traffic | None: ...


class Registry(Protocol):
    """Resolves models:/NAME@ALIAS and models:/NAME/VERSION."""

    async def resolve(self, uri: str) -> ModelAnswer: ...
