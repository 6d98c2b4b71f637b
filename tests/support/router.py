"""A real Envoy as the router of one namespace, fed by the route table of a world through a real xDS server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from sandlane.api.labels import EDGE
from sandlane.kube.resource import Key, Object
from sandlane.routing.envoy.binary import envoy_binary
from sandlane.routing.envoy.bootstrap import router_bootstrap
from sandlane.routing.envoy.delta import LISTENER, SECRETS
from sandlane.routing.envoy.encode import Resources
from sandlane.routing.envoy.identity import Credentials
from sandlane.routing.envoy.listeners import DoorOptions
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.envoy.translate import Translation
from sandlane.routing.live import KINDS, Changed, LiveTable
from sandlane.routing.names import LISTENERS, SHADOW_OF, router_group, routers_group, shadow_name
from sandlane.world.world import KINDS as RECORDS
from sandlane.world.world import World, decode
from support.service_proxy import until

NAMESPACE = "n"
_KIND = {resource.kind: (attribute, record) for attribute, (resource, record) in RECORDS.items()}
Address = tuple[str, int]


class Router:
    """A router and the world that it serves. Its doors listen on `host`."""

    def __init__(self, xds: XdsServer, options: DoorOptions, folder: Path) -> None:
        number = os.getpid() * 7 + id(self) // 64
        self.host = f"127.253.{number // 250 % 250}.{number % 250 + 1}"
        self.group = router_group(NAMESPACE, self.host)
        self.log = folder / "router.log"
        self.world, self.live = World(), LiveTable()
        self.secrets: dict[str, bytes] = {}
        self.pid = 0
        self._xds = xds
        self.translation = Translation(options)

    def change(self, objects: Iterable[Object]) -> None:
        """Write objects and publish what they come to."""
        changed, touched = [], set()
        for obj in objects:
            attribute, record_type = _KIND[obj["kind"]]
            record = decode(record_type, msgspec.json.encode(obj))
            getattr(self.world, attribute).set(record)
            changed.append(Changed(attribute, record.metadata.key))
            if attribute == "services":
                touched.add(record.metadata.key)
            elif attribute == "endpoint_slices":
                touched.add(Key(NAMESPACE, record.service))
        table = self.live.update(self.world, [each for each in changed if each.kind in KINDS])
        changes = self.translation.update(self.world, table, {}, touched).get(NAMESPACE, {})
        self._xds.change(routers_group(NAMESPACE), changes)
        self.publish({LISTENER: self.translation.listeners(NAMESPACE, self.host), SECRETS: self.secrets})

    def publish(self, own: Resources) -> None:
        """Give it this beside what all routers of its namespace have."""
        self._xds.publish(self.group, own)

    async def serve(self, objects: Iterable[Object]) -> None:
        """Change, and wait until Envoy serves it."""
        self.change(objects)
        await until(lambda: bool(self._xds.clients(self.group)) and not self._xds.behind(self.group), "it is served")


@asynccontextmanager
async def router(folder: Path, options: DoorOptions | None = None) -> AsyncIterator[Router]:
    """A running router that has no doors yet."""
    xds = XdsServer()
    async with xds.listen("127.0.0.1:0") as port:
        made = Router(xds, options or DoorOptions(), folder)
        config: Any = router_bootstrap("127.0.0.1", port, made.group, Credentials("none"))
        config["node"]["id"] = "router"
        for cluster in config["static_resources"]["clusters"]:
            cluster.pop("transport_socket", None)
        xds.publish(routers_group(NAMESPACE), made.translation.shared(NAMESPACE))
        made.change([])
        path = folder / "router.json"
        path.write_text(json.dumps(config))
        with made.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(str(envoy_binary()), "--config-path", str(path), "--concurrency", "1", "--disable-hot-restart"),
                *("--log-level", "warning", "--file-flush-interval-msec", "50"),
                stdout=log,
                stderr=log,
            )
            made.pid = process.pid
            try:
                yield made
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


def service(name: str, listener: int, *baseline: Address, port: Object | None = None, **more: Any) -> list[Object]:
    """A Service at port 80 with its shadow, whose door listens at `listener`, and the endpoints of its baseline."""
    ports = [{"name": "http", "port": 80, "protocol": "TCP"} | (port or {})]
    spec = {"selector": {"app": name}, "ports": ports} | more
    annotations = {EDGE: "strip"} if spec.pop("edge", False) else {}
    metadata = _meta(name, annotations=annotations)
    owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": metadata["uid"], "controller": True}
    remembered = {LISTENERS: json.dumps({"80": listener}), SHADOW_OF: name}
    shadow = _meta(shadow_name(name), annotations=remembered, ownerReferences=[owner])
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": shadow, "spec": spec},
        *endpoints(shadow_name(name), *baseline, name=ports[0]["name"], protocol=ports[0]["protocol"]),
    ]


def endpoints(service: str, *addresses: Address, name: str = "http", protocol: str = "TCP") -> list[Object]:
    """EndpointSlices of a Service: one for each of up to two ports."""
    made = []
    ports = sorted({port for _, port in addresses})
    for index in range(2):
        port = ports[index] if index < len(ports) else 1
        hosts = [{"addresses": [host], "conditions": {"ready": True}} for host, at in addresses if at == port]
        made.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": _meta(f"{service}-{index}", labels={"kubernetes.io/service-name": service}),
                "addressType": "IPv4",
                "endpoints": hosts,
                "ports": [{"name": name, "port": port, "protocol": protocol}],
            }
        )
    return made


def sandbox(name: str, of: str, *fork: Address, key: str = "") -> list[Object]:
    """A sandbox with the fork of one Service."""
    own = f"{of}-{name}"
    status = {
        "baseline": {"kind": "Deployment", "name": of, "uid": f"d-{of}", "generation": 1},
        "workload": own,
        "everReady": True,
        "services": [{"from": of, "to": own, "ports": [{"port": 80, "name": "http"}]}],
    }
    made = {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": _meta(name),
        "spec": {"routingKey": key or name, "forks": [{"forkOf": {"kind": "Deployment", "name": of}}]},
        "status": {"forks": [status]},
    }
    spec = {"selector": {"f": own}, "ports": [{"name": "http", "port": 80}]}
    return [made, {"apiVersion": "v1", "kind": "Service", "metadata": _meta(own), "spec": spec}, *endpoints(own, *fork)]


def _meta(name: str, **more: Any) -> Object:
    made = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return made | more
