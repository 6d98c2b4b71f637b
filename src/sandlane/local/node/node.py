"""The process node: binds Pods to itself, runs each as local processes, and reports what they do.

`ProcessNode.run` owns one task per Pod and one that writes statuses. Nothing that it started outlives it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
from functools import partial

import msgspec
import structlog

from sandlane.kube.cache import Cache, Change
from sandlane.kube.client import Client, PatchType
from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.errors import Conflict, KubeError, NotFound
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import (
    CONFIG_MAPS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Key,
    Object,
)
from sandlane.kube.transport import Request
from sandlane.kube.unstructured import Unstructured
from sandlane.local.node.cpu_groups import CpuGroups
from sandlane.local.node.images import ImageMap
from sandlane.local.node.names import HostsFiles
from sandlane.local.node.pod import PodWorker, Prepared
from sandlane.local.node.podvolumes import PodVolumes
from sandlane.local.node.process import views_missing
from sandlane.local.node.recipes import Recipes
from sandlane.local.node.registration import NodeObject, NodeOptions
from sandlane.runtime.recorder import WARNING, EventRecorder

log = structlog.get_logger(__name__)

SCHEDULER = "default-scheduler"
_PARTS = {
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "PersistentVolumeClaim": PERSISTENT_VOLUME_CLAIMS,
    "PersistentVolume": PERSISTENT_VOLUMES,
}
"""What volumes are made of."""


class ProcessNode:
    """A kubelet and scheduler for one machine."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        clock: Clock,
        options: NodeOptions,
        images: ImageMap,
        recorder: EventRecorder | None = None,
    ) -> None:
        self.options = options
        self.views = ""
        """Why containers have no mount views here; empty when they have. Known once `run` has begun."""
        self.workers: dict[str, PodWorker] = {}  # by uid
        self._client = client
        self._cache = cache
        self._clock = clock
        self._recorder = recorder
        self._node = NodeObject(client, clock, options)
        self._groups = CpuGroups(options.folder)
        self._recipes = Recipes(client, cache, images, options.folder, options.address, self._groups)
        self._hosts = HostsFiles(cache, clock, lambda: [(w.pod, w.address, w.folder) for w in self.workers.values()])
        self._pods = cache.informer(PODS, Unstructured)
        self._parts = {kind: cache.informer(resource, Unstructured) for kind, resource in _PARTS.items()}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._network = ipaddress.ip_network(options.pod_cidr)
        self._next = 0
        self._pods.add_handler(self._pod_changed)
        for kind, informer in self._parts.items():
            informer.add_handler(partial(self._part_changed, kind))

    async def run(self) -> None:
        """Run Pods until cancelled; all of them are ended then."""
        try:
            await self._run()
        finally:
            self._groups.keep_only(())

    async def _run(self) -> None:
        self._remove_old_folders()
        self.views = await views_missing(self.options.folder)
        if self.views:
            log.warning("no_mount_views", reason=self.views)
        self._cache.observe(NODES, await self._node.register())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._node.beat(), name="heartbeat")
            if not self.views:
                tasks.create_task(self._hosts.run(), name="hosts")
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._dirty:
                    uid = next(iter(self._dirty))
                    del self._dirty[uid]
                    try:
                        await self._sync(uid, tasks)
                    except (Conflict, NotFound) as error:
                        log.debug("pod_moved_on", uid=uid, error=str(error))
                    except KubeError as error:
                        log.warning("pod_not_synced", uid=uid, error=str(error))
                        self._later(uid, tasks)

    # -- Pods -------------------------------------------------------------------------------------------

    def _pod_changed(self, change: Change[Unstructured]) -> None:
        record = change.new or change.old
        if record is not None:
            self._mark(record.metadata.uid)

    def _part_changed(self, kind: str, change: Change[Unstructured]) -> None:
        """Something has changed that volumes are made of: they are made again."""
        record = change.new or change.old
        if record is None:
            return
        for worker in self.workers.values():
            same = record.metadata.namespace in ("", worker.pod["metadata"]["namespace"])
            if same and (worker.unmounted or worker.volumes.refers_to(kind, record.metadata.name)):
                worker.volumes.changed.set()

    def _remove_old_folders(self) -> None:
        """Folders of Pods that are gone; those of others keep their logs and volumes."""
        alive = {record.metadata.uid for record in self._pods.store}
        pods = self.options.folder / "pods"
        for folder in pods.iterdir() if pods.exists() else ():
            if folder.name not in alive:
                shutil.rmtree(folder, ignore_errors=True)
        self._groups.keep_only(alive)

    def _mark(self, uid: str) -> None:
        self._dirty[uid] = None
        self._wake.set()

    def _later(self, uid: str, tasks: asyncio.TaskGroup) -> None:
        async def mark() -> None:
            await self._clock.sleep(1.0)
            self._mark(uid)

        tasks.create_task(mark())

    def _find(self, uid: str) -> Unstructured | None:
        worker = self.workers.get(uid)
        if worker is not None:
            key = Key(worker.pod["metadata"]["namespace"], worker.pod["metadata"]["name"])
            found = self._pods.store.get(key)
            return found if found is not None and found.metadata.uid == uid else None
        return next((record for record in self._pods.store if record.metadata.uid == uid), None)

    async def _sync(self, uid: str, tasks: asyncio.TaskGroup) -> None:
        """Bring one Pod's processes, status and existence in line."""
        record, worker = self._find(uid), self.workers.get(uid)
        if record is None:
            if worker is not None and not worker.finished:
                worker.stop(0)  # deleted by force
            elif worker is not None:
                self._forget(uid)
            return
        pod = record.object()
        if not pod["spec"].get("nodeName"):
            await self._schedule(pod)
            return
        if pod["spec"]["nodeName"] != self.options.name:
            return
        if worker is None:
            if record.metadata.deleting:
                await self._delete(pod)
            elif (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                self._start(pod, tasks)
            return
        if any(worker.pod["metadata"].get(field) != pod["metadata"].get(field) for field in ("labels", "annotations")):
            worker.volumes.changed.set()  # they may be in a volume
        worker.pod = pod
        if record.metadata.deleting:
            if worker.finished:
                await self._write_status(pod, worker)
                await self._delete(pod)
                self._forget(uid)
                return
            worker.stop(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))
        await self._write_status(pod, worker)

    def _start(self, pod: Object, tasks: asyncio.TaskGroup) -> None:
        uid = pod["metadata"]["uid"]
        folder = self.options.folder / "pods" / uid
        address = self._address(pod)
        host = self.options.address
        volumes = PodVolumes(folder, self._part, self._client, self._clock, host, address, self.views)
        worker = PodWorker(
            pod, address, host, folder, self._clock, volumes, self._prepare, lambda: self._mark(uid), self._warn
        )
        self.workers[uid] = worker
        log.info("pod_started", pod=f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", address=address)
        tasks.create_task(worker.run(), name=f"pod {pod['metadata']['name']}")
        self._mark(uid)

    def _forget(self, uid: str) -> None:
        self.workers.pop(uid, None)
        shutil.rmtree(self.options.folder / "pods" / uid, ignore_errors=True)
        self._groups.remove(uid)

    def _address(self, pod: Object) -> str:
        """The Pod's remembered address, or the next free one."""
        used = {worker.address for worker in self.workers.values()}
        known = str((pod.get("status") or {}).get("podIP") or "")
        if known and known not in used and ipaddress.ip_address(known) in self._network:
            return known
        used |= {(each.object().get("status") or {}).get("podIP", "") for each in self._pods.store}
        for _ in range(self._network.num_addresses):
            self._next = self._next % (self._network.num_addresses - 2) + 1
            address = str(self._network[self._next])
            if address not in used:
                return address
        raise RuntimeError(f"no Pod address is free in {self._network}")

    async def _schedule(self, pod: Object) -> None:
        """Bind a Pod to this node, or say why it cannot be."""
        spec, metadata = pod["spec"], pod["metadata"]
        if spec.get("schedulerName", SCHEDULER) != SCHEDULER or metadata.get("deletionTimestamp"):
            return
        if spec.get("schedulingGates"):
            return
        labels = self._node.labels()
        missing = [
            f"{key}={value}" for key, value in (spec.get("nodeSelector") or {}).items() if labels.get(key) != value
        ]
        if missing:
            why = f"0/1 nodes are available: 1 node(s) didn't match Pod's node selector ({', '.join(missing)})"
            await self._unschedulable(pod, why)
            return
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.options.name},
        }
        path = PODS.path(metadata["namespace"], metadata["name"], "binding")
        body = msgspec.json.encode(binding)
        await self._client.request(Request("POST", path, (), {"content-type": "application/json"}, body))

    async def _unschedulable(self, pod: Object, why: str) -> None:
        known = [c for c in (pod.get("status") or {}).get("conditions") or () if c["type"] == "PodScheduled"]
        if known and known[0].get("message") == why:
            return
        now = timestamp(self._clock.now())
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": why,
            "lastProbeTime": None,
            "lastTransitionTime": now,
        }
        metadata = pod["metadata"]
        body = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [condition]}}
        await self._client.patch(
            PODS,
            metadata["name"],
            body,
            namespace=metadata["namespace"],
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )

    async def _write_status(self, pod: Object, worker: PodWorker) -> None:
        status = worker.status()
        if status == pod.get("status"):
            return
        metadata = pod["metadata"]
        body = {**pod, "status": status, "metadata": {**metadata}}
        body["metadata"].pop("managedFields", None)
        written = await self._client.replace(PODS, body, subresource="status")
        self._cache.observe(PODS, written)

    async def _delete(self, pod: Object) -> None:
        metadata = pod["metadata"]
        try:
            await self._client.delete(
                PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"], grace_seconds=0
            )
        except NotFound:
            pass

    async def _prepare(self, worker: PodWorker, container: Object) -> Prepared:
        hosts = None if self.views else self._hosts.write(worker.pod, worker.address, worker.folder)
        return await self._recipes.prepare(worker, container, hosts)

    async def _part(self, kind: str, namespace: str, name: str) -> Object | None:
        """A part of a volume, from the cache, or from the server if it is too new for that."""
        record = self._parts[kind].store.get(Key(namespace, name))
        if record is not None:
            return record.object()
        try:
            return await self._client.get(_PARTS[kind], name, namespace)
        except NotFound:
            return None

    def _warn(self, pod: Object, reason: str, message: str) -> None:
        if self._recorder is not None:
            about = msgspec.convert(pod["metadata"], ObjectMeta, strict=False)
            self._recorder.event(PODS, about, reason, message, kind=WARNING)
