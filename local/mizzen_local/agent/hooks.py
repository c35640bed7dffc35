"""Lifecycle hooks of a container: what is to be done after its start and before its end."""

from __future__ import annotations

import asyncio

import aiohttp

from mizzen_local.agent.containers import Container
from mizzen_local.agent.probes import http_url, trusting
from mizzen_local.client import Object


async def run(hook: Object, container: Container, spec: Object, host: str, seconds: float) -> str | None:
    """None when it went well, otherwise why it did not; gives up after that many seconds."""
    if "exec" in hook:
        code, output = await container.execute(hook["exec"]["command"], seconds)
        return None if code == 0 else output.strip() or f"command exited with {code}"
    if "sleep" in hook:
        await container.wait_ended(min(float(hook["sleep"]["seconds"]), seconds))
    elif "httpGet" in hook:
        return await _get(hook["httpGet"], spec, host, seconds)
    return None


async def _get(target: Object, spec: Object, host: str, seconds: float) -> str | None:
    """Any answer will do, as for the kubelet; only no answer is a failure."""
    url, headers = http_url(target, spec, host), {h["name"]: h["value"] for h in target.get("httpHeaders") or []}
    try:
        async with (
            asyncio.timeout(seconds),
            aiohttp.ClientSession(headers=headers) as session,
            session.get(url, ssl=trusting() if url.startswith("https") else False),
        ):
            return None
    except TimeoutError:
        return f"no answer within {seconds:g}s"
    except (OSError, aiohttp.ClientError) as error:
        return str(error) or type(error).__name__
