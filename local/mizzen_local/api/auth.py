"""Who asks: the admin's bearer token, and ServiceAccount tokens that this server signs and checks (JWT, ES256)."""

from __future__ import annotations

import base64
import hmac
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from mizzen_local.api import status
from mizzen_local.api.machinery import Machinery
from mizzen_local.client import Object

ISSUER = "https://kubernetes.default.svc.cluster.local"
_MAX_AGE = 365 * 24 * 3600
_CACHE_SIZE = 4096


@dataclass(frozen=True)
class User:
    """An identity with its groups."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict, hash=False, compare=False)


ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


class Authenticator:
    """Tokens to users. A ServiceAccount token dies with its account, and with its pod where it is bound to one."""

    def __init__(self, machinery: Machinery, admin_token: str, key: ec.EllipticCurvePrivateKey) -> None:
        self._machinery, self._admin, self._key = machinery, admin_token, key
        self._verified: dict[str, Object] = {}

    def user(self, authorization: str) -> User:
        """The user of an Authorization header; raises 401."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise status.unauthorized()
        found = self.by_token(token.strip())
        if found is None:
            raise status.unauthorized()
        return found

    def by_token(self, token: str, audiences: Iterable[str] = ()) -> User | None:
        if hmac.compare_digest(token.encode(), self._admin.encode()):
            return ADMIN
        claims = self._claims(token)
        if claims is None or claims["exp"] < time.time():
            return None
        wanted = set(audiences) or {ISSUER}
        if not wanted & set(claims.get("aud") or []):
            return None
        return self._service_account(claims)

    def shared_audiences(self, token: str, wanted: list[str]) -> list[str]:
        """Which of the wanted audiences a valid token is for; the admin's is for all."""
        claims = self._claims(token)
        return wanted if claims is None else [name for name in wanted if name in (claims.get("aud") or [])]

    def _claims(self, token: str) -> Object | None:
        known = self._verified.get(token)
        if known is not None:
            return known
        try:
            head, body, signature = token.split(".")
            raw = _unpack(signature)
            half = len(raw) // 2
            der = utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
            self._key.public_key().verify(der, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
            claims: Object = orjson.loads(_unpack(body))
        except (ValueError, InvalidSignature):
            return None
        if len(self._verified) >= _CACHE_SIZE:
            self._verified.clear()
        self._verified[token] = claims
        return claims

    def _service_account(self, claims: Object) -> User | None:
        private = claims["kubernetes.io"]
        namespace, account = private["namespace"], private["serviceaccount"]
        found = self._machinery.store.get("/serviceaccounts", namespace, account["name"])
        if found is None or found.obj["metadata"]["uid"] != account["uid"]:
            return None
        pod = private.get("pod")
        extra: dict[str, list[str]] = {}
        if pod:
            entry = self._machinery.store.get("/pods", namespace, pod["name"])
            if entry is None or entry.obj["metadata"]["uid"] != pod["uid"]:
                return None
            extra = {
                "authentication.kubernetes.io/pod-name": [pod["name"]],
                "authentication.kubernetes.io/pod-uid": [pod["uid"]],
            }
        return service_account_user(namespace, account["name"], account["uid"], extra)

    def request_token(self, namespace: str, name: str, body: Any) -> Object:
        """Answer a TokenRequest: a signed token for the account, bound to a pod or secret where asked."""
        account = self._machinery.store.get("/serviceaccounts", namespace, name)
        if account is None:
            raise status.not_found("serviceaccounts", "", name)
        spec = dict((body or {}).get("spec") or {})
        seconds = int(spec.get("expirationSeconds") or 3600)
        if seconds < 600:
            cause = status.invalid_value(
                "spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
            )
            raise status.invalid("TokenRequest", "authentication.k8s.io", name, [cause])
        seconds = min(seconds, _MAX_AGE)
        audiences = spec.get("audiences") or [ISSUER]
        now = int(time.time())
        private: Object = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account.obj["metadata"]["uid"]},
        }
        bound = spec.get("boundObjectRef")
        if bound:
            private.update(self._bound(namespace, bound))
        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "kubernetes.io": private,
        }
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + seconds))
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            },
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": self._sign(claims), "expirationTimestamp": expires},
        }

    def _bound(self, namespace: str, reference: Object) -> Object:
        kind, name = reference.get("kind", ""), reference.get("name", "")
        if kind not in ("Pod", "Secret"):
            raise status.bad_request(f"cannot bind token for serviceaccount to object of kind {kind!r}")
        entry = self._machinery.store.get(f"/{kind.lower()}s", namespace, name)
        if entry is None:
            raise status.not_found(f"{kind.lower()}s", "", name)
        uid = entry.obj["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record ({uid})"
            raise status.conflict(f"{kind.lower()}s", "", name, why)
        return {kind.lower(): {"name": name, "uid": uid}}

    def _sign(self, claims: Object) -> str:
        head = _pack(orjson.dumps({"alg": "ES256", "typ": "JWT", "kid": "mizzen-local"}))
        body = _pack(orjson.dumps(claims))
        der = self._key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(der)
        return f"{head}.{body}.{_pack(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def service_account_user(namespace: str, name: str, uid: str, extra: dict[str, list[str]]) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra)


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
