"""The status of a pod: from how its containers fare to what `kubectl get pod` shows. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from mizzen_local.agent.containers import Exit
from mizzen_local.agent.lifecycle import Decision, View, is_sidecar, restarts
from mizzen_local.client import Object
from mizzen_local.objects import rfc3339, with_condition

_OWN = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", "DisruptionTarget")
_GATES = "ReadinessGatesNotReady"
_READY_WORDS = {
    "Initialized": ("ContainersNotInitialized", "containers with incomplete status"),
    "ContainersReady": ("ContainersNotReady", "containers with unready status"),
    "Ready": ("ContainersNotReady", "containers with unready status"),
}


def stamp(moment: float) -> str:
    return rfc3339(datetime.fromtimestamp(moment, UTC))


def qos_class(spec: Object) -> str:
    every = [*spec["containers"], *(spec.get("initContainers") or [])]
    given = [(c.get("resources") or {}) for c in every]
    if not any(r.get("requests") or r.get("limits") for r in given):
        return "BestEffort"
    for resources in given:
        limits = {k: v for k, v in (resources.get("limits") or {}).items() if k in ("cpu", "memory")}
        requests = {k: v for k, v in (resources.get("requests") or limits).items() if k in ("cpu", "memory")}
        if set(limits) != {"cpu", "memory"} or {**limits, **requests} != limits:
            return "Burstable"
    return "Guaranteed"


def _terminated(ended: Exit, identity: str) -> Object:
    return {
        "terminated": {
            "exitCode": ended.code,
            "reason": ended.reason,
            **({"message": ended.message} if ended.message else {}),
            "startedAt": stamp(ended.started_at),
            "finishedAt": stamp(ended.finished_at),
            "containerID": identity,
        }
    }


def container_status(container: Object, view: View, uid: str, now: float, *, again: bool, idle: str) -> Object:
    """`again` says that an ended container will be restarted; `idle` is the reason while it was never started."""
    identity = f"mizzen://{uid[:13]}-{view.name}-{max(view.attempt, 0)}"
    last: Object = {}
    if view.running:
        state: Object = {"running": {"startedAt": stamp(view.started_at)}}
        last = _terminated(view.previous, identity) if view.previous else {}
    elif view.waiting is not None:
        state = {"waiting": {"reason": view.waiting[0], "message": view.waiting[1]}}
        last = _terminated(view.exit, identity) if view.exit else {}
    elif view.exit is not None and again and view.retry_at > now:
        text = f"back-off restarting failed container={view.name}"
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
        last = _terminated(view.exit, identity)
    elif view.exit is not None:
        state = _terminated(view.exit, identity)
        last = _terminated(view.previous, identity) if view.previous else {}
    else:
        state = {"waiting": {"reason": idle}}
    image = container.get("image") or ""
    return {
        "name": view.name,
        "state": state,
        "lastState": last,
        "ready": view.ready,
        "started": view.started,
        "restartCount": max(view.attempt, 0),
        "image": image,
        "imageID": image if view.attempt >= 0 else "",
        **({"containerID": identity} if view.attempt >= 0 else {}),
    }


def pod_status(pod: Object, views: dict[str, View], decided: Decision, facts: Object, now: float) -> Object:
    """`facts` are podIP, hostIP and startTime."""
    spec, before = pod["spec"], pod.get("status") or {}
    uid = pod["metadata"]["uid"]
    over = decided.phase in ("Succeeded", "Failed")
    inits, mains = [], []
    for container in spec.get("initContainers") or []:
        view = views[container["name"]]
        failed = view.exit is not None and view.exit.code != 0
        again = not over and (is_sidecar(container) or (failed and spec.get("restartPolicy", "Always") != "Never"))
        found = container_status(container, view, uid, now, again=again, idle="PodInitializing")
        if not is_sidecar(container):
            found["ready"] = view.exit is not None and view.exit.code == 0
        inits.append(found)
    idle = "ContainerCreating" if not inits or decided.initialized else "PodInitializing"
    for container in spec["containers"]:
        view = views[container["name"]]
        again = not over and restarts(spec, view)
        mains.append(container_status(container, view, uid, now, again=again, idle=idle))
    status: Object = {
        "phase": decided.phase,
        "qosClass": before.get("qosClass") or qos_class(spec),
        "containerStatuses": mains,
        "conditions": _conditions(pod, mains, inits, decided, stamp(now)),
        **facts,
    }
    if inits:
        status["initContainerStatuses"] = inits
    for key in ("reason", "message"):
        value = getattr(decided, key)
        if value or before.get(key):
            status[key] = value or before[key]
    return status


def _closed_gates(pod: Object, known: dict[str, str]) -> list[str]:
    """Why the pod's readiness gates keep it from being ready."""
    found = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        if kind not in known:
            found.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif known[kind] != "True":
            found.append(f'the status of pod readiness gate "{kind}" is not "True", but {known[kind]}')
    return found


def _conditions(pod: Object, mains: list[Object], inits: list[Object], decided: Decision, now: str) -> list[Object]:
    """The kubelet's own; a strategic merge leaves those of others as they are."""
    before = (pod.get("status") or {}).get("conditions") or []
    closed = _closed_gates(pod, {c["type"]: c["status"] for c in before})
    unready = [s["name"] for s in [*mains, *(i for i in inits if i["state"].get("running"))] if not s["ready"]]
    uninitialized = [s["name"] for s in inits if not (s["ready"] or s["state"].get("running"))]
    conditions = with_condition([c for c in before if c["type"] in _OWN], "PodScheduled", "True", "", "", now)
    begun = decided.phase not in ("Succeeded", "Failed") and any("containerID" in s for s in [*mains, *inits])
    conditions = with_condition(conditions, "PodReadyToStartContainers", str(begun), "", "", now)
    for kind, names in (("Initialized", uninitialized), ("ContainersReady", unready), ("Ready", unready)):
        reason, text = _READY_WORDS[kind]
        good = decided.initialized if kind == "Initialized" else not names
        if decided.phase == "Succeeded":
            good, reason, text = kind == "Initialized", "PodCompleted", ""
        elif decided.phase == "Failed" and kind != "Initialized":
            good, reason, text = False, "PodFailed", ""
        elif kind == "Ready" and good and closed:
            good, reason, text = False, _GATES, ""
        if good:
            conditions = with_condition(conditions, kind, "True", "", "", now)
        else:
            message = f"{text}: [{' '.join(names)}]" if text else ", ".join(closed) if reason == _GATES else ""
            conditions = with_condition(conditions, kind, "False", reason, message, now)
    return [{k: v for k, v in c.items() if v or k == "status"} for c in conditions]
