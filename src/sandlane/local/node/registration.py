"""The Node object of this machine, and the Lease that says that the node lives."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec
import structlog

from sandlane.kube.client import Client
from sandlane.kube.clock import Clock, micro_timestamp, timestamp
from sandlane.kube.errors import AlreadyExists, KubeError
from sandlane.kube.resource import LEASES, NODES, Object

log = structlog.get_logger(__name__)

LEASE_SECONDS = 40
HEARTBEAT = 10.0


class NodeOptions(msgspec.Struct, frozen=True):
    """The node's name, its own address, the addresses of its Pods (CIDR), its folder, and where its log server is."""

    name: str
    address: str
    pod_cidr: str
    folder: Path
    port: int = 0


class NodeObject:
    """Registers one node."""

    def __init__(self, client: Client, clock: Clock, options: NodeOptions) -> None:
        self.options = options
        self._client = client
        self._clock = clock

    def labels(self) -> dict[str, str]:
        """The labels that every Node has."""
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        return {"kubernetes.io/hostname": self.options.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": machine}

    async def register(self) -> Object:
        """Write the Node object, ready; as it was written."""
        node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.options.name, "labels": self.labels()},
            "spec": {"podCIDR": self.options.pod_cidr, "podCIDRs": [self.options.pod_cidr]},
        }
        try:
            node = await self._client.create(NODES, node)
        except AlreadyExists:
            node = await self._client.get(NODES, self.options.name)
        now = timestamp(self._clock.now())
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
        capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": "1000"}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "NodeReady",
            "message": "the process node runs",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        node["status"] = {
            **(node.get("status") or {}),
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [ready],
            "addresses": [
                {"type": "InternalIP", "address": self.options.address},
                {"type": "Hostname", "address": self.options.name},
            ],
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": platform.release(),
                "osImage": platform.platform(terse=True),
                "containerRuntimeVersion": "process://1",
                "kubeletVersion": "v1.36.2+sandlane",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": self.labels()["kubernetes.io/arch"],
            },
        }
        if self.options.port:
            node["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": self.options.port}}
        return await self._client.replace(NODES, node, subresource="status")

    async def beat(self) -> None:
        """Renew the node's Lease."""
        while True:
            spec = {
                "holderIdentity": self.options.name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": micro_timestamp(self._clock.now()),
            }
            lease = {
                "apiVersion": LEASES.api_version,
                "kind": "Lease",
                "metadata": {"name": self.options.name, "namespace": "kube-node-lease"},
                "spec": spec,
            }
            try:
                await self._client.apply(LEASES, lease, field_manager="sandlane-node")
            except KubeError as error:
                log.warning("heartbeat_failed", error=str(error))
            await self._clock.sleep(HEARTBEAT)
