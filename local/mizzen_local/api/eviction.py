"""Eviction: the deletion of a pod that asks its disruption budget first. One step, so two cannot spend the same."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mizzen_local import budgets
from mizzen_local.api import removal, status
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.removal import DeleteOptions
from mizzen_local.client import ApiError, Object
from mizzen_local.objects import condition, is_finished_pod, meta, rfc3339, selects, utc_now, with_condition

BUDGETS = "policy/poddisruptionbudgets"
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_MAX_DISRUPTED = 2000
_DONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def evict(
    machinery: Machinery, info: ResourceInfo, namespace: str, name: str, body: Any, *, dry_run: bool = False
) -> Object:
    """Delete a pod unless a disruption budget forbids it; the answer is what `POST pods/NAME/eviction` gets."""
    body = body if isinstance(body, dict) else {}
    given = (body.get("metadata") or {}).get("name") or name
    if given != name:
        raise status.bad_request(f"name in URL does not match name in Eviction object: {given} != {name}")
    options = DeleteOptions.parse(body.get("deleteOptions"), {"dryRun": "All"} if dry_run else {})
    pod = machinery.entry(info, namespace, name).obj
    now = utc_now()
    if not budgets.needs_no_budget(pod):
        _spend(machinery, namespace, pod, now, options)
    if not options.dry_run and not is_finished_pod(pod) and not meta(pod).get("deletionTimestamp"):
        pod = _marked(machinery, info, pod, now)
    removal.delete(machinery, info, namespace, name, options)
    return dict(_DONE)


def _spend(machinery: Machinery, namespace: str, pod: Object, now: datetime, options: DeleteOptions) -> None:
    found = [
        entry.obj
        for entry in machinery.store.entries(BUDGETS, namespace)
        if selects(entry.obj["spec"].get("selector"), meta(pod).get("labels"))
    ]
    if len(found) > 1:
        message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, "InternalError", message)
    if not found or budgets.unhealthy_may_go(found[0], pod):
        return
    budget = found[0]
    _check(budget)
    if options.dry_run:
        return
    name = meta(budget)["name"]
    after = {**budget, "metadata": dict(meta(budget)), "status": budgets.spent(budget, meta(pod)["name"], now)}
    machinery.store.put(BUDGETS, namespace, name, after)


def _check(budget: Object) -> None:
    name, known = meta(budget)["name"], budget.get("status") or {}
    if known.get("observedGeneration", 0) < meta(budget).get("generation", 1):
        raise _too_many(f"The disruption budget {name} is still being processed by the server.", 10)
    allowed = known.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise status.forbidden("poddisruptionbudgets", "policy", name, "pdb disruptions allowed is negative")
    if len(known.get("disruptedPods") or {}) > _MAX_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise status.forbidden("poddisruptionbudgets", "policy", name, why)
    if allowed == 0:
        said = condition(budget, "DisruptionAllowed") or {}
        if said.get("reason") == "SyncFailed":
            why = f"does not allow evicting pods currently because it failed sync: {said['message']}"
            raise _too_many(f"The disruption budget {name} {why}")
        desired, healthy = known.get("desiredHealthy", 0), known.get("currentHealthy", 0)
        raise _too_many(f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")


def _too_many(cause: str, retry: int = 0) -> ApiError:
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    if retry:
        details["retryAfterSeconds"] = retry
    return ApiError(429, "TooManyRequests", _REFUSED, details)


def _marked(machinery: Machinery, info: ResourceInfo, pod: Object, now: datetime) -> Object:
    """The pod with the condition that tells its Job and its readers why it ends."""
    known = pod.get("status") or {}
    conditions = with_condition(
        known.get("conditions"), "DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting",
        rfc3339(now),
    )  # fmt: skip
    after = {**pod, "metadata": dict(meta(pod)), "status": {**known, "conditions": conditions}}
    return machinery.store.put(info.bucket, meta(pod)["namespace"], meta(pod)["name"], after).obj
