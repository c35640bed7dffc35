"""The traffic of a ModelService as a reference for drift: the profiles of all its servers, merged."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

from mizzen.data.profiles import Profile
from mizzen_api.contract import PATH_PROFILE
from mizzen_api.workload import LiveReference

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10
MAX_BYTES = 256 * 2**20
ASKED_AT_ONCE = 16


def traffic(service: LiveReference, least_rows: int) -> tuple[Profile | None, str]:
    """The profile of the service's recent requests, or why there is none to compare with."""
    name = f"ModelService {service.name!r}"
    if not service.addresses:
        return None, f"{name} has no server that is ready"
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        answers = list(pool.map(_asked, service.addresses))
    for address, answer in zip(service.addresses, answers, strict=True):
        if isinstance(answer, str):
            log.warning("%s: no profile from %s: %s", name, address, answer)
    profiles = [answer for answer in answers if isinstance(answer, Profile)]
    failures = [answer for answer in answers if isinstance(answer, str)]
    merged = _merged(profiles)
    if merged is None:
        why = f": {failures[0]}" if failures else ""
        return None, f"none of {len(service.addresses)} servers of {name} tells of a request{why}"
    if merged.rows < least_rows:
        return None, f"{name} has seen {merged.rows} rows lately, and spec.drift.minRows is {least_rows}"
    return merged, ""


def _asked(address: str) -> Profile | str | None:
    """A server's profile; None where it has answered no request yet, and text where it cannot be had."""
    try:
        with urlopen(Request(f"http://{address}{PATH_PROFILE}"), timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            return f"its profile is larger than {MAX_BYTES >> 20} MiB"
        profile: dict[str, Any] | None = json.loads(text)["profile"]
        return Profile.from_json(json.dumps(profile)) if profile else None
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def _merged(profiles: Sequence[Profile]) -> Profile | None:
    """Of profiles with the same columns; during a roll-out there may be others: those with the most rows count."""
    groups: list[Profile] = []
    for profile in profiles:
        for group in groups:
            try:
                group.merge(profile)
                break
            except ValueError:
                continue
        else:
            groups.append(profile)
    return max(groups, key=lambda group: group.rows, default=None)
