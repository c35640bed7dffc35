"""From client-side to server-side apply: kubectl may go on with what its annotation says that it set before."""

from __future__ import annotations

import orjson

from mizzen_local.api import fieldset
from mizzen_local.api.fieldset import Trie
from mizzen_local.api.schema import Node, clean
from mizzen_local.client import Object

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER = "kubectl"  # whoever names another manager wants none of this


def noted(obj: Object) -> str:
    annotations = obj["metadata"].get("annotations") or {}
    return str(annotations.get(ANNOTATION) or "")


def allowed(node: Node, live: Object) -> Trie | None:
    """The fields that the annotation sets and that still have its values."""
    try:
        last = orjson.loads(noted(live))
        if not isinstance(last, dict) or last.get("apiVersion") != live["apiVersion"]:
            return None
        last = clean(node, last, "", [])
    except ValueError:
        return None
    fields = fieldset.fields_of(node, last)
    return fieldset.minus(fields, fieldset.changed(node, last, live)) if fields else None


def renew(obj: Object, config: Object) -> None:
    """Keep the annotation what the last apply sent, so that the way back stays open."""
    if noted(obj):
        text = orjson.dumps(config, option=orjson.OPT_SORT_KEYS).decode() + "\n"
        annotations = {**obj["metadata"]["annotations"], ANNOTATION: text}
        obj["metadata"] = {**obj["metadata"], "annotations": annotations}
