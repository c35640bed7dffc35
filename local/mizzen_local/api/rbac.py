"""Who may do what: Roles, ClusterRoles and their bindings, evaluated as the real RBAC authorizer does."""

from __future__ import annotations

from dataclasses import dataclass

from mizzen_local.api import status
from mizzen_local.api.auth import User
from mizzen_local.api.machinery import Machinery
from mizzen_local.client import ApiError, Object

GROUP = "rbac.authorization.k8s.io"
_BUCKETS = tuple(f"{GROUP}/{plural}" for plural in ("roles", "rolebindings", "clusterroles", "clusterrolebindings"))

_RULE_FIELDS = {
    "apiGroups": "APIGroups", "resources": "Resources", "nonResourceURLs": "NonResourceURLs",
    "resourceNames": "ResourceNames", "verbs": "Verbs",
}  # fmt: skip


@dataclass(frozen=True)
class Attributes:
    """One access: to a resource, or to a path outside the resources."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Authorizer:
    """Rules are looked up once for each user and namespace and forgotten when any RBAC object changes."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery
        self._rules: dict[tuple[User, str], list[Object]] = {}
        self._version: tuple[int, ...] = ()

    def allowed(self, user: User, attributes: Attributes) -> bool:
        if "system:masters" in user.groups:
            return True
        return any(_allows(rule, attributes) for rule in self.rules(user, attributes.namespace))

    def check(self, user: User, attributes: Attributes) -> None:
        """Raise 403 in the real server's words unless the access is allowed."""
        if not self.allowed(user, attributes):
            raise denied(user, attributes)

    def rules(self, user: User, namespace: str) -> list[Object]:
        """Every rule that holds for the user in a namespace; the empty one stands for cluster-wide access."""
        store = self._machinery.store
        version = tuple(store.bucket(bucket).rv for bucket in _BUCKETS)
        if version != self._version:
            self._rules.clear()
            self._version = version
        key = (user, namespace)
        found = self._rules.get(key)
        if found is None:
            found = self._rules[key] = self._resolve(user, namespace)
        return found

    def _resolve(self, user: User, namespace: str) -> list[Object]:
        store, rules = self._machinery.store, list[Object]()
        for entry in store.entries(_BUCKETS[3]):
            if _binds(entry.obj, user, ""):
                rules += self.role_rules(entry.obj["roleRef"], "")
        if namespace:
            for entry in store.entries(_BUCKETS[1], namespace):
                if _binds(entry.obj, user, namespace):
                    rules += self.role_rules(entry.obj["roleRef"], namespace)
        return rules

    def role_rules(self, reference: Object, namespace: str) -> list[Object]:
        store = self._machinery.store
        if reference["kind"] == "Role":
            found = store.get(_BUCKETS[0], namespace, reference["name"])
            return list(found.obj.get("rules") or []) if found else []
        found = store.get(_BUCKETS[2], "", reference["name"])
        if found is None:
            return []
        return list(found.obj.get("rules") or [])

    def check_escalation(self, user: User, plural: str, obj: Object, namespace: str) -> None:
        """Nobody may grant what they do not have, unless they may `escalate` roles or `bind` this one."""
        kind = "clusterroles" if plural.startswith("cluster") else "roles"
        if plural in ("roles", "clusterroles"):
            wanted = obj.get("rules") or []
            if self.allowed(
                user, Attributes("escalate", GROUP, kind, namespace=namespace, name=obj["metadata"]["name"])
            ):
                return
        else:
            reference = obj["roleRef"]
            kind = f"{reference['kind'].lower()}s"
            if self.allowed(user, Attributes("bind", GROUP, kind, namespace=namespace, name=reference["name"])):
                return
            wanted = self.role_rules(reference, namespace)
        held = self.rules(user, namespace)
        missing = [rule for rule in wanted if not _covered(rule, held)]
        if missing:
            listed = "\n".join(_compact(rule) for rule in missing)
            groups = " ".join(f'"{group}"' for group in user.groups)
            why = (
                f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently'
                f" held:\n{listed}"
            )
            raise status.forbidden(plural, GROUP, obj["metadata"]["name"], why)


def _compact(rule: Object) -> str:
    """A rule as the real server prints what somebody may not grant."""
    parts = []
    for name, label in _RULE_FIELDS.items():
        if rule.get(name):
            values = " ".join(f'"{item}"' for item in rule[name])
            parts.append(f"{label}:[{values}]")
    return f"{{{', '.join(parts)}}}"


def denied(user: User, attributes: Attributes) -> ApiError:
    if attributes.path:
        message = f'forbidden: User "{user.name}" cannot {attributes.verb} path "{attributes.path}"'
        return ApiError(403, "Forbidden", message, {})
    resource = attributes.resource + (f"/{attributes.subresource}" if attributes.subresource else "")
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {attributes.verb} resource "{resource}" in API group "{attributes.group}" {where}'
    return status.forbidden(attributes.resource, attributes.group, attributes.name, why)


def _binds(binding: Object, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or []:
        kind, name = subject.get("kind"), subject.get("name")
        if kind == "User" and name == user.name:
            return True
        if kind == "Group" and name in user.groups:
            return True
        if kind == "ServiceAccount":
            home = subject.get("namespace") or namespace
            if user.name == f"system:serviceaccount:{home}:{name}":
                return True
    return False


def _allows(rule: Object, wanted: Attributes) -> bool:
    verbs = rule.get("verbs") or []
    if wanted.verb not in verbs and "*" not in verbs:
        return False
    if wanted.path:
        return any(
            path in ("*", wanted.path) or (path.endswith("*") and wanted.path.startswith(path[:-1]))
            for path in rule.get("nonResourceURLs") or []
        )
    groups = rule.get("apiGroups") or []
    if wanted.group not in groups and "*" not in groups:
        return False
    names = rule.get("resourceNames") or []
    if names and wanted.name not in names:
        return False
    resources = rule.get("resources") or []
    if wanted.subresource:
        full = f"{wanted.resource}/{wanted.subresource}"
        return "*" in resources or full in resources or f"*/{wanted.subresource}" in resources
    return "*" in resources or wanted.resource in resources


def _covered(rule: Object, held: list[Object]) -> bool:
    for verb in rule.get("verbs") or []:
        for path in rule.get("nonResourceURLs") or []:
            if not any(_allows(own, Attributes(verb, path=path)) for own in held):
                return False
        for group in rule.get("apiGroups") or []:
            for full in rule.get("resources") or []:
                resource, _, subresource = full.partition("/")
                for name in rule.get("resourceNames") or [""]:
                    wanted = Attributes(verb, group, resource, subresource, name=name)
                    if not any(_allows(own, wanted) for own in held):
                        return False
    return True
