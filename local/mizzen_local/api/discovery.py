"""Discovery: which groups, versions and resources there are, in the legacy documents and the aggregated one."""

from __future__ import annotations

from mizzen_local.api.registry import Registry, ResourceInfo
from mizzen_local.client import Object

VERSION: Object = {
    "major": "1",
    "minor": "37",
    "emulationMajor": "1",
    "emulationMinor": "37",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "36",
    "gitVersion": "v1.37.0",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.25.0",
    "compiler": "gc",
    "platform": "linux/amd64",
}

# subresources that answer with another kind than their resource's
_OTHER_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "eviction": ("policy", "v1", "Eviction"),
    "binding": ("", "v1", "Binding"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
    "proxy": ("", "v1", "NodeProxyOptions"),
}
_VERBS = {
    "token": ["create"],
    "eviction": ["create"],
    "binding": ["create"],
    "finalize": ["update"],
    "log": ["get"],
    "exec": ["create", "get"],
    "attach": ["create", "get"],
    "portforward": ["create", "get"],
    "proxy": ["create", "delete", "get", "patch", "update"],
}


def api_versions(address: str) -> Object:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group_list(registry: Registry) -> Object:
    groups = [group(name, versions) for name, versions in registry.groups().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def resource_list(registry: Registry, group_name: str, version: str) -> Object | None:
    infos = [info for info in registry.infos() if (info.group, info.version) == (group_name, version)]
    if not infos:
        return None
    resources = []
    for info in sorted(infos, key=lambda item: item.plural):
        resources.append(_legacy(info))
        for name in info.subresources:
            group_of, version_of, kind = _subresource_kind(info, name)
            entry: Object = {
                "name": f"{info.plural}/{name}",
                "singularName": "",
                "namespaced": info.namespaced,
                "kind": kind,
                "verbs": _VERBS.get(name, ["get", "patch", "update"]),
            }
            if (group_of, version_of) != (info.group, info.version):
                entry |= {"group": group_of, "version": version_of}
            resources.append(entry)
    full = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": full, "resources": resources}


def _legacy(info: ResourceInfo) -> Object:
    entry: Object = {
        "name": info.plural,
        "singularName": info.singular,
        "namespaced": info.namespaced,
        "kind": info.kind,
        "verbs": list(info.verbs),
    }
    if info.short_names:
        entry["shortNames"] = list(info.short_names)
    if info.categories:
        entry["categories"] = list(info.categories)
    return entry


def _subresource_kind(info: ResourceInfo, name: str) -> tuple[str, str, str]:
    return _OTHER_KINDS.get(name, (info.group, info.version, info.kind))


def aggregated(registry: Registry, core: bool, api_version: str) -> Object:
    """APIGroupDiscoveryList of the core group or of all others."""
    items = []
    for name, versions in registry.groups().items():
        if (name == "") != core:
            continue
        listed = [
            {"version": version, "resources": _aggregated_resources(registry, name, version), "freshness": "Current"}
            for version in versions
        ]
        items.append({"metadata": {"name": name, "creationTimestamp": None}, "versions": listed})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}


def _aggregated_resources(registry: Registry, group_name: str, version: str) -> list[Object]:
    found = []
    for info in sorted(registry.infos(), key=lambda item: item.plural):
        if (info.group, info.version) != (group_name, version):
            continue
        entry: Object = {
            "resource": info.plural,
            "responseKind": {"group": info.group, "version": info.version, "kind": info.kind},
            "scope": "Namespaced" if info.namespaced else "Cluster",
            "singularResource": info.singular,
            "verbs": list(info.verbs),
        }
        if info.short_names:
            entry["shortNames"] = list(info.short_names)
        if info.categories:
            entry["categories"] = list(info.categories)
        if info.subresources:
            entry["subresources"] = [_aggregated_subresource(info, name) for name in info.subresources]
        found.append(entry)
    return found


def _aggregated_subresource(info: ResourceInfo, name: str) -> Object:
    group_of, version_of, kind = _subresource_kind(info, name)
    return {
        "subresource": name,
        "responseKind": {"group": group_of, "version": version_of, "kind": kind},
        "verbs": _VERBS.get(name, ["get", "patch", "update"]),
    }
