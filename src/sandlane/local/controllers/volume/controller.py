"""The volume controller: woken by PersistentVolumeClaims, PersistentVolumes and the Pods that use them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

from sandlane.kube.errors import AlreadyExists, Conflict
from sandlane.kube.resource import PERSISTENT_VOLUME_CLAIMS as CLAIMS
from sandlane.kube.resource import PERSISTENT_VOLUMES as VOLUMES
from sandlane.kube.resource import PODS, Key, Object
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access
from sandlane.local.controllers.volume.plan import (
    PROVISIONED_BY,
    PROVISIONER,
    bound,
    choose,
    may_be_made,
    new_volume,
    reference,
)
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result


class VolumeController:
    """Binds each claim to a volume: a given one that suits it, or a new folder below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        (
            Controller.managed_by(manager)
            .for_(CLAIMS, Unstructured)
            .watches(VOLUMES, to_requests=self._claims_of_volume)
            .watches(PODS, to_requests=_claims_of_pod)
            .named("volume")
            .complete(self)
        )

    def _claims_of_volume(self, record: Unstructured) -> Iterable[Key]:
        """The claim that has it; a free volume may suit any claim that waits."""
        ref = (record.object().get("spec") or {}).get("claimRef")
        if ref:
            return [Key(ref.get("namespace", ""), ref.get("name", ""))]
        waiting = (each for each in self._access.store(CLAIMS) if not each.object()["spec"].get("volumeName"))
        return [each.metadata.key for each in waiting]

    async def reconcile(self, request: Request) -> Result:
        """One step of one claim, and of the volumes that former claims of its name have left."""
        claim = self._access.get(CLAIMS, request)
        volumes = self._access.all(VOLUMES, "")
        for volume in volumes:
            ref = volume["spec"].get("claimRef") or {}
            left = ref.get("uid") and (claim is None or ref["uid"] != claim["metadata"]["uid"])
            if left and (ref.get("namespace"), ref.get("name")) == request and not self._used(Key(*request)):
                await self._release(volume)
        if claim is None or "deletionTimestamp" in claim["metadata"]:
            return Result.done()
        chosen = choose(claim, volumes)
        if chosen is None and may_be_made(claim):
            try:
                chosen = await self._access.create(VOLUMES, new_volume(claim, str(self._folder)))
            except AlreadyExists:
                return Result.requeue()  # the cache does not tell of it yet
        if chosen is not None:
            await self._bind(claim, chosen)
        return Result.done()

    async def _bind(self, claim: Object, volume: Object) -> None:
        """The volume first: two claims may want it, and only one of their writes fits its resourceVersion."""
        metadata = volume["metadata"]
        if (volume["spec"].get("claimRef") or {}).get("uid") != claim["metadata"]["uid"]:
            volume = await self._access.patch(
                VOLUMES,
                volume,
                {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": {"claimRef": reference(claim)}},
            )
        if (volume.get("status") or {}).get("phase") != "Bound":
            await self._access.write_status(VOLUMES, volume, {"phase": "Bound"})
        if claim["spec"].get("volumeName") != metadata["name"]:
            claim = await self._access.patch(CLAIMS, claim, {"spec": {"volumeName": metadata["name"]}})
        await self._access.write_status(CLAIMS, claim, bound(volume))

    async def _release(self, volume: Object) -> None:
        """Its claim is gone: what was made for it goes, too; what somebody else made is kept for them."""
        ours = (volume["metadata"].get("annotations") or {}).get(PROVISIONED_BY) == PROVISIONER
        if ours and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            folder = self._folder / volume["metadata"]["name"]
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            await self._access.delete(VOLUMES, volume)
        else:
            try:
                await self._access.write_status(VOLUMES, volume, {"phase": "Released"})
            except Conflict:
                return  # it has changed: its change wakes us again

    def _used(self, claim: Key) -> bool:
        """Whether some Pod still has the claim."""
        return any(claim in _claims_of_pod(record) for record in self._access.store(PODS).list(claim.namespace))


def _claims_of_pod(record: Unstructured) -> list[Key]:
    volumes = (record.object().get("spec") or {}).get("volumes") or ()
    names = [(volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in volumes]
    return [Key(record.metadata.namespace, name) for name in names if name]
