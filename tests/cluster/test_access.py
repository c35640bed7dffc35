"""Who may do what: RBAC and its words, tokens, reviews, anonymous callers; and the Leases and Events of clients."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster.client import MERGE, Answer, Cluster, Http, Object, eventually
from tests.cluster.objects import IMAGE, config_map, pod

RBAC = "rbac.authorization.k8s.io/v1"


def claims(token: str) -> Object:
    body = token.split(".")[1]
    found: Object = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def role(name: str, *rules: Object, kind: str = "Role") -> Object:
    return {"apiVersion": RBAC, "kind": kind, "metadata": {"name": name}, "rules": list(rules)}


def allow(resources: str, verbs: str, group: str = "", names: str = "") -> Object:
    found = {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}
    return {**found, "resourceNames": names.split()} if names else found


def binding(name: str, account: str, of: str | None = None, kind: str = "Role") -> Object:
    return {
        "apiVersion": RBAC,
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": of or name},
    }


class Account:
    """A ServiceAccount, and a client that speaks with its token."""

    def __init__(self, name: str, namespace: str, http: Http) -> None:
        self.name, self.namespace, self.http = name, namespace, http

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}"


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> str:
    """An account that may read ConfigMaps, change one of them, list Deployments, and manage roles."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}}
    rules = [
        allow("configmaps", "get list watch create"),
        allow("configmaps", "patch", names="allowed"),
        allow("deployments deployments/scale", "get list", "apps"),
        allow("roles rolebindings", "get create update patch", "rbac.authorization.k8s.io"),
    ]
    cluster.apply(account, role("operator", *rules), binding("operator", "operator"))
    cluster.apply(config_map("allowed", a="1"), config_map("other", a="1"))
    return "operator"


@pytest.fixture
async def account(http: Http, cluster: Cluster, operator: str) -> AsyncIterator[Account]:
    found = await http.ok("POST", http.path("serviceaccounts", operator, "token"), {"spec": {}})
    async with await Http.connect(cluster, token=found["status"]["token"]) as client:
        yield Account(operator, cluster.namespace, client)


def forbidden(answer: Answer, account: Account, words: str) -> None:
    assert (answer.code, answer.reason) == (403, "Forbidden"), answer.body
    assert answer.message.endswith(f' is forbidden: User "{account.user}" cannot {words}'), answer.message


async def test_what_is_allowed_works(account: Account) -> None:
    http = account.http
    assert (await http.get("configmaps", "allowed"))["data"] == {"a": "1"}
    assert (await http.patch("configmaps", "allowed", {"data": {"b": "2"}}))["data"]["b"] == "2"
    seen = await http.seen(http.path("configmaps"), 1, fieldSelector="metadata.name=allowed")
    assert seen == [("ADDED", "allowed")]


@pytest.mark.parametrize(
    ("method", "resource", "name", "verb", "group"),
    [
        ("GET", "secrets", "", "list", ""),
        ("GET", "secrets", "x", "get", ""),
        ("DELETE", "configmaps", "other", "delete", ""),
        ("DELETE", "configmaps", "", "deletecollection", ""),
        ("PUT", "configmaps", "allowed", "update", ""),
        ("PATCH", "configmaps", "other", "patch", ""),
        ("POST", "apps/v1/deployments", "", "create", "apps"),
    ],
)
async def test_what_is_not_allowed_is_forbidden(
    account: Account, method: str, resource: str, name: str, verb: str, group: str
) -> None:
    plural = resource.rpartition("/")[2]
    body = {"metadata": {"name": name}} if method in ("PUT", "PATCH", "POST") else None
    media = MERGE if method == "PATCH" else "application/json"
    answer = await account.http.call(method, account.http.path(resource, name), body, media=media)
    where = f'in API group "{group}" in the namespace "{account.namespace}"'
    forbidden(answer, account, f'{verb} resource "{plural}" {where}')
    details = {"kind": plural, **({"name": name} if name else {}), **({"group": group} if group else {})}
    assert answer.body["details"] == details
    qualified = f"{plural}.{group}" if group else plural
    assert answer.message.startswith(f'{qualified} "{name}" is' if name else f"{qualified} is")


async def test_subresources_are_granted_apart(account: Account) -> None:
    answer = await account.http.call("GET", account.http.path("pods", "x", "log"))
    forbidden(answer, account, f'get resource "pods/log" in API group "" in the namespace "{account.namespace}"')
    answer = await account.http.call("GET", account.http.path("apps/v1/deployments", "absent", "scale"))
    assert (answer.code, answer.reason) == (404, "NotFound")
    change = {"spec": {"replicas": 1}}
    answer = await account.http.call(
        "PATCH", account.http.path("apps/v1/deployments", "absent", "scale"), change, media=MERGE
    )
    where = f'in API group "apps" in the namespace "{account.namespace}"'
    forbidden(answer, account, f'patch resource "deployments/scale" {where}')


async def test_a_role_ends_at_its_namespace(account: Account) -> None:
    answer = await account.http.call("GET", "/api/v1/configmaps")
    forbidden(answer, account, 'list resource "configmaps" in API group "" at the cluster scope')
    answer = await account.http.call("GET", "/api/v1/namespaces/kube-system/configmaps")
    forbidden(answer, account, 'list resource "configmaps" in API group "" in the namespace "kube-system"')
    answer = await account.http.call("GET", "/api/v1/nodes")
    forbidden(answer, account, 'list resource "nodes" in API group "" at the cluster scope')


async def test_access_is_asked_for_before_anything_is_looked_up(account: Account) -> None:
    answer = await account.http.call("GET", "/apis/no.such.group/v1/things")
    forbidden(answer, account, 'list resource "things" in API group "no.such.group" at the cluster scope')


async def test_paths_are_granted_too(account: Account) -> None:
    for path in ("/api", "/apis", "/version", "/openapi/v3", "/livez"):
        assert (await account.http.call("GET", path)).code == 200, path
    answer = await account.http.call("GET", "/metrics")
    assert (answer.code, answer.message) == (403, f'forbidden: User "{account.user}" cannot get path "/metrics"')


async def test_a_change_of_a_role_holds_at_once(http: Http, account: Account) -> None:
    path = account.http.path("secrets")
    assert (await account.http.call("GET", path)).code == 403
    await http.create(f"{RBAC}/roles", role("secrets", allow("secrets", "list")))
    await http.create(f"{RBAC}/rolebindings", binding("secrets", account.name))

    async def answers(code: int) -> bool:
        return (await account.http.call("GET", path)).code == code

    await eventually("the right", lambda: answers(200))
    await http.delete(f"{RBAC}/rolebindings", "secrets")
    await eventually("its end", lambda: answers(403))


async def test_nobody_grants_what_they_do_not_have(account: Account) -> None:
    http = account.http
    answer = await http.call("POST", http.path(f"{RBAC}/roles"), role("greedy", allow("secrets", "get list")))
    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert 'roles.rbac.authorization.k8s.io "greedy" is forbidden: user ' in answer.message
    assert f'user "{account.user}" (groups=["system:serviceaccounts"' in answer.message
    assert "is attempting to grant RBAC permissions not currently held:" in answer.message
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}' in answer.message
    await http.ok("POST", http.path(f"{RBAC}/roles"), role("modest", allow("configmaps", "get")))
    answer = await http.call("PUT", http.path(f"{RBAC}/roles", "modest"), role("modest", allow("configmaps", "delete")))
    assert (answer.code, answer.reason) == (403, "Forbidden")
    body = binding("climb", account.name, "cluster-admin", "ClusterRole")
    answer = await http.call("POST", http.path(f"{RBAC}/rolebindings"), body)
    assert (answer.code, answer.reason) == (403, "Forbidden")
    await http.ok("POST", http.path(f"{RBAC}/rolebindings"), binding("modest", account.name))


async def test_a_bindings_role_stays(http: Http) -> None:
    await http.create(f"{RBAC}/rolebindings", binding("fixed", "default", "view", "ClusterRole"))
    change = {"roleRef": {"name": "edit"}}
    answer = await http.call("PATCH", http.path(f"{RBAC}/rolebindings", "fixed"), change, media=MERGE)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert "roleRef: Invalid value" in answer.message and "cannot change roleRef" in answer.message


@pytest.mark.parametrize("token", ["wrong", "a.b.c"])
async def test_a_wrong_token_is_unauthorized(cluster: Cluster, token: str) -> None:
    async with await Http.connect(cluster, token=token) as nobody:
        answer = await nobody.call("GET", nobody.path("configmaps"))
    assert (answer.code, answer.reason, answer.message) == (401, "Unauthorized", "Unauthorized")
    assert answer.body["kind"] == "Status"


async def test_without_a_token_nothing_is_told(cluster: Cluster) -> None:
    """Some clusters call such a client system:anonymous and forbid, others do not know it at all."""
    async with await Http.connect(cluster, token="") as nobody:
        for path in (nobody.path("configmaps"), "/apis", "/openapi/v3"):
            answer = await nobody.call("GET", path)
            assert (answer.code, answer.reason) in ((401, "Unauthorized"), (403, "Forbidden")), path


async def test_a_token_is_for_an_account(http: Http, account: Account) -> None:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 1200}}
    found = await http.ok("POST", http.path("serviceaccounts", account.name, "token"), body)
    assert found["kind"] == "TokenRequest" and found["status"]["expirationTimestamp"].endswith("Z")
    said = claims(found["status"]["token"])
    assert said["sub"] == account.user
    assert said["exp"] - said["iat"] >= 1200
    assert said["kubernetes.io"]["serviceaccount"]["name"] == account.name
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    review |= {"spec": {"token": found["status"]["token"]}}
    status = (await http.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]
    assert status["authenticated"] is True
    assert status["user"]["username"] == account.user
    assert "system:serviceaccounts" in status["user"]["groups"]


async def test_a_token_names_its_audience(http: Http, account: Account, cluster: Cluster) -> None:
    path = http.path("serviceaccounts", account.name, "token")
    token = (await http.ok("POST", path, {"spec": {"audiences": ["elsewhere"]}}))["status"]["token"]
    assert claims(token)["aud"] == ["elsewhere"]
    async with await Http.connect(cluster, token=token) as visitor:
        assert (await visitor.call("GET", visitor.path("configmaps"))).code == 401
    review: Object = {"spec": {"token": token, "audiences": ["elsewhere", "x"]}}
    status = (await http.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]
    assert (status["authenticated"], status["audiences"]) == (True, ["elsewhere"])
    review = {"spec": {"token": token}}
    status = (await http.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]
    assert not status.get("authenticated")


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        ({"expirationSeconds": 60}, 422, "may not specify a duration less than 10 minutes"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "absent"}}, 404, 'pods "absent" not found'),
    ],
)
async def test_a_token_request_is_checked(http: Http, account: Account, spec: Object, code: int, said: str) -> None:
    answer = await http.call("POST", http.path("serviceaccounts", account.name, "token"), {"spec": spec})
    assert answer.code == code, answer.body
    assert said in answer.message


async def test_a_token_dies_with_what_it_is_bound_to(http: Http, cluster: Cluster, operator: str) -> None:
    body = pod("bound", {"name": "c", "image": IMAGE}, schedulingGates=[{"name": "a.test/gate"}])
    body["spec"]["serviceAccountName"] = operator
    made = await http.create("pods", body)
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "bound", "uid": made["metadata"]["uid"]}
    path = http.path("serviceaccounts", operator, "token")
    token = (await http.ok("POST", path, {"spec": {"boundObjectRef": reference}}))["status"]["token"]
    assert claims(token)["kubernetes.io"]["pod"]["name"] == "bound"
    async with await Http.connect(cluster, token=token) as client:
        assert (await client.call("GET", client.path("configmaps"))).code == 200
        await http.delete("pods", "bound")

        async def refused() -> bool:
            return (await client.call("GET", client.path("configmaps"))).code == 401

        await eventually("the token's end", refused)


async def test_an_account_that_is_deleted_is_nobody(http: Http, cluster: Cluster) -> None:
    await http.create("serviceaccounts", {"metadata": {"name": "brief"}})
    token = (await http.ok("POST", http.path("serviceaccounts", "brief", "token"), {}))["status"]["token"]
    async with await Http.connect(cluster, token=token) as client:
        assert (await client.call("GET", "/apis")).code == 200
        await http.delete("serviceaccounts", "brief")

        async def refused() -> bool:
            return (await client.call("GET", "/apis")).code == 401

        await eventually("the token's end", refused)


def access(verb: str, resource: str, namespace: str, **more: str) -> Object:
    return {"resourceAttributes": {"verb": verb, "resource": resource, "namespace": namespace, **more}}


async def review(http: Http, kind: str, spec: Object, namespace: str = "") -> Object:
    where = f"/namespaces/{namespace}" if namespace else ""
    path = f"/apis/authorization.k8s.io/v1{where}/{kind.lower()}s"
    body: Object = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    if namespace:
        body["metadata"] = {"namespace": namespace}
    found: Object = (await http.ok("POST", path, body))["status"]
    return found


async def test_one_may_ask_what_one_may(account: Account) -> None:
    for verb, resource, allowed in (("get", "configmaps", True), ("delete", "configmaps", False)):
        spec = access(verb, resource, account.namespace)
        assert (await review(account.http, "SelfSubjectAccessReview", spec))["allowed"] is allowed
    spec = access("patch", "configmaps", account.namespace, name="allowed")
    assert (await review(account.http, "SelfSubjectAccessReview", spec))["allowed"] is True
    spec = {"nonResourceAttributes": {"verb": "get", "path": "/version"}}
    assert (await review(account.http, "SelfSubjectAccessReview", spec))["allowed"] is True
    found = await review(account.http, "SelfSubjectRulesReview", {"namespace": account.namespace})
    rules = [rule for rule in found["resourceRules"] if "configmaps" in rule["resources"]]
    assert any({"get", "list", "watch", "create"} <= set(rule["verbs"]) for rule in rules)
    assert any(rule.get("resourceNames") == ["allowed"] for rule in rules)


async def test_who_may_ask_about_others(http: Http, account: Account) -> None:
    spec = {"user": account.user, **access("get", "configmaps", account.namespace)}
    assert (await review(http, "SubjectAccessReview", spec))["allowed"] is True
    found = await review(http, "SubjectAccessReview", {**spec, "user": "nobody"})
    assert not found["allowed"]
    assert (await review(http, "LocalSubjectAccessReview", spec, account.namespace))["allowed"] is True
    answer = await account.http.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
    assert (answer.code, answer.reason) == (403, "Forbidden")


async def test_one_may_ask_who_one_is(account: Account) -> None:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    found = await account.http.ok("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    assert found["status"]["userInfo"]["username"] == account.user
    assert "system:authenticated" in found["status"]["userInfo"]["groups"]


def test_kubectl_asks_and_impersonates(cluster: Cluster, operator: str) -> None:
    user = f"--as=system:serviceaccount:{cluster.namespace}:{operator}"
    assert cluster.kubectl("auth", "can-i", "get", "configmaps", user).strip() == "yes"
    assert cluster.refused("auth", "can-i", "get", "secrets", user).startswith("no")
    assert "configmaps" in cluster.kubectl("auth", "can-i", "--list", user)
    said = cluster.refused("get", "secrets", user)
    assert said.startswith("Error from server (Forbidden): secrets is forbidden: User")
    assert cluster.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")


async def test_aggregated_roles_gather_rules(http: Http) -> None:
    label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    name = f"gathered-{http.namespace}"
    part = role(name, allow("gathered", "get", "suite.test"), kind="ClusterRole")
    part["metadata"]["labels"] = label
    await http.ok("POST", f"/apis/{RBAC}/clusterroles", part)
    try:

        async def gathered() -> bool:
            found = await http.ok("GET", f"/apis/{RBAC}/clusterroles/view")
            return any("gathered" in rule.get("resources", []) for rule in found["rules"] or [])

        await eventually("the role to gather", gathered)
    finally:
        await http.ok("DELETE", f"/apis/{RBAC}/clusterroles/{name}")


async def test_a_lease_is_won_by_one(http: Http) -> None:
    """How replicas elect a leader: the one whose version is the present one holds the lease."""
    spec: Object = {"holderIdentity": "one", "leaseDurationSeconds": 15, "leaseTransitions": 0}
    spec["acquireTime"] = spec["renewTime"] = "2026-01-01T00:00:00.000000Z"
    leases = "coordination.k8s.io/v1/leases"
    made = await http.create(leases, {"metadata": {"name": "leader"}, "spec": spec})
    assert made["spec"]["renewTime"] == "2026-01-01T00:00:00.000000Z"
    path = http.path(leases, "leader")
    taken = {**made, "spec": {**spec, "holderIdentity": "two", "leaseTransitions": 1}}
    assert (await http.ok("PUT", path, taken))["spec"]["holderIdentity"] == "two"
    late = {**made, "spec": {**spec, "renewTime": "2026-01-01T00:00:05.000000Z"}}
    assert (await http.call("PUT", path, late)).reason == "Conflict"
    answer = await http.call("PATCH", path, {"spec": {"leaseDurationSeconds": 0}}, media=MERGE)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert "must be greater than 0" in answer.message


def event(name: str, about: Object, **more: Any) -> Object:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": about["metadata"]["name"]}
    reference |= {"namespace": about["metadata"]["namespace"], "uid": about["metadata"]["uid"]}
    body = {"metadata": {"name": name}, "involvedObject": reference, "reason": "Tested", "message": "a test looked"}
    return {**body, "type": "Normal", "source": {"component": "suite"}, "count": 1, **more}


async def test_events_tell_of_objects(http: Http, cluster: Cluster) -> None:
    about = await http.create("configmaps", config_map("eventful"))
    moment = "2026-01-01T00:00:00Z"
    await http.create("events", event("first.1", about, firstTimestamp=moment, lastTimestamp=moment))
    selector = f"involvedObject.uid={about['metadata']['uid']},reason=Tested,type=Normal"
    found = await http.get("events", fieldSelector=selector)
    assert [item["metadata"]["name"] for item in found["items"]] == ["first.1"]
    await http.patch("events", "first.1", {"count": 2})
    assert "a test looked" in cluster.kubectl("describe", "configmap/eventful")
    assert "Tested" in cluster.kubectl("events", "--for", "configmap/eventful")


async def test_both_event_groups_show_the_same_events(http: Http) -> None:
    about = await http.create("configmaps", config_map("noted"))
    body = {
        "metadata": {"name": "noted.1"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "suite.test/controller",
        "reportingInstance": "suite-1",
        "action": "Testing",
        "reason": "Noted",
        "note": "written in the new form",
        "type": "Normal",
        "regarding": {
            "apiVersion": "v1", "kind": "ConfigMap", "name": "noted", "namespace": http.namespace,
            "uid": about["metadata"]["uid"],
        },
    }  # fmt: skip
    made = await http.create("events.k8s.io/v1/events", body)
    old = await http.get("events", "noted.1")
    assert (old["message"], old["involvedObject"]["name"]) == ("written in the new form", "noted")
    assert (old["reportingComponent"], old["metadata"]["uid"]) == ("suite.test/controller", made["metadata"]["uid"])
    listed = await http.get("events.k8s.io/v1/events", fieldSelector="reason=Noted")
    assert [item["note"] for item in listed["items"]] == ["written in the new form"]


async def test_an_event_stays_with_its_object(http: Http) -> None:
    about = await http.create("configmaps", config_map("elsewhere"))
    body = event("elsewhere.1", about)
    body["involvedObject"]["namespace"] = "default"
    answer = await http.call("POST", http.path("events"), body)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert "involvedObject.namespace: Invalid value" in answer.message
