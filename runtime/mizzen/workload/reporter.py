"""The worker's end of the progress channel: a few hundred bytes over HTTP to the driver, and never an exception."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from typing import Any

from mizzen.workload.progress import PATH_REPORT, cluster_token

log = logging.getLogger(__name__)


def send(driver_url: str, report: dict[str, Any], timeout: float = 2.0) -> bool:
    """Tell the driver. False where it cannot be reached: training goes on, the next report brings the news."""
    request = urllib.request.Request(  # noqa: S310 (the driver's own address)
        driver_url + PATH_REPORT,
        data=json.dumps(report).encode(),
        headers={"Authorization": f"Bearer {cluster_token()}", "Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError) as error:
        log.warning("the driver at %s does not hear: %s", driver_url, error)
        return False
