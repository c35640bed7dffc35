"""Questions about access that are answered and never stored: SubjectAccessReview and its relatives, TokenReview."""

from __future__ import annotations

from mizzen_local.api.auth import Authenticator, User
from mizzen_local.api.rbac import Attributes, Authorizer
from mizzen_local.client import Object


def answer(plural: str, namespace: str, body: Object, user: User, authn: Authenticator, authz: Authorizer) -> Object:
    """The review with its status filled in."""
    spec = body.get("spec") or {}
    if plural == "selfsubjectreviews":
        return {**body, "status": {"userInfo": _user_info(user)}}
    if plural == "tokenreviews":
        found = authn.by_token(spec.get("token", ""), spec.get("audiences") or [])
        if found is None:
            return {**body, "status": {"authenticated": False, "error": "invalid bearer token", "user": {}}}
        status: Object = {"authenticated": True, "user": _user_info(found)}
        if spec.get("audiences"):
            status["audiences"] = spec["audiences"]
        return {**body, "status": status}
    if plural == "selfsubjectrulesreviews":
        return {**body, "status": _rules(authz, user, spec.get("namespace", ""))}
    if plural != "selfsubjectaccessreviews":
        user = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
    attributes = _attributes(spec, namespace if plural == "localsubjectaccessreviews" else "")
    allowed = authz.allowed(user, attributes)
    return {**body, "status": {"allowed": allowed, **({"reason": "RBAC: allowed"} if allowed else {})}}


def _attributes(spec: Object, namespace: str) -> Attributes:
    path = spec.get("nonResourceAttributes")
    if path:
        return Attributes(path.get("verb", ""), path=path.get("path", ""))
    asked = spec.get("resourceAttributes") or {}
    return Attributes(
        asked.get("verb", ""),
        asked.get("group", ""),
        asked.get("resource", ""),
        asked.get("subresource", ""),
        asked.get("namespace", "") or namespace,
        asked.get("name", ""),
    )


def _rules(authz: Authorizer, user: User, namespace: str) -> Object:
    if "system:masters" in user.groups:
        everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        paths = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
        return {"resourceRules": [everything], "nonResourceRules": paths, "incomplete": False}
    rules = authz.rules(user, namespace)
    return {
        "resourceRules": [rule for rule in rules if rule.get("resources")],
        "nonResourceRules": [
            {"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]}
            for rule in rules
            if rule.get("nonResourceURLs")
        ],
        "incomplete": False,
    }


def _user_info(user: User) -> Object:
    info: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    return {**info, "extra": user.extra} if user.extra else info
