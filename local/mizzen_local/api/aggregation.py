"""Aggregated cluster roles: their rules are those of the roles that they select, written anew with every change."""

from __future__ import annotations

from mizzen_local.api.store import Store
from mizzen_local.client import Object
from mizzen_local.objects import selects

BUCKET = "rbac.authorization.k8s.io/clusterroles"


def gather(store: Store) -> None:
    """Do what the real cluster's controller does, until nothing changes: roles may gather from those that gather."""
    while (changed := _next(store)) is not None:
        store.put(BUCKET, "", changed["metadata"]["name"], changed)


def _next(store: Store) -> Object | None:
    roles = [entry.obj for entry in store.entries(BUCKET)]
    for role in roles:
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
        if not selectors:
            continue
        rules: list[Object] = []
        for other in roles:
            if other is not role and any(selects(item, other["metadata"].get("labels")) for item in selectors):
                rules += [rule for rule in other.get("rules") or [] if rule not in rules]
        if rules != (role.get("rules") or []) and not _permuted(rules, role):
            return {**role, "metadata": dict(role["metadata"]), "rules": rules}
    return None


def _permuted(rules: list[Object], role: Object) -> bool:
    """Whether the role has the rules already, in another order: roles that select each other must come to rest."""
    before = role.get("rules") or []
    return len(before) == len(rules) and all(rule in before for rule in rules)
