"""How controllers and the node agent talk to a control plane: one small interface, two transports.

`mizzen_local.api.direct.DirectClient` calls the API server's code in the same process (controllers);
`mizzen_local.http_client.HttpClient` goes over TLS with a kubeconfig, so that the node agent can join any cluster.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Object = dict[str, Any]  # a Kubernetes object as JSON; this package is the API machinery, so objects stay untyped here


@dataclass(frozen=True)
class Resource:
    """One REST resource, for example `Resource("apps", "v1", "deployments")`; the core group is the empty string."""

    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


@dataclass(frozen=True)
class WatchEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR event is raised as ApiError instead."""

    type: str
    object: Object


class ApiError(Exception):
    """A Kubernetes Status: `code` is the HTTP code, `reason` the machine-readable word (NotFound, Conflict, ...)."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details


PatchType = Literal["json", "merge", "strategic", "apply"]


class Client(Protocol):
    """`namespace=None` means cluster-scoped for one object and all namespaces for list and watch."""

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str = ""
    ) -> Object: ...

    async def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> Object:
        """The whole list object; `metadata.resourceVersion` is where a watch continues."""
        ...

    async def create(
        self, resource: Resource, body: Object, namespace: str | None = None, *, name: str = "", subresource: str = ""
    ) -> Object:
        """`name` and `subresource` are for what is made of an object: a pod's `binding`, an account's `token`."""
        ...

    async def update(
        self, resource: Resource, body: Object, namespace: str | None = None, *, subresource: str = ""
    ) -> Object: ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        patch_type: PatchType = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object: ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation_policy: str = "Background",
        grace_period_seconds: int | None = None,
        uid: str | None = None,
    ) -> Object: ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Ends when the server closes the connection; the caller resumes or lists again on ApiError 410."""
        ...
