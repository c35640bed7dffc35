"""Tables: the columns that `kubectl get` prints, computed by the server as the real one does."""

from __future__ import annotations

from mizzen_local.api import eventforms
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.client import Object


def build(info: ResourceInfo, objects: list[Object], version: str, query: dict[str, str], rv: str) -> Object:
    """A meta.k8s.io Table of the objects; `includeObject` says how much of each object travels along."""
    from mizzen_local.api import columns

    found = columns.of(info)
    include = query.get("includeObject", "Metadata")
    rows = []
    for obj in objects:
        shown = eventforms.to_core(obj) if info.group == eventforms.GROUP else obj
        row: Object = {"cells": [column.cell(shown) for column in found]}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            partial = {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}"}
            row["object"] = {**partial, "metadata": obj["metadata"]}
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": {"resourceVersion": rv},
        "columnDefinitions": [column.definition for column in found],
        "rows": rows,
    }
