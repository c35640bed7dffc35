"""Questions about access that are answered and never stored: SubjectAccessReview and its relatives, TokenReview."""

from __future__ import annotations

from typing import Any

from mizzen_local.api import status as answers
from mizzen_local.api.auth import Authenticator, User
from mizzen_local.api.rbac import Attributes, Authorizer
from mizzen_local.client import Object

_ACCESS = dict.fromkeys(("verb", "group", "version", "resource", "subresource", "namespace", "name", "path"), str)
_SHAPE: Object = {
    "spec": {
        **dict.fromkeys(("token", "user", "uid", "namespace"), str),
        "groups": [str],
        "audiences": [str],
        "resourceAttributes": _ACCESS,
        "nonResourceAttributes": _ACCESS,
        "expirationSeconds": int,
        "boundObjectRef": dict.fromkeys(("kind", "apiVersion", "name", "uid"), str),
    },
}


def decoded(kind: str, body: Any) -> Object:
    """The body of a review or a TokenRequest; raises 400 where a field has the wrong type."""
    _check(kind, body, _SHAPE, "")
    found: Object = body
    return found


def _check(kind: str, value: Any, shape: Any, path: str) -> None:
    wanted: type[Any] = dict if isinstance(shape, dict) else list if isinstance(shape, list) else shape
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise answers.bad_request(
            f"{kind} cannot be handled: json: cannot unmarshal {type(value).__name__} into field {path or '.'}"
            f" of type {wanted.__name__}"
        )
    if isinstance(shape, list):
        for item in value:
            _check(kind, item, shape[0], f"{path}[]")
    if isinstance(shape, dict):
        for name, inner in shape.items():
            if value.get(name) is not None:
                _check(kind, value[name], inner, f"{path}.{name}")


def answer(plural: str, namespace: str, body: Object, user: User, authn: Authenticator, authz: Authorizer) -> Object:
    """The review with its status filled in."""
    spec = body.get("spec") or {}
    if plural == "selfsubjectreviews":
        return {**body, "status": {"userInfo": _user_info(user)}}
    if plural == "tokenreviews":
        found = authn.by_token(spec.get("token") or "", spec.get("audiences") or [])
        if found is None:
            return {**body, "status": {"authenticated": False, "error": "invalid bearer token", "user": {}}}
        status: Object = {"authenticated": True, "user": _user_info(found)}
        if spec.get("audiences"):
            status["audiences"] = authn.shared_audiences(spec["token"], spec["audiences"])
        return {**body, "status": status}
    if plural == "selfsubjectrulesreviews":
        return {**body, "status": _rules(authz, user, spec.get("namespace", ""))}
    if plural != "selfsubjectaccessreviews":
        user = User(spec.get("user") or "", tuple(spec.get("groups") or ()))
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
