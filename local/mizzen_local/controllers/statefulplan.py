"""The rules of a StatefulSet: from its pods to which to create, which to delete and what its status says. Pure."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mizzen_local.client import Object
from mizzen_local.controllers.pods import available_in, is_ready, pod_from_template
from mizzen_local.objects import is_finished_pod, meta

REVISION = "controller-revision-hash"
NAME, INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"


@dataclass(frozen=True)
class Plan:
    """`create` are the ordinals of pods to make, with the name of their revision."""

    status: Object
    create: tuple[tuple[int, str], ...] = ()
    delete: tuple[Object, ...] = ()
    look_again: float | None = None


def ordinal_of(stateful: Object, pod: Object) -> int | None:
    """The number in the pod's name; None where the name is not one of this set's."""
    parent, _, number = str(meta(pod)["name"]).rpartition("-")
    return int(number) if parent == meta(stateful)["name"] and number.isdigit() else None


def revision_of(pod: Object) -> str:
    return str((meta(pod).get("labels") or {}).get(REVISION, ""))


def claim_name(template: Object, pod_name: str) -> str:
    return f"{meta(template)['name']}-{pod_name}"


def pod_of(stateful: Object, ordinal: int, template: Object, revision: str) -> Object:
    """The pod of that number, with a stable name and its own claims."""
    name = f"{meta(stateful)['name']}-{ordinal}"
    pod = pod_from_template(template, stateful, "apps/v1", "StatefulSet")
    del pod["metadata"]["generateName"]
    pod["metadata"]["name"] = name
    pod["metadata"]["labels"].update({NAME: name, INDEX: str(ordinal), REVISION: revision})
    spec = pod["spec"]
    spec["hostname"], spec["subdomain"] = name, stateful["spec"].get("serviceName") or ""
    claims = [
        {"name": meta(claim)["name"], "persistentVolumeClaim": {"claimName": claim_name(claim, name)}}
        for claim in stateful["spec"].get("volumeClaimTemplates") or []
    ]
    own = {volume["name"] for volume in claims}
    volumes = [*claims, *(volume for volume in spec.get("volumes") or [] if volume["name"] not in own)]
    if volumes:
        spec["volumes"] = volumes
    return pod


def claims_of(stateful: Object, pod: Object) -> list[Object]:
    """The claims that the pod needs; they outlive it."""
    labels = (stateful["spec"].get("selector") or {}).get("matchLabels") or {}
    found = []
    for template in stateful["spec"].get("volumeClaimTemplates") or []:
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": copy.deepcopy(template["spec"])}
        claim["metadata"] = {
            "name": claim_name(template, meta(pod)["name"]),
            "namespace": meta(stateful)["namespace"],
            "labels": {**(meta(template).get("labels") or {}), **labels},
            "annotations": dict(meta(template).get("annotations") or {}),
        }
        found.append(claim)
    return found


def plan(stateful: Object, pods: list[Object], current: str, update: str, now: datetime) -> Plan:
    """`pods` are those that this StatefulSet controls; `current` and `update` name its revisions."""
    spec = stateful["spec"]
    start = (spec.get("ordinals") or {}).get("start") or 0
    numbers = range(start, start + int(spec.get("replicas", 1)))
    placed = {ordinal: pod for pod in pods if (ordinal := ordinal_of(stateful, pod)) is not None}
    waits = {number: available_in(pod, spec.get("minReadySeconds") or 0, now) for number, pod in placed.items()}
    status = _status(stateful, placed, waits, current, update)
    if meta(stateful).get("deletionTimestamp"):
        return Plan(status)
    later = min((wait for wait in waits.values() if wait), default=None)
    ordered = spec.get("podManagementPolicy") != "Parallel"
    create: list[tuple[int, str]] = []
    delete: list[Object] = []
    for number in numbers:
        pod = placed.get(number)
        if pod is None:
            create.append((number, _wanted_revision(spec, number - start, current, update)))
        elif is_finished_pod(pod) and not meta(pod).get("deletionTimestamp"):
            delete.append(pod)
        elif not ordered or (waits[number] == 0 and not meta(pod).get("deletionTimestamp")):
            continue
        if ordered:  # each waits for the one before it
            return Plan(status, tuple(create), tuple(delete), later)
    surplus = [placed[number] for number in sorted(placed, reverse=True) if number not in numbers]
    condemned = _condemned(surplus, [placed[n] for n in numbers if n in placed], waits, stateful, ordered=ordered)
    if create or delete or condemned or surplus:
        return Plan(status, tuple(create), (*delete, *condemned), later)
    outdated = _outdated(spec, start, numbers, placed, waits, update)
    return Plan(status, delete=outdated, look_again=later)


def _condemned(
    surplus: list[Object], staying: list[Object], waits: dict[int, Any], stateful: Object, *, ordered: bool
) -> list[Object]:
    """Pods beyond the wanted number: the last one goes first, and only while all others are well."""
    alive = [pod for pod in surplus if not meta(pod).get("deletionTimestamp")]
    if not ordered:
        return alive
    if not alive or len(alive) != len(surplus):
        return []
    unwell = [pod for pod in [*staying, *reversed(surplus)] if waits.get(ordinal_of(stateful, pod) or 0) is None]
    return [] if unwell and unwell[0] is not alive[0] else alive[:1]


def _outdated(
    spec: Object, start: int, numbers: range, placed: dict[int, Object], waits: dict[int, Any], update: str
) -> tuple[Object, ...]:
    """The next pod that a rolling update replaces, from the last to the partition."""
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return ()
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    for number in reversed(numbers):
        pod = placed.get(number)
        if number < start + partition or pod is None:
            return ()
        gone = bool(meta(pod).get("deletionTimestamp"))
        if revision_of(pod) != update and not gone:
            return (pod,)
        if waits[number] != 0 or gone:
            return ()
    return ()


def _wanted_revision(spec: Object, place: int, current: str, update: str) -> str:
    """What is below the partition stays with the revision that it had."""
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    return current if place < (rolling.get("partition") or 0) else update


def _status(stateful: Object, placed: dict[int, Object], waits: dict[int, Any], current: str, update: str) -> Object:
    spec = stateful["spec"]
    wanted = int(spec.get("replicas", 1))
    staying = [pod for pod in placed.values() if not meta(pod).get("deletionTimestamp")]
    ready = sum(is_ready(pod) for pod in placed.values())
    updated = sum(revision_of(pod) == update for pod in staying)
    on_current = sum(revision_of(pod) == current for pod in staying)
    rolling = (spec.get("updateStrategy") or {}).get("type") != "OnDelete"
    if rolling and updated == len(placed) == ready == wanted:
        current, on_current = update, updated
    return {
        "observedGeneration": meta(stateful).get("generation", 1),
        "replicas": len(placed),
        "readyReplicas": ready or None,
        "currentReplicas": on_current or None,
        "updatedReplicas": updated or None,
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": 0,
        "availableReplicas": sum(wait == 0 for wait in waits.values()),
    }
