"""What admission adds to a new pod before it is validated: limits of its namespace, its priority, tolerations.

The plugins LimitRanger, Priority and DefaultTolerationSeconds of the real server, in its order and words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mizzen_local.api import status
from mizzen_local.client import Object

if TYPE_CHECKING:
    from mizzen_local.api.machinery import Machinery

PRIORITY_CLASSES = "scheduling.k8s.io/priorityclasses"
LIMIT_RANGES = "/limitranges"
_SECONDS = 300
_EVICTING = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def apply_limits(machinery: Machinery, pod: Object) -> None:
    """Containers get the requests and limits that the namespace's LimitRanges have for those without."""
    told = []
    for entry in machinery.store.entries(LIMIT_RANGES, pod["metadata"]["namespace"]):
        limits = [item for item in entry.obj["spec"].get("limits") or [] if item.get("type") == "Container"]
        most = {name: value for item in limits for name, value in (item.get("default") or {}).items()}
        wanted = {name: value for item in limits for name, value in (item.get("defaultRequest") or {}).items()}
        for field, word in (("containers", "container"), ("initContainers", "init container")):
            for container in pod["spec"].get(field) or []:
                told += _filled(container, word, wanted, most)
    if told:
        annotations = pod["metadata"]["annotations"] = dict(pod["metadata"].get("annotations") or {})
        annotations["kubernetes.io/limit-ranger"] = f"LimitRanger plugin set: {'; '.join(told)}"


def _filled(container: Object, word: str, wanted: dict[str, str], most: dict[str, str]) -> list[str]:
    resources = container.setdefault("resources", {})
    added: dict[str, list[str]] = {"request": [], "limit": []}
    for kind, defaults in (("limit", most), ("request", wanted)):
        given = resources.get(f"{kind}s") or {}
        added[kind] = sorted(set(defaults) - set(given))
        if added[kind]:
            resources[f"{kind}s"] = {**given, **{name: defaults[name] for name in added[kind]}}
    return [
        f"{', '.join(names)} {kind} for {word} {container.get('name', '')}" for kind, names in added.items() if names
    ]


def set_priority(machinery: Machinery, pod: Object) -> None:
    """The number behind the class that the pod names, or behind the cluster's default."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    named = spec.get("priorityClassName")
    if named:
        entry = machinery.store.get(PRIORITY_CLASSES, "", named)
        if entry is None:
            raise status.forbidden("pods", "", name, f"no PriorityClass with name {named} was found")
        found: Object | None = entry.obj
    else:
        found = default_class(machinery)
        if found is not None:
            spec["priorityClassName"] = found["metadata"]["name"]
    value = found.get("value", 0) if found else 0
    policy = (found or {}).get("preemptionPolicy") or "PreemptLowerPriority"
    if spec.get("priority", value) != value:
        raise status.forbidden(
            "pods", "", name,
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission"
            f" controller computed {value} from the given PriorityClass name",
        )  # fmt: skip
    if spec.get("preemptionPolicy", policy) != policy:
        raise status.forbidden(
            "pods", "", name,
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec;"
            f" priority admission controller computed {policy} from the given PriorityClass name",
        )  # fmt: skip
    spec["priority"], spec["preemptionPolicy"] = value, policy


def keep_priority(pod: Object, old: Object) -> None:
    for field in ("priority", "preemptionPolicy"):
        if field in old["spec"]:
            pod["spec"].setdefault(field, old["spec"][field])


def default_class(machinery: Machinery) -> Object | None:
    """The PriorityClass of pods that name none."""
    found = [entry.obj for entry in machinery.store.entries(PRIORITY_CLASSES) if entry.obj.get("globalDefault")]
    return min(found, key=lambda item: item.get("value", 0), default=None)


def check_priority_class(machinery: Machinery, obj: Object, old: Object | None) -> None:
    """Only one class can be the default."""
    if not obj.get("globalDefault"):
        return
    other = default_class(machinery)
    if other is not None and (old is None or other["metadata"]["name"] != obj["metadata"]["name"]):
        why = f"PriorityClass {other['metadata']['name']} is already marked as default. Only one default can exist"
        raise status.forbidden("priorityclasses", "scheduling.k8s.io", obj["metadata"]["name"], why)


def tolerate_lost_nodes(pod: Object) -> None:
    """A node may be away for five minutes before its pods have to go."""
    given = pod["spec"].get("tolerations") or []
    missing = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _SECONDS}
        for key in _EVICTING
        if not any(
            entry.get("key") in (key, None, "") and entry.get("effect") in ("NoExecute", None, "") for entry in given
        )
    ]
    if missing:
        pod["spec"]["tolerations"] = [*given, *missing]
