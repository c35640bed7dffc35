"""What ReplicaSet and Job controllers share: making a pod from a template and judging pods."""

from __future__ import annotations

import copy
from datetime import datetime

from mizzen_local.client import Object
from mizzen_local.objects import condition, controller_reference, is_finished_pod, is_true, parse_time


def pod_from_template(template: Object, owner: Object, api_version: str, kind: str) -> Object:
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{owner['metadata']['name'][:57]}-",
            "namespace": owner["metadata"]["namespace"],
            "labels": dict(meta.get("labels") or {}),
            "annotations": dict(meta.get("annotations") or {}),
            "finalizers": list(meta.get("finalizers") or []),
            "ownerReferences": [controller_reference(owner, api_version, kind)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }


def is_ready(pod: Object) -> bool:
    return is_true(pod, "Ready") and not is_finished_pod(pod)


def available_in(pod: Object, min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until a ready pod counts as available (0 when it does), None when it is not ready."""
    if not is_ready(pod):
        return None
    if not min_ready_seconds:
        return 0.0
    since = (condition(pod, "Ready") or {}).get("lastTransitionTime")
    if not since:
        return float(min_ready_seconds)
    return max(0.0, min_ready_seconds - (now - parse_time(since)).total_seconds())


def deletion_rank(pod: Object) -> tuple[int, int, int, int, str]:
    """Pods that sort first go first: unassigned, pending, not ready, cheap by annotation, then the newest."""
    meta = pod["metadata"]
    cost = (meta.get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}
    newest_first = "".join(chr(255 - ord(c)) for c in meta.get("creationTimestamp") or "")
    return (
        1 if pod["spec"].get("nodeName") else 0,
        phases.get((pod.get("status") or {}).get("phase", "Pending"), 0),
        1 if is_ready(pod) else 0,
        int(cost) if cost.lstrip("-").isdigit() else 0,
        newest_first,
    )
