"""Which resources are served: the built-in table and whatever the stored CustomResourceDefinitions add."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from mizzen_local.api import definitions, eventforms, schema
from mizzen_local.api.builtins import BUILTINS, Builtin
from mizzen_local.client import Object

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(eq=False)
class ResourceInfo:
    """One served resource in one version."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: dict[str, Object] = field(default_factory=dict)
    generation: bool = False
    crd: Object | None = None
    crd_version: Object | None = None
    storage_version: str = ""
    virtual: bool = False  # answered but never stored, such as SubjectAccessReview
    verbs: tuple[str, ...] = ALL_VERBS

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def bucket(self) -> str:
        return eventforms.BUCKET if self.group == eventforms.GROUP else f"{self.group}/{self.plural}"

    @cached_property
    def list_kind(self) -> str:
        if self.crd is not None:
            return str(self.crd["spec"]["names"].get("listKind") or f"{self.kind}List")
        return f"{self.kind}List"

    @cached_property
    def schema(self) -> schema.Node:
        if self.crd_version is not None:
            return schema.crd_root(self.crd_version.get("schema", {}).get("openAPIV3Schema", {}))
        return schema.named(self.definition)

    @property
    def definition(self) -> str:
        """The name of this kind's schema in OpenAPI documents."""
        if self.crd is not None:
            return ".".join([*reversed(self.group.split(".")), self.version, self.kind])
        return definitions.name_of(self.group, self.version, self.kind)

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources


class Registry:
    """All served resources by group, version and plural; a CRD changes it while the server runs."""

    def __init__(self) -> None:
        self._infos: dict[tuple[str, str, str], ResourceInfo] = {}
        self._kinds: dict[tuple[str, str, str], ResourceInfo] = {}
        self.generation = 0  # counts changes, so that discovery and OpenAPI know when their cached pages are old
        for builtin in BUILTINS:
            self._add(_from_builtin(builtin))

    def _add(self, info: ResourceInfo) -> None:
        self._infos[info.group, info.version, info.plural] = info
        self._kinds[info.group, info.version, info.kind] = info
        self.generation += 1

    def get(self, group: str, version: str, plural: str) -> ResourceInfo | None:
        return self._infos.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> ResourceInfo | None:
        return self._kinds.get((group, version, kind))

    def infos(self) -> list[ResourceInfo]:
        return list(self._infos.values())

    def groups(self) -> dict[str, list[str]]:
        """Group to its versions, the preferred one first; the core group is empty."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._infos:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return {group: sorted(versions, key=version_priority) for group, versions in found.items()}

    def stored(self) -> list[ResourceInfo]:
        """Every stored resource once, whatever the number of its served versions."""
        unique: dict[str, ResourceInfo] = {}
        for info in self._infos.values():
            if not info.virtual:
                unique.setdefault(info.bucket, info)
        return list(unique.values())

    def set_crd(self, crd: Object) -> None:
        """Serve (or serve anew) what the definition says."""
        self.remove_crd(crd)
        for info in crd_infos(crd):
            self._add(info)

    def remove_crd(self, crd: Object) -> None:
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        for key, info in list(self._infos.items()):
            if key[0] == group and key[2] == plural and info.crd is not None:
                del self._infos[key]
                self._kinds.pop((info.group, info.version, info.kind), None)
                self.generation += 1


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Sort key by the Kubernetes rule: v2 before v1 before v1beta1 before v1alpha1."""
    import re

    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), "")


def _from_builtin(builtin: Builtin) -> ResourceInfo:
    return ResourceInfo(
        group=builtin.group,
        version=builtin.version,
        plural=builtin.plural,
        singular=builtin.kind.lower(),
        kind=builtin.kind,
        namespaced=builtin.namespaced,
        short_names=builtin.short_names,
        categories=builtin.categories,
        subresources={name: {} for name in builtin.subresources},
        generation=builtin.generation,
        storage_version=builtin.version,
        virtual=builtin.virtual,
        verbs=builtin.verbs or (("create",) if builtin.virtual else ALL_VERBS),
    )


def crd_infos(crd: Object) -> list[ResourceInfo]:
    spec = crd["spec"]
    names = spec["names"]
    storage = next((version["name"] for version in spec["versions"] if version.get("storage")), "")
    return [
        ResourceInfo(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            singular=names.get("singular") or names["kind"].lower(),
            kind=names["kind"],
            namespaced=spec.get("scope") == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            subresources=version.get("subresources") or {},
            generation=True,
            crd=crd,
            crd_version=version,
            storage_version=storage,
        )
        for version in spec["versions"]
        if version.get("served")
    ]
