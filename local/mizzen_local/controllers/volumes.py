"""Volumes: gives each PersistentVolumeClaim a PersistentVolume that is a folder of this machine."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from mizzen_local.client import ApiError, Client, Object
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.objects import Key, key_of, meta
from mizzen_local.recorder import Recorder
from mizzen_local.resources import CLAIMS, VOLUMES

_PROVISIONER = "mizzen.dev/local-folder"


def volume_for(claim: Object, folder: Path) -> Object:
    spec = claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{meta(claim)['uid']}",
            "annotations": {"pv.kubernetes.io/provisioned-by": _PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": ((spec.get("resources") or {}).get("requests") or {}).get("storage", "1Gi")},
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec.get("storageClassName") or "",
            "volumeMode": "Filesystem",
            "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta(claim)["namespace"],
                "name": meta(claim)["name"],
                "uid": meta(claim)["uid"],
            },
        },
    }


class VolumeController:
    def __init__(self, client: Client, informers: Informers, root: Path) -> None:
        self.client, self.root, self.recorder = client, root, Recorder(client, _PROVISIONER)
        self.claims, self.volumes = informers.of(CLAIMS), informers.of(VOLUMES)
        self.worker = Worker[Key]("volume", self.reconcile, workers=1)
        self.claims.on_change(lambda claim: self.worker.queue.add(key_of(claim)))
        self.volumes.on_change(self._volume_changed)

    def _volume_changed(self, volume: Object) -> None:
        claim = volume["spec"].get("claimRef") or {}
        if claim:
            self.worker.queue.add((claim["namespace"], claim["name"]))

    async def reconcile(self, key: Key) -> float | None:
        claim = self.claims.get(key)
        await self._reclaim(key, meta(claim)["uid"] if claim else "")
        if claim is None or meta(claim).get("deletionTimestamp"):
            return None
        if (claim.get("status") or {}).get("phase") == "Bound":
            return None
        name = claim["spec"].get("volumeName") or f"pvc-{meta(claim)['uid']}"
        volume = self.volumes.get(("", name))
        if volume is None:
            if claim["spec"].get("volumeName") and name != f"pvc-{meta(claim)['uid']}":
                return None  # waits for the volume that it names
            folder = self.root / key[0] / key[1]
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            volume = await self.client.create(VOLUMES, volume_for(claim, folder))
            self.volumes.observe(volume)
            self.recorder.event(
                claim,
                "PersistentVolumeClaim",
                "ProvisioningSucceeded",
                f"Successfully provisioned volume {name} in {folder}",
            )
        if claim["spec"].get("volumeName") != name:
            patch = {"spec": {"volumeName": name}}
            claim = await self.client.patch(CLAIMS, key[1], patch, key[0])
        bound = {"phase": "Bound", "accessModes": volume["spec"]["accessModes"], "capacity": volume["spec"]["capacity"]}
        self.claims.observe(await self.client.patch(CLAIMS, key[1], {"status": bound}, key[0], subresource="status"))
        await self.client.patch(VOLUMES, name, {"status": {"phase": "Bound"}}, subresource="status")
        return None

    async def _reclaim(self, key: Key, uid: str) -> None:
        """Delete volumes, and their folders, whose claim is gone."""
        if not self.claims.synced.is_set():
            return
        for volume in list(self.volumes.cache.values()):
            spec = volume["spec"]
            reference = spec.get("claimRef") or {}
            if (reference.get("namespace"), reference.get("name")) != key or reference.get("uid") == uid:
                continue
            if spec.get("persistentVolumeReclaimPolicy") != "Delete":
                continue
            folder = Path((spec.get("hostPath") or {}).get("path") or "")
            if self.root in folder.parents and not uid:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            try:
                await self.client.delete(VOLUMES, meta(volume)["name"])
            except ApiError as error:
                if error.code != 404:
                    raise
