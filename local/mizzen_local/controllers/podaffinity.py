"""Pods among pods: what affinity, anti-affinity and topology spread require. Preferences are not looked at. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mizzen_local.client import Object
from mizzen_local.objects import meta, selects

NOT_NEAR = "node(s) didn't match pod affinity rules"
_NOT_APART = "node(s) didn't match pod anti-affinity rules"
_UNWELCOME = "node(s) didn't satisfy existing pods anti-affinity rules"
_NOT_EVEN = "node(s) didn't match pod topology spread constraints"


@dataclass(frozen=True)
class Place:
    """A node's labels and its pods."""

    labels: dict[str, str]
    pods: list[Object]


def _terms(pod: Object, kind: str) -> list[Object]:
    affinity = (pod["spec"].get("affinity") or {}).get(kind) or {}
    found: list[Object] = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []
    return found


def _with_label_keys(selector: Object | None, owner: Object, given: Object) -> Object | None:
    """The selector with `matchLabelKeys` and `mismatchLabelKeys`, whose values are the owner's."""
    labels = meta(owner).get("labels") or {}
    added = [
        {"key": key, "operator": operator, "values": [labels[key]]}
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for key in given.get(field) or []
        if key in labels
    ]
    if selector is None or not added:
        return selector
    return {**selector, "matchExpressions": [*(selector.get("matchExpressions") or []), *added]}


def _matches(term: Object, owner: Object, other: Object) -> bool:
    """Whether a term of `owner` means the pod `other`. A namespaceSelector is known only where it selects all."""
    home = meta(other).get("namespace")
    listed = term.get("namespaces") or []
    everywhere = term.get("namespaceSelector") == {}
    if not listed and term.get("namespaceSelector") is None:
        listed = [meta(owner).get("namespace")]
    selector = _with_label_keys(term.get("labelSelector"), owner, term)
    return (everywhere or home in listed) and selects(selector, meta(other).get("labels"))


def affinity_problem(pod: Object, here: Place, places: list[Place]) -> str:
    """Why the pod may not go `here`; empty when it may. `places` are all nodes, with this one."""
    if not _near(pod, here, places):
        return NOT_NEAR
    for term in _terms(pod, "podAntiAffinity"):
        for place in places:
            if _together(term, here, place) and any(_matches(term, pod, other) for other in place.pods):
                return _NOT_APART
    for place in places:
        for other in place.pods:
            for term in _terms(other, "podAntiAffinity"):
                if _together(term, here, place) and _matches(term, other, pod):
                    return _UNWELCOME
    return ""


def _together(term: Object, here: Place, there: Place) -> bool:
    key = term["topologyKey"]
    return key in here.labels and here.labels[key] == there.labels.get(key)


def _near(pod: Object, here: Place, places: list[Place]) -> bool:
    terms = _terms(pod, "podAffinity")
    if not terms:
        return True
    if any(term["topologyKey"] not in here.labels for term in terms):
        return False

    def wanted(other: Object) -> bool:
        return all(_matches(term, pod, other) for term in terms)

    good = [place for place in places if any(map(wanted, place.pods))]
    if all(any(_together(term, here, place) for place in good) for term in terms):
        return True
    return not good and wanted(pod)  # the first of a group that wants to be together


def spread_problem(pod: Object, here: Place, places: list[Place]) -> str:
    """Why the pod would make its group too uneven; `places` are the nodes that it might go to."""
    hard = [
        constraint
        for constraint in pod["spec"].get("topologySpreadConstraints") or []
        if constraint.get("whenUnsatisfiable") == "DoNotSchedule"
    ]
    keys = [constraint["topologyKey"] for constraint in hard]
    if any(key not in here.labels for key in keys):
        return f"{_NOT_EVEN} (missing required label)"
    domains = [place for place in places if all(key in place.labels for key in keys)]
    for constraint in hard:
        key = constraint["topologyKey"]
        selector = _with_label_keys(constraint.get("labelSelector"), pod, constraint)
        counts: dict[str, int] = {}
        for place in domains:
            count = sum(_counts(selector, pod, other) for other in place.pods)
            counts[place.labels[key]] = counts.get(place.labels[key], 0) + count
        least = min(counts.values(), default=0)
        if len(counts) < (constraint.get("minDomains") or 1):
            least = 0
        itself = int(selects(selector, meta(pod).get("labels")))
        if counts.get(here.labels[key], 0) + itself - least > constraint["maxSkew"]:
            return _NOT_EVEN
    return ""


def _counts(selector: Object | None, pod: Object, other: Object) -> bool:
    same = meta(other).get("namespace") == meta(pod).get("namespace")
    return same and not meta(other).get("deletionTimestamp") and selects(selector, meta(other).get("labels"))
