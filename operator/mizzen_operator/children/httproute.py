"""HTTPRoute: one address for all variants of a ModelService, split by weight, with a header that picks one."""

from __future__ import annotations

from collections.abc import Mapping

from mizzen_api import ModelService
from mizzen_api.contract import HEADER_VARIANT, PORT_HTTP, ROLE_SERVER
from mizzen_operator import names
from mizzen_operator.children.meta import metadata
from mizzen_operator.plan import Manifest
from mizzen_operator.settings import Settings

API_VERSION = "gateway.networking.k8s.io/v1"


def http_route(service: ModelService, weights: Mapping[str, int], settings: Settings) -> Manifest:
    """`weights` by variant, in percent; a variant with weight 0 answers only those who name it in the header."""
    namespace, _, name = settings.gateway.rpartition("/")
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}
    return {
        "apiVersion": API_VERSION,
        "kind": "HTTPRoute",
        "metadata": metadata(service, service.metadata.name, ROLE_SERVER),
        "spec": {
            "parentRefs": [parent | ({"namespace": namespace} if namespace else {})],
            "rules": [
                *(_rule(service, {variant: 1}, header=variant) for variant in weights),
                _rule(service, weights),
            ],
        },
    }


def path(service: ModelService) -> str:
    return f"/{service.metadata.namespace}/{service.metadata.name}"


def _rule(service: ModelService, weights: Mapping[str, int], header: str = "") -> Manifest:
    match: Manifest = {"path": {"type": "PathPrefix", "value": path(service)}}
    if header:
        match["headers"] = [{"type": "Exact", "name": HEADER_VARIANT, "value": header}]
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    return {
        "matches": [match],
        "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
        "backendRefs": [
            {
                "group": "",
                "kind": "Service",
                "name": names.variant(service.metadata.name, variant),
                "port": PORT_HTTP,
                "weight": weight,
            }
            for variant, weight in weights.items()
        ],
    }
