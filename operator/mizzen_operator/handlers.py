"""Kopf's part: it watches, and its handlers do no more than enqueue the key of the resource that changed.

Nothing here needs a finalizer: children carry owner references, so the garbage collector removes them with their
resource, also while the operator is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kopf

from mizzen_api import KINDS
from mizzen_api.contract import GROUP, LABEL_KIND, LABEL_MANAGED_BY, LABEL_NAME, MANAGED_BY, VERSION
from mizzen_operator.loop import Dependencies, Loop
from mizzen_operator.plan import Key

# What the operator makes, or what its children make, by (group, version, plural).
CHILDREN = (
    ("", "v1", "pods"),
    ("", "v1", "services"),
    ("batch", "v1", "jobs"),
    ("apps", "v1", "deployments"),
    ("gateway.networking.k8s.io", "v1", "httproutes"),
)


def register(registry: kopf.OperatorRegistry, loop: Loop, dependencies: Dependencies) -> None:
    """Watch the four kinds and all labelled children. Kopf skips resources that the cluster does not know."""

    async def resource_changed(body: kopf.Body, type: str | None, **_: Any) -> None:
        key = Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
        if type == "DELETED":
            dependencies.forget(key)
        else:
            dependencies.record(key, needs(key, body))
        loop.enqueue(key)
        for dependent in dependencies.dependents(key):
            loop.enqueue(dependent)

    async def child_changed(labels: Mapping[str, str], namespace: str | None, **_: Any) -> None:
        if namespace and LABEL_KIND in labels and LABEL_NAME in labels:
            loop.enqueue(Key(labels[LABEL_KIND], namespace, labels[LABEL_NAME]))

    for kind in KINDS:
        kopf.on.event(GROUP, VERSION, kind.PLURAL, registry=registry)(resource_changed)
    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, labels={LABEL_MANAGED_BY: MANAGED_BY}, registry=registry)(child_changed)


def needs(key: Key, body: Mapping[str, Any]) -> frozenset[Key]:
    """The resources that a job or a Dataset names."""
    spec = body.get("spec") or {}
    dataset = (spec.get("datasetRef") or (spec.get("drift") or {}).get("datasetRef") or {}).get("name")
    search = ((spec.get("model") or {}).get("searchJobRef") or {}).get("name") if key.kind == "TrainingJob" else None
    found = (("Dataset", dataset), ("SearchJob", search))
    return frozenset(Key(kind, key.namespace, name) for kind, name in found if name)


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf only watches: no events, no peering, no look at CRDs and namespaces, no annotations on resources."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    for group, version, plural in CHILDREN:
        settings.watching.label_selectors[group, version, plural] = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
