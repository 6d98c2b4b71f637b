"""The cluster's Services as a laptop reaches them: one door for each TCP port, and the names by which it is called. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from sandlane.api.places import service_names
from sandlane.kube.resource import Object
from sandlane.local.node.environment import service_variables
from sandlane.routing.build import protocol
from sandlane.world.records import ServicePort

LOOPBACK = "127.0.0.1"


class Door(msgspec.Struct, frozen=True):
    """A port of a Service. `speaks` is http, tcp or sniff; `target` is the port's name in EndpointSlices."""

    namespace: str
    service: str
    port: int
    speaks: str
    target: str = ""
    address: str = ""

    def __str__(self) -> str:
        return f"{self.service}.{self.namespace}:{self.port}"

    def names(self, namespace: str) -> list[str]:
        """The hosts that mean this Service, for a program that runs in `namespace`."""
        found = [f"{self.service}.{self.namespace}", *service_names(self.service, self.namespace)]
        found += [self.service] if namespace == self.namespace else []
        return found + ([self.address] if self.address else [])


def doors(services: Iterable[Object]) -> list[Door]:
    """All TCP ports of Services with endpoints of their own, in order."""
    found = []
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        if spec.get("type") == "ExternalName":
            continue
        address = spec.get("clusterIP") or ""
        for raw in spec.get("ports") or ():
            speaks = protocol(msgspec.convert(raw, ServicePort))
            if speaks == "udp" or raw.get("protocol", "TCP") != "TCP":
                continue
            address = "" if address == "None" else address
            name = raw.get("name") or ""
            found.append(Door(metadata["namespace"], metadata["name"], raw["port"], speaks, name, address))
    return sorted(found, key=lambda door: (door.namespace, door.service, door.port))


def find_door(known: Iterable[Door], namespace: str, host: str, port: int) -> Door | None:
    """The door that a host and a port mean."""
    host = host.rstrip(".").lower()
    return next((door for door in known if door.port == port and host in door.names(namespace)), None)


def variables(services: Iterable[Object], namespace: str, local: Mapping[Door, int]) -> dict[str, str]:
    """`NAME_SERVICE_HOST`, `NAME_SERVICE_PORT` and their like, as a Pod of the namespace has them, to listeners of this laptop."""
    ports = {(door.service, door.port): number for door, number in local.items() if door.namespace == namespace}
    found: dict[str, str] = {}
    for service in services:
        name, spec = service["metadata"]["name"], service["spec"]
        if service["metadata"]["namespace"] != namespace or spec.get("clusterIP") in (None, "", "None"):
            continue
        reached = [port for port in spec.get("ports") or () if (name, port["port"]) in ports]
        here = {**service, "spec": {**spec, "clusterIP": LOOPBACK, "ports": reached}}
        found |= service_variables([here], namespace, lambda port, name=name: ports[name, port])  # type: ignore[misc]
    return found
