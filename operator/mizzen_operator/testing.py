"""A cluster in memory with cluster.py's interface, for tests of everything above it; part of the public API."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mizzen_api.workload import Progress
from mizzen_operator.errors import ClusterError
from mizzen_operator.observed import Missing, ModelAnswer, Traffic
from mizzen_operator.plan import Event, Manifest, Ref

_Key = tuple[str, str, str]


class InMemoryCluster:
    """Objects with uids, generations, owner-reference collection and Job immutability; no controllers.

    Tests play the controllers with `set_status` and `create`. `changes` counts writes that changed something, and
    `on_change` hears of each, as a watch would. `fail_next` lets the next calls raise.
    """

    def __init__(
        self, *, api_versions: tuple[str, ...] = ("mizzen.dev/v1alpha1", "gateway.networking.k8s.io/v1")
    ) -> None:
        self._objects: dict[_Key, Manifest] = {}
        self._uids = itertools.count(1)
        self._versions = itertools.count(1)
        self.api_versions = set(api_versions)
        self.events: list[tuple[Ref, Event]] = []
        self.changes = 0
        self.fail_next: list[ClusterError] = []
        self.on_change: Callable[[Manifest], None] = lambda manifest: None  # noqa: ARG005

    # What cluster.py offers

    async def get(self, ref: Ref) -> Manifest | None:
        self._maybe_fail()
        found = self._objects.get(_key(ref))
        return copy.deepcopy(found) if found else None

    async def list(self, api_version: str, kind: str, namespace: str, labels: dict[str, str]) -> list[Manifest]:
        self._maybe_fail()
        return [
            copy.deepcopy(found)
            for found in self.all(kind)
            if found["apiVersion"] == api_version
            and found["metadata"]["namespace"] == namespace
            and labels.items() <= found["metadata"].get("labels", {}).items()
        ]

    async def events_about(self, about: Ref) -> Sequence[Manifest]:
        self._maybe_fail()
        return [copy.deepcopy(e) for e in self.all("Event") if e["involvedObject"].get("uid") == about.uid]

    async def nodes(self) -> Sequence[Manifest]:
        self._maybe_fail()
        return [copy.deepcopy(node) for node in self.all("Node")]

    async def serves(self, api_version: str) -> bool:
        return api_version in self.api_versions

    async def apply(self, manifest: Manifest) -> None:
        self._maybe_fail()
        self.create(manifest)

    async def patch(self, ref: Ref, body: Manifest) -> None:
        self._maybe_fail()
        found = self._objects.get(_key(ref))
        if found is not None:
            self._store({**found, **_merged(found, body)})

    async def apply_status(self, ref: Ref, status: dict[str, Any]) -> None:
        self._maybe_fail()
        found = self._objects.get(_key(ref))
        if found is not None:
            self._store({**found, "status": copy.deepcopy(status)})

    async def delete(self, ref: Ref) -> None:
        self._maybe_fail()
        found = self._objects.get(_key(ref))
        if found is not None and ref.uid in {"", found["metadata"]["uid"]}:
            self.remove(found)

    async def publish(self, about: Ref, event: Event) -> None:
        self.events.append((about, event))

    # What tests do in the place of users, controllers and the kubelet

    def create(self, manifest: Manifest) -> Manifest:
        """Create or apply; a changed spec is a new generation. What has lost its owner is collected at once."""
        wanted = copy.deepcopy(manifest)
        owners = {owner["uid"] for owner in wanted["metadata"].get("ownerReferences", [])}
        if owners and owners.isdisjoint(found["metadata"]["uid"] for found in self._objects.values()):
            return wanted
        wanted["metadata"].setdefault("namespace", "default")
        old = self._objects.get(_key(Ref.of(wanted)))
        if old is None:
            wanted["metadata"] |= {"uid": f"uid-{next(self._uids)}", "generation": 1}
            wanted["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        else:
            _check_immutable(old, wanted)
            same = old.get("spec") == wanted.get("spec")
            kept = {key: old["metadata"][key] for key in ("uid", "creationTimestamp")}
            wanted["metadata"] |= {**kept, "generation": old["metadata"]["generation"] + (not same)}
            if "status" in old:
                wanted.setdefault("status", old["status"])
        return self._store(wanted)

    def set_status(self, ref: Ref, status: dict[str, Any]) -> None:
        found = self._objects.get(_key(ref))
        if found is not None:
            self._store({**found, "status": status})

    def remove(self, manifest: Manifest) -> None:
        """With all that it owns."""
        found = self._objects.pop(_key(Ref.of(manifest)), None)
        if found is None:
            return
        self.changes += 1
        self.on_change(found)
        uid = found["metadata"]["uid"]
        for child in list(self._objects.values()):
            if any(owner["uid"] == uid for owner in child["metadata"].get("ownerReferences", [])):
                self.remove(child)

    def all(self, kind: str) -> Iterator[Manifest]:
        return iter([found for found in self._objects.values() if found["kind"] == kind])

    def one(self, kind: str, name: str, namespace: str = "default") -> Manifest:
        """KeyError where it does not exist."""
        return self._objects[kind, namespace, name]

    def _store(self, manifest: Manifest) -> Manifest:
        key = _key(Ref.of(manifest))
        old = self._objects.get(key)
        version = (old or {}).get("metadata", {}).get("resourceVersion")
        if old is not None and {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": version}} == old:
            return old
        stored = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(next(self._versions))}}
        self._objects[key] = stored
        self.changes += 1
        self.on_change(stored)
        return stored

    def _maybe_fail(self) -> None:
        if self.fail_next:
            raise self.fail_next.pop(0)


class InMemoryWorkloads:
    """What pods would answer, by IP."""

    def __init__(self) -> None:
        self.reports: dict[str, Progress] = {}
        self.counts: dict[str, Traffic] = {}

    async def progress(self, ip: str) -> Progress | None:
        await asyncio.sleep(0)
        return self.reports.get(ip)

    async def traffic(self, ip: str) -> Traffic | None:
        await asyncio.sleep(0)
        return self.counts.get(ip)


class InMemoryRegistry:
    """Answers by URI; what is not there is Missing."""

    def __init__(self) -> None:
        self.answers: dict[str, ModelAnswer] = {}

    async def resolve(self, uri: str) -> ModelAnswer:
        return self.answers.get(uri, Missing(f"{uri} is not in the registry"))


def _key(ref: Ref) -> _Key:
    return ref.kind, ref.namespace, ref.name


def _merged(target: Manifest, patch: Manifest) -> Manifest:
    """RFC 7396."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner = result.get(key)
            result[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            result[key] = value
    return result


def _check_immutable(old: Manifest, new: Manifest) -> None:
    if new["kind"] == "Job" and old["spec"]["template"] != new["spec"]["template"]:
        raise ClusterError(422, f"Job {new['metadata']['name']} is invalid: spec.template: field is immutable")
