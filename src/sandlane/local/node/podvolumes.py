"""The volumes of one Pod: makes their folders, fills them, keeps them up to date, and says what to mount where.

`PodVolumes.keep` is one task of the Pod's group: it writes files again when what they are made of changes, and tokens
before they end.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import KubeError, NotFound
from sandlane.kube.resource import SERVICE_ACCOUNTS, Object
from sandlane.kube.transport import Request
from sandlane.local.node.atomic import write_volume
from sandlane.local.node.environment import ConfigMissing, expand
from sandlane.local.node.payload import (
    ACCOUNT_FOLDER,
    ACCOUNT_VOLUME,
    WRITTEN,
    VolumeMissing,
    VolumeUnsupported,
    account_volume,
    mounted_volumes,
    needs_account,
    payload,
    references,
    token_sources,
    volume_type,
)
from sandlane.local.node.view import Mount

log = structlog.get_logger(__name__)

Find = Callable[[str, str, str], Awaitable[Object | None]]
"""Gives what volumes are made of, ConfigMaps and the like: (kind, namespace, name)."""
RENEW_AFTER = 0.8
"""Part of a token's life after which it is renewed, as the kubelet does."""
RETRY = 5.0
_HOST_TYPES: dict[str, Callable[[int], bool]] = {
    "Directory": stat.S_ISDIR,
    "DirectoryOrCreate": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "FileOrCreate": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}


class _Token(msgspec.Struct):
    text: str
    renew_at: float


class PodVolumes:
    """The volumes of one Pod, in its folder. `views` is why there are no mount views, empty when there are."""

    def __init__(
        self, folder: Path, find: Find, client: Client, clock: Clock, node_ip: str, address: str, views: str
    ) -> None:
        self.changed = asyncio.Event()
        """Set it when an object that the volumes are made of, or the Pod itself, has changed."""
        self.views = views
        self._folder = folder / "volumes"
        self._find = find
        self._client = client
        self._clock = clock
        self._node_ip = node_ip
        self._address = address
        self._volumes: list[Object] = []
        self._account = False
        self._tokens: dict[tuple[str, int], _Token] = {}
        self._references: set[tuple[str, str]] = set()

    def refers_to(self, kind: str, name: str) -> bool:
        """Whether an object of the Pod's namespace is part of a volume."""
        return (kind, name) in self._references

    async def prepare(self, pod: Object) -> None:
        """Make all volumes that are mounted. Raises `VolumeMissing`, `VolumeUnsupported` and `KubeError`."""
        namespace = pod["metadata"]["namespace"]
        self._volumes = [await self._claimed(namespace, volume) for volume in mounted_volumes(pod)]
        for volume in self._volumes:
            kind = volume_type(volume)
            if kind not in (*WRITTEN, "emptyDir", "hostPath"):
                raise VolumeUnsupported(
                    f'volume "{volume["name"]}" is of type {kind}, which this node does not have: it has '
                    f"{', '.join(WRITTEN)}, emptyDir, hostPath and persistentVolumeClaim"
                )
        if self._volumes and self.views:
            names = ", ".join(volume["name"] for volume in self._volumes)
            raise VolumeUnsupported(f"volumes ({names}) cannot be mounted on this machine: {self.views}")
        if self.views:
            return
        account = await self._find("ServiceAccount", namespace, _account_name(pod))
        self._account = needs_account(pod, account)
        if self._account:
            self._volumes.append(account_volume())
        self._references = {each for volume in self._volumes for each in references(volume)}
        for volume in self._volumes:
            try:
                await self._make(pod, volume)
            except VolumeMissing as error:
                raise VolumeMissing(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
            except OSError as error:
                raise VolumeMissing(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error

    async def _claimed(self, namespace: str, volume: Object) -> Object:
        """A volume itself, or what its claim is bound to. Raises `VolumeMissing` while there is no such thing."""
        source = volume.get("persistentVolumeClaim")
        if source is None:
            return volume
        name = source["claimName"]
        claim = await self._find("PersistentVolumeClaim", namespace, name)
        if claim is None:
            raise VolumeMissing(f'persistentvolumeclaim "{name}" not found')
        bound = claim["spec"].get("volumeName") if (claim.get("status") or {}).get("phase") == "Bound" else None
        found = await self._find("PersistentVolume", "", bound) if bound else None
        if found is None:
            raise VolumeMissing(f'persistentvolumeclaim "{name}" is not bound to a volume yet')
        kind = next((kind for kind in ("hostPath", "local") if kind in found["spec"]), "")
        if not kind:
            raise VolumeUnsupported(
                f'volume "{volume["name"]}" is PersistentVolume {bound}, which is neither hostPath nor local'
            )
        return {"name": volume["name"], "hostPath": found["spec"][kind]}

    async def keep(self, pod: Callable[[], Object]) -> None:
        """Keep the files up to date until cancelled."""
        while True:
            await self._wait()
            self.changed.clear()
            for volume in self._volumes:
                if volume_type(volume) not in WRITTEN:
                    continue
                try:
                    await self._make(pod(), volume)
                except (VolumeMissing, KubeError, OSError) as error:
                    log.warning("volume_not_updated", volume=volume["name"], error=str(error))

    async def _wait(self) -> None:
        if not self._tokens:
            await self.changed.wait()
            return
        due = min(token.renew_at for token in self._tokens.values()) - self._clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            waits = [
                tasks.create_task(self._clock.sleep(max(due, RETRY))),
                tasks.create_task(self.changed.wait()),
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _make(self, pod: Object, volume: Object) -> None:
        kind = volume_type(volume)
        if kind == "hostPath":
            _check_host_path(volume["hostPath"])
            return
        folder = self._folder / volume["name"]
        if kind == "emptyDir":
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            return
        namespace = pod["metadata"]["namespace"]
        found = {(what, name): await self._find(what, namespace, name) for what, name in references(volume)}
        for audience, seconds in token_sources(volume):
            await self._renew(pod, audience, seconds)
        pod = {**pod, "status": {**(pod.get("status") or {}), "podIP": self._address}}
        files = payload(
            volume,
            pod,
            lambda what, name: found.get((what, name)),
            lambda audience, seconds: self._tokens[audience, seconds].text,
            self._node_ip,
        )
        write_volume(folder, files)

    async def _renew(self, pod: Object, audience: str, seconds: int) -> None:
        """A fresh token, unless the one that we have is good for long enough."""
        known = self._tokens.get((audience, seconds))
        now = self._clock.monotonic()
        if known is not None and now < known.renew_at:
            return
        metadata = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"expirationSeconds": seconds, "boundObjectRef": bound} | ({"audiences": [audience]} if audience else {})
        body = msgspec.json.encode(
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        account = _account_name(pod)
        path = SERVICE_ACCOUNTS.path(metadata["namespace"], account, "token")
        try:
            answer = await self._client.request(Request("POST", path, (), {"content-type": "application/json"}, body))
        except NotFound as error:
            raise VolumeMissing(f'failed to fetch token: serviceaccounts "{account}" not found') from error
        text = msgspec.json.decode(answer.body)["status"]["token"]
        self._tokens[audience, seconds] = _Token(text, now + seconds * RENEW_AFTER)

    # -- mounts -----------------------------------------------------------------------------------------

    def mounts(self, container: Object, env: Mapping[str, str]) -> list[Mount]:
        """What a container mounts. Raises `ConfigMissing` for a `subPath` that cannot be had."""
        by_name = {volume["name"]: volume for volume in self._volumes}
        made: list[Mount] = []
        for mount in container.get("volumeMounts") or ():
            volume = by_name[mount["name"]]
            written = volume_type(volume) in WRITTEN
            source = self._source(volume)
            path = expand(mount.get("subPathExpr") or "", env) or mount.get("subPath") or ""
            if path:
                try:
                    source = _below(source, path, make=not written)
                except (OSError, ValueError) as error:
                    where = f'subPath "{path}" of volumeMount "{mount["name"]}" of container "{container["name"]}"'
                    raise ConfigMissing(f"failed to prepare {where}: {error}") from error
            read_only = written or bool(mount.get("readOnly"))
            made.append({"source": str(source), "target": mount["mountPath"], "read_only": read_only})
        if self._account and all(mount["target"].rstrip("/") != ACCOUNT_FOLDER for mount in made):
            folder = str(self._folder / ACCOUNT_VOLUME)
            made.append({"source": folder, "target": ACCOUNT_FOLDER, "read_only": True})
        return made

    def _source(self, volume: Object) -> Path:
        """Where a volume's files are."""
        if volume_type(volume) == "hostPath":
            return Path(str(volume["hostPath"]["path"]))
        return self._folder / str(volume["name"])


def _account_name(pod: Object) -> str:
    return str(pod["spec"].get("serviceAccountName") or pod["spec"].get("serviceAccount") or "default")


def _below(folder: Path, path: str, *, make: bool) -> Path:
    """A path within a volume, wherever links lead. Raises `ValueError` when that is out of the volume."""
    root = folder.resolve()
    target = (root / path.lstrip("/")).resolve()
    if target != root and root not in target.parents:
        raise ValueError("it leads out of the volume")
    if make and not target.exists():
        target.mkdir(mode=0o755, parents=True)
    os.stat(target)
    return target


def _check_host_path(source: Object) -> None:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    if not path.exists():
        raise VolumeMissing(f"hostPath type check failed: {path} does not exist")
    if kind in _HOST_TYPES and not _HOST_TYPES[kind](path.stat().st_mode):
        raise VolumeMissing(f"hostPath type check failed: {path} is not of type {kind}")
