"""Metadata of every child: labels to find it by and the owner reference that makes it go with its resource."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mizzen_api import contract
from mizzen_operator.plan import Manifest, Resource


def labels(resource: Resource, role: str, variant: str = "") -> dict[str, str]:
    """Labels of a child and, the same, of its pods."""
    common = {
        contract.LABEL_MANAGED_BY: contract.MANAGED_BY,
        contract.LABEL_COMPONENT: role,
        contract.LABEL_KIND: resource.kind,
        contract.LABEL_NAME: resource.metadata.name,
        contract.LABEL_ROLE: role,
    }
    return common | ({contract.LABEL_VARIANT: variant} if variant else {})


def selector(resource: Resource, role: str, variant: str = "") -> dict[str, str]:
    """The labels that tell one child's pods from all others."""
    chosen = labels(resource, role, variant)
    keys = (contract.LABEL_KIND, contract.LABEL_NAME, contract.LABEL_ROLE, contract.LABEL_VARIANT)
    return {key: chosen[key] for key in keys if key in chosen}


def metadata(
    resource: Resource, name: str, role: str, *, variant: str = "", annotations: dict[str, str] | None = None
) -> Manifest:
    """The garbage collector removes what is owned, so the operator needs no finalizer on the resource."""
    meta: Manifest = {
        "name": name,
        "namespace": resource.metadata.namespace,
        "labels": labels(resource, role, variant),
        "ownerReferences": [
            {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "name": resource.metadata.name,
                "uid": resource.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    return meta | ({"annotations": annotations} if annotations else {})


def stable_hash(value: Any) -> str:
    """The same for equal JSON, in any order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
