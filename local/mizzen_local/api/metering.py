"""ResourceQuota admission: between an object that is ready to be stored and its commit, in one step with it.

Nothing can come between looking at a quota and spending from it: two requests never spend the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from mizzen_local import quotas
from mizzen_local.api import status
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.client import Object
from mizzen_local.objects import meta, utc_now
from mizzen_local.quantities import texts
from mizzen_local.quotas import Charge, QuotaError

if TYPE_CHECKING:
    from mizzen_local.api.machinery import Machinery

QUOTAS = "/resourcequotas"


def charges(machinery: Machinery, info: ResourceInfo, obj: Object, old: Object | None = None) -> list[Charge]:
    """What storing the object costs the quotas of its namespace; 403 where one of them has no room for it."""
    namespace = meta(obj).get("namespace") or ""
    found = [entry.obj for entry in machinery.store.entries(QUOTAS, namespace)] if namespace else []
    if not found or not quotas.is_metered(info.bucket, obj, old):
        return []
    try:
        return quotas.charges(found, info.bucket, obj, old, utc_now())
    except QuotaError as error:
        raise status.forbidden(info.plural, info.group, meta(obj)["name"], str(error)) from error


def spend(machinery: Machinery, found: list[Charge]) -> None:
    from mizzen_local.api.machinery import WriteOptions

    info = machinery.registry.get("", "v1", "resourcequotas")
    assert info is not None
    for charge in found:
        body: Object = orjson.loads(orjson.dumps(charge.quota))
        body["status"]["used"] = texts(charge.used)
        options = WriteOptions("kube-apiserver", validation="Ignore")
        machinery.update(info, meta(body)["namespace"], meta(body)["name"], body, options, "status")
