"""What every cluster has from the start: the first namespaces, the Service `kubernetes`, roles and their bindings."""

from __future__ import annotations

import asyncio

from sandlane.kube.resource import Key
from sandlane.local.apiserver.auth.bootstrap import bootstrap_bindings, bootstrap_roles
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
        for role in (*bootstrap_roles(), *bootstrap_bindings()):
            type_ = type_of(role["apiVersion"], role["kind"])
            if store.get(type_.storage_key, Key("", role["metadata"]["name"])) is None:
                group.create_task(writer.create(Write(type_, "", manager=MANAGER), role, []))
