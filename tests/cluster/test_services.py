"""Services: which pods are behind them, in EndpointSlices and through their address."""

from __future__ import annotations

from typing import Any

from tests.cluster.client import Http, eventually
from tests.cluster.objects import FOREVER, IMAGE, Object, deployment, pod, server, service, shell

SLICES = "discovery.k8s.io/v1/endpointslices"
GATE = {"exec": {"command": ["test", "-e", "/notes/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
NOTES = {"volumes": [{"name": "notes", "emptyDir": {}}]}
MOUNT = {"volumeMounts": [{"name": "notes", "mountPath": "/notes"}]}
WAITING = (
    "trap 'exit 0' TERM; while ! test -e /notes/go; do sleep 0.1; done; touch /notes/ready; while :; do sleep 0.1; done"
)


async def slices(http: Http, name: str) -> list[Object]:
    found: list[Object] = (await http.get(SLICES, labelSelector=f"kubernetes.io/service-name={name}"))["items"]
    return found


async def endpoints(http: Http, name: str) -> list[Object]:
    return [endpoint for piece in await slices(http, name) for endpoint in piece.get("endpoints") or []]


async def until(http: Http, name: str, ready: int, unready: int = 0) -> list[Object]:
    """The endpoints, once so many are ready and so many not."""

    found: list[Object] = []

    async def look() -> bool:
        found[:] = await endpoints(http, name)
        states = [endpoint["conditions"]["ready"] for endpoint in found]
        return (states.count(True), states.count(False)) == (ready, unready)

    await eventually(f"{ready} ready endpoints of {name}, {unready} others", look)
    return found


def ports(piece: Object) -> list[tuple[Any, ...]]:
    return [(port.get("name"), port.get("port"), port.get("protocol")) for port in piece.get("ports") or []]


async def test_only_ready_pods_are_behind_a_service(http: Http) -> None:
    container = shell(WAITING, readinessProbe=GATE, ports=[{"name": "http", "containerPort": 8000}], **MOUNT)
    body = pod("shy", container, restartPolicy="Always", **NOTES)
    await http.create("pods", body)
    for name, more in (("shy", {}), ("shy-all", {"publishNotReadyAddresses": True})):
        await http.create("services", service(name, selector={"app": "shy"}, **more))
    (endpoint,) = await until(http, "shy", 0, 1)
    assert endpoint["conditions"] == {"ready": False, "serving": False, "terminating": False}
    found = await http.until("pods", "shy", "an address", lambda p: p["status"].get("podIP"))
    reference = {"kind": "Pod", "namespace": http.namespace, "name": "shy", "uid": found["metadata"]["uid"]}
    assert endpoint["addresses"] == [found["status"]["podIP"]] and endpoint["targetRef"] == reference
    assert endpoint["nodeName"] == found["spec"]["nodeName"]
    (endpoint,) = await until(http, "shy-all", 1)
    assert endpoint["conditions"] == {"ready": True, "serving": False, "terminating": False}
    (piece,) = await slices(http, "shy")
    assert ports(piece) == [("http", 8000, "TCP")] and piece["addressType"] == "IPv4"
    assert piece["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    (owner,) = piece["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Service", "shy", True)
    assert piece["metadata"]["name"].startswith("shy-")
    old = await http.get("endpoints", "shy")
    (subset,) = old["subsets"]
    assert "addresses" not in subset and subset["notReadyAddresses"][0]["targetRef"]["name"] == "shy"
    await http.delete("pods", "shy", gracePeriodSeconds=0)
    await until(http, "shy", 0)
    await http.delete("services", "shy")

    async def gone() -> bool:
        return not await slices(http, "shy")

    await eventually("its slices to go", gone)
    await http.until_gone("endpoints", "shy")


async def test_a_headless_service_has_endpoints_and_no_address(http: Http) -> None:
    await http.create("pods", pod("bare", shell(FOREVER)))
    made = await http.create("services", service("bare", clusterIP="None"))
    assert made["spec"]["clusterIP"] == "None" and made["spec"]["clusterIPs"] == ["None"]
    await until(http, "bare", 1)
    (piece,) = await slices(http, "bare")
    assert piece["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert not piece.get("ports"), "a named port that no container has leads nowhere"
    await http.patch("services", "bare", {"spec": {"ports": [{"name": "raw", "port": 81, "targetPort": 82}]}})

    async def changed() -> bool:
        return [ports(piece) for piece in await slices(http, "bare")] == [[("raw", 82, "TCP")]]

    await eventually("the other port", changed)
    await http.delete("pods", "bare", gracePeriodSeconds=0)


async def test_a_pod_that_ends_still_serves(http: Http) -> None:
    """Terminating endpoints tell whether they still answer."""
    slow = {"preStop": {"exec": {"command": ["sleep", "3"]}}}
    body = pod("going", shell(FOREVER, lifecycle=slow), terminationGracePeriodSeconds=30)
    await http.create("pods", body)
    await http.create("services", service("going", ports=[{"port": 80}]))
    await until(http, "going", 1)
    await http.delete("pods", "going")
    (endpoint,) = await until(http, "going", 0, 1)
    assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}
    await until(http, "going", 0)


async def test_a_service_without_a_selector_is_left_alone(http: Http) -> None:
    await http.create("services", service("by-hand", selector=None, ports=[{"port": 80}]))
    body = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "by-hand-1", "labels": {"kubernetes.io/service-name": "by-hand"}},
        "endpoints": [{"addresses": ["192.0.2.7"]}], "ports": [{"name": "", "port": 80}],
    }  # fmt: skip
    await http.create(SLICES, body)
    await http.create("services", service("other", ports=[{"port": 80}]))
    await eventually("the other's slice", lambda: slices(http, "other"))
    (piece,) = await slices(http, "by-hand")
    assert piece["metadata"]["name"] == "by-hand-1"
    await http.delete(SLICES, "by-hand-1")


async def test_a_service_answers_at_its_address(http: Http) -> None:
    """From a pod, by its name and by its ClusterIP; with two pods behind it both answer."""
    await http.create("apps/v1/deployments", deployment("web", server("hello"), 2))
    made = await http.create("services", service("web"))
    await until(http, "web", 2)
    names = (f"web.{http.namespace}.svc.cluster.local", "web", made["spec"]["clusterIP"])
    script = "; ".join(f"wget -q -T 10 -O - http://{name}/ && echo" for name in names)
    await http.create("pods", pod("asks", {"name": "c", "image": IMAGE, "command": ["sh", "-c", f"set -e; {script}"]}))
    found = await http.until("pods", "asks", "its end", lambda p: p["status"]["phase"] in ("Succeeded", "Failed"))
    log = await http.call("GET", http.path("pods", "asks", "log"), accept="*/*")
    assert found["status"]["phase"] == "Succeeded" and str(log.body).split() == ["hello"] * 3
    await http.delete("apps/v1/deployments", "web")
