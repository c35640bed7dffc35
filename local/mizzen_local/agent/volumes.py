"""Volumes of a pod: from the manifest to folders and files of this machine that the sandbox then mounts."""

from __future__ import annotations

import base64
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mizzen_local.agent import atomic_files
from mizzen_local.agent.environment import Fetch, expand, field_value, resource_value
from mizzen_local.client import ApiError, Object, Resource
from mizzen_local.http_client import HttpClient
from mizzen_local.resources import CLAIMS, CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, VOLUMES

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
_TOKEN_SECONDS = 3600
_RENEW_SECONDS = 30.0  # between two looks at what configMaps and secrets say by now
_ACCESS: Object = {
    "name": "kube-api-access",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]
    },
}


class VolumeError(Exception):
    """A volume cannot be made (yet): FailedMount, tried again."""


@dataclass(frozen=True)
class Mount:
    source: str
    target: str
    read_only: bool = False

    def json(self) -> dict[str, Any]:
        return {"source": self.source, "target": self.target, "read_only": self.read_only}


def memory_folder(uid: str) -> Path:
    """Where a pod's volumes of medium Memory are: containers of one pod share them, so they cannot be mounts of one."""
    return Path(f"/dev/shm/mizzen-{uid}")  # noqa: S108


class Volumes:
    """The volumes of one pod, under its folder; `renew_at` is when to look again what they show (epoch seconds)."""

    def __init__(
        self, client: HttpClient, pod: Object, folder: Path, fetch: Fetch, allocatable: dict[str, str]
    ) -> None:
        self._client, self._pod, self._folder, self._fetch = client, pod, folder, fetch
        self._allocatable = allocatable
        self._tokens: dict[tuple[str, str], tuple[float, bytes]] = {}  # with the moment from which they want renewing
        self.shared = memory_folder(pod["metadata"]["uid"])
        self.renew_at: float | None = None
        self._sources: dict[str, Path] = {}
        self._written: set[str] = set()  # volumes that only this node writes, so that pods cannot
        self._access = False

    def update(self, pod: Object) -> None:
        """A changed pod: the downward API may show it, and whoever changed it may want to see the rest, too."""
        if any(self._pod["metadata"].get(k) != pod["metadata"].get(k) for k in ("labels", "annotations")):
            self.renew_at = time.time() if self.renew_at else None
        self._pod = pod

    async def make(self) -> None:
        spec = self._pod["spec"]
        for volume in spec.get("volumes") or []:
            try:
                self._sources[volume["name"]] = await self._make(volume)
            except ApiError as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
        self._access = await self._wants_token()
        if self._access:
            try:
                self._sources[_ACCESS["name"]] = await self._make(_ACCESS)
            except ApiError as error:
                raise VolumeError(f"the service account's token could not be made: {error}") from error

    async def _wants_token(self) -> bool:
        """As the ServiceAccount admission plugin would, where the API server has none."""
        spec = self._pod["spec"]
        containers = [*spec["containers"], *(spec.get("initContainers") or [])]
        if any(m["mountPath"] == TOKEN_PATH for c in containers for m in c.get("volumeMounts") or []):
            return False
        if spec.get("automountServiceAccountToken") is not None:
            return bool(spec["automountServiceAccountToken"])
        try:
            account = await self._fetch(SERVICE_ACCOUNTS, spec.get("serviceAccountName") or "default")
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return account.get("automountServiceAccountToken") is not False

    def mounts(self, container: Object, env: dict[str, str]) -> list[Mount]:
        found = []
        for entry in container.get("volumeMounts") or []:
            source = self._sources[entry["name"]]
            sub = entry.get("subPath") or (expand(entry["subPathExpr"], env) if entry.get("subPathExpr") else "")
            if sub:
                if ".." in Path(sub).parts or Path(sub).is_absolute():
                    raise VolumeError(f"subPath {sub!r} must stay inside its volume")
                source /= sub
                if not source.exists():
                    source.mkdir(parents=True)
            read_only = bool(entry.get("readOnly")) or entry["name"] in self._written
            found.append(Mount(os.path.realpath(source), entry["mountPath"], read_only))
        if self._access:
            found.append(Mount(str(self._sources[_ACCESS["name"]]), TOKEN_PATH, True))
        return found

    def remove(self) -> None:
        shutil.rmtree(self.shared, ignore_errors=True)

    async def _make(self, volume: Object) -> Path:
        name: str = volume["name"]
        folder: Path = self._folder / name
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            return await self._claim(volume["persistentVolumeClaim"]["claimName"])
        if "emptyDir" in volume or set(volume) == {"name"}:
            if (volume.get("emptyDir") or {}).get("medium") == "Memory" and os.access("/dev/shm", os.W_OK):  # noqa: S108
                folder = self.shared / name
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            return folder
        for key in ("configMap", "secret", "downwardAPI", "projected"):
            if key in volume:
                source: Object = volume[key]
                sources: list[Object] = source["sources"] if key == "projected" else [{key: source}]
                files: dict[str, tuple[bytes, int]] = {}
                for part in sources:
                    files.update(await self._files(part, source.get("defaultMode", 0o644)))
                atomic_files.write(folder, files)
                self._written.add(name)
                renew = min([time.time() + _RENEW_SECONDS, *(moment for moment, _ in self._tokens.values())])
                self.renew_at = renew if self.renew_at is None else min(self.renew_at, renew)
                return folder
        kind = next(k for k in volume if k != "name")
        raise VolumeError(f'volume "{name}" is of kind {kind}, which this node does not have')

    async def _claim(self, name: str) -> Path:
        claim = await self._fetch(CLAIMS, name)
        if (claim.get("status") or {}).get("phase") != "Bound":
            raise VolumeError(f'PersistentVolumeClaim "{name}" is not bound yet')
        volume = await self._client.get(VOLUMES, claim["spec"]["volumeName"])
        source = volume["spec"].get("hostPath") or volume["spec"].get("local")
        if not source:
            raise VolumeError(f'PersistentVolume "{volume["metadata"]["name"]}" is not a folder of this node')
        path = Path(source["path"])
        path.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240
        return path

    async def _files(self, source: Object, mode: int) -> dict[str, tuple[bytes, int]]:
        kind, spec = next(iter(source.items()))
        if kind == "serviceAccountToken":
            return {spec["path"]: (await self._token(spec), 0o600)}
        if kind == "downwardAPI":
            return {item["path"]: (self._downward(item), item.get("mode", mode)) for item in spec.get("items") or []}
        if kind == "configMap":
            return await self._map_files(CONFIG_MAPS, spec["name"], spec, mode)
        if kind == "secret":
            return await self._map_files(SECRETS, spec.get("secretName") or spec["name"], spec, mode)
        raise VolumeError(f"projected volumes of {kind} are not supported on this node")

    async def _map_files(self, resource: Resource, name: str, spec: Object, mode: int) -> dict[str, tuple[bytes, int]]:
        try:
            found = await self._fetch(resource, name)
        except ApiError as error:
            if error.code != 404:
                raise
            if spec.get("optional"):
                return {}
            kind = resource.plural[:-1]
            raise ApiError(404, error.reason, f'{kind} "{name}" not found') from error
        if resource == SECRETS:
            data = {k: base64.b64decode(v) for k, v in (found.get("data") or {}).items()}
        else:
            data = {k: v.encode() for k, v in (found.get("data") or {}).items()}
            data.update({k: base64.b64decode(v) for k, v in (found.get("binaryData") or {}).items()})
        if not spec.get("items"):
            return {key: (value, mode) for key, value in data.items()}
        files = {}
        for item in spec["items"]:
            if item["key"] in data:
                files[item["path"]] = (data[item["key"]], item.get("mode", mode))
            elif not spec.get("optional"):
                kind = "secret" if resource == SECRETS else "config"
                prefix = "" if resource == SECRETS else "configmap "
                raise ApiError(404, "NotFound", f"{prefix}references non-existent {kind} key: {item['key']}")
        return files

    def _downward(self, item: Object) -> bytes:
        if "fieldRef" in item:
            return field_value(self._pod, item["fieldRef"]["fieldPath"]).encode()
        reference = item["resourceFieldRef"]
        spec = self._pod["spec"]
        every = [*spec["containers"], *(spec.get("initContainers") or [])]
        container = next(c for c in every if c["name"] == reference.get("containerName"))
        return resource_value(container, reference, self._allocatable).encode()

    async def _token(self, spec: Object) -> bytes:
        key = spec.get("audience") or "", spec["path"]
        known = self._tokens.get(key)
        if known and time.time() < known[0]:
            return known[1]
        seconds = int(spec.get("expirationSeconds") or _TOKEN_SECONDS)
        meta = self._pod["metadata"]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [spec["audience"]] if spec.get("audience") else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            },
        }
        account = self._pod["spec"].get("serviceAccountName") or "default"
        answer = await self._client.create(
            SERVICE_ACCOUNTS, request, meta["namespace"], name=account, subresource="token"
        )
        token = str(answer["status"]["token"]).encode()
        self._tokens[key] = time.time() + seconds * 0.8, token
        return token

    async def renew(self) -> None:
        self.renew_at = None
        await self.make()


def _host_path(source: Object) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch()
    if not path.exists():
        raise VolumeError(f"hostPath {path} does not exist on this node")
    return path
