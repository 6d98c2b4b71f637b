"""What every cluster has from the start: the first namespaces, the Service `kubernetes`, roles and their bindings, priority classes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from sandlane.kube.resource import Key, Object
from sandlane.local.apiserver.auth.bootstrap import bootstrap_bindings, bootstrap_roles
from sandlane.local.apiserver.limits import SYSTEM_PRIORITIES
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.writer import Write, Writer

FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
MANAGER = "kube-apiserver"


async def make_first_objects(writer: Writer, registry: Registry, port: int) -> None:
    """Make what is not there yet; `port` is where the API server listens."""

    def type_of(api_version: str, kind: str) -> ResourceType:
        found = registry.by_kind(api_version, kind)
        assert found is not None
        return found

    store = writer.store
    for name in FIRST_NAMESPACES:
        if store.get(("", "namespaces"), Key("", name)) is None:
            obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await writer.create(Write(type_of("v1", "Namespace"), "", manager=MANAGER), obj, [])
    if store.get(("", "services"), Key("default", "kubernetes")) is None:
        labels = {"component": "apiserver", "provider": "kubernetes"}
        spec = {"ports": [{"name": "https", "port": 443, "targetPort": port}], "type": "ClusterIP"}
        metadata = {"name": "kubernetes", "namespace": "default", "labels": labels}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        await writer.create(Write(type_of("v1", "Service"), "default", manager=MANAGER), service, [])
    async with asyncio.TaskGroup() as group:
        first: list[Object] = [*bootstrap_roles(), *bootstrap_bindings(), *_priority_classes()]
        for each in first:
            type_ = type_of(each["apiVersion"], each["kind"])
            if store.get(type_.storage_key, Key("", each["metadata"]["name"])) is None:
                group.create_task(writer.create(Write(type_, "", manager=MANAGER), each, []))


def _priority_classes() -> Iterator[Object]:
    """Those that Pods of the system name."""
    told = "Used for system critical pods that must "
    for name, why in (
        ("system-cluster-critical", "run in the cluster, but can be moved to another node if necessary."),
        ("system-node-critical", "not be moved from their current node."),
    ):
        made: Object = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        yield made | {"value": SYSTEM_PRIORITIES[name], "description": told + why}
