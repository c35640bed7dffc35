"""Why pods are not ready, in words: what `mizzen up` adds when the chart did not come up."""

from __future__ import annotations

from mizzen_local.client import ApiError, Object
from mizzen_local.http_client import HttpClient
from mizzen_local.objects import is_true
from mizzen_local.resources import PODS

_LINES = 5


async def troubles(client: HttpClient, namespace: str) -> list[str]:
    """One paragraph for each pod that should be ready and is not: the reason, and the last lines of its log."""
    found = []
    for pod in (await client.list(PODS, namespace))["items"]:
        status = pod.get("status") or {}
        if not is_true(pod, "Ready") and status.get("phase") != "Succeeded":
            found.append(await _trouble(client, pod, status))
    return found


async def _trouble(client: HttpClient, pod: Object, status: Object) -> str:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    lines = [f"pod {name} is {status.get('phase', 'Pending')}"]
    for condition in status.get("conditions") or []:
        if condition["status"] == "False" and condition.get("message"):
            lines.append(f"  {condition['type']}: {condition['message']}")
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if container.get("ready"):
            continue
        for state in (container.get("state") or {}).values():
            if state.get("reason"):
                lines.append(f"  {container['name']}: {state['reason']}: {state.get('message', '')}".rstrip(" :"))
        lines += [f"    {line}" for line in await _last_lines(client, namespace, name, container)]
    return "\n".join(lines)


async def _last_lines(client: HttpClient, namespace: str, name: str, container: Object) -> list[str]:
    previous = container.get("restartCount", 0) > 0 and "running" not in (container.get("state") or {})
    try:
        text = await client.log(namespace, name, container["name"], lines=_LINES, previous=previous)
    except ApiError:
        return []
    return text.splitlines()
