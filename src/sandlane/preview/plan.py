"""Which preview endpoints there are, where each leads, and why some cannot be served. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from sandlane.api.keys import routing_key
from sandlane.api.labels import ALLOW_ROUTE_GROUPS
from sandlane.api.limits import Settings
from sandlane.api.types import Endpoint, EndpointStatus
from sandlane.kube.resource import Key
from sandlane.routing.table import ServiceBackend
from sandlane.world.records import RouteGroup, Sandbox
from sandlane.world.world import World

NO_GATEWAY = "there is no preview gateway: the manager's option previewDomain is not set"


class Preview(msgspec.Struct, frozen=True):
    """One endpoint that is served: its host name without the domain, its key, and the Service that is asked."""

    host: str
    key: str
    backend: ServiceBackend


def previews(world: World) -> list[Preview]:
    """All endpoints that can be served, in order of host names."""
    found: dict[str, Preview] = {}
    for owner in sorted([*world.sandboxes, *world.route_groups], key=lambda each: each.metadata.key):
        wanted = endpoints_of(owner)
        if not wanted or owner.metadata.deleting:
            continue
        key = routing_key(owner.metadata.uid, owner.spec.routing_key)
        if world.with_key(key)[0] is not owner:
            continue  # an older object has the key
        for endpoint in wanted:
            backend = target(endpoint, owner.metadata.namespace)
            if backend is not None and not problem(world, endpoint, owner.metadata.namespace):
                host = f"{endpoint.name}--{key}"
                found[host] = Preview(host, key, backend)
    return [found[host] for host in sorted(found)]


def preview_at(world: World, url: str) -> Preview | None:
    """The endpoint that a URL is the address of, whatever the domain."""
    host = (urlsplit(url).hostname or "").partition(".")[0]
    return next((each for each in previews(world) if each.host == host), None) if "--" in host else None


def endpoints_of(owner: Sandbox | RouteGroup) -> tuple[Endpoint, ...]:
    """The endpoints that an object asks for."""
    if isinstance(owner, RouteGroup):
        return owner.spec.endpoints
    group = owner.spec.default_route_group
    return group.endpoints if group is not None else ()


def target(endpoint: Endpoint, namespace: str) -> ServiceBackend | None:
    """The Service port that `http://SERVICE[.NAMESPACE]:PORT` means; None for something else, which the schema refuses."""
    host, colon, port = endpoint.target.removeprefix("http://").rpartition(":")
    service, _, elsewhere = host.partition(".")
    if not colon or not service or not port.isdigit():
        return None
    return ServiceBackend(elsewhere or namespace, service, int(port))


def problem(world: World, endpoint: Endpoint, namespace: str) -> str:
    """Why an endpoint is not served: its Service is in a namespace that does not consent. Empty when it is."""
    backend = target(endpoint, namespace)
    if backend is None:
        return f"{endpoint.target} is not http://SERVICE[.NAMESPACE]:PORT"
    if backend.namespace == namespace:
        return ""
    found = world.namespaces.get(Key("", backend.namespace))
    allowed = found.metadata.annotations.get(ALLOW_ROUTE_GROUPS, "") if found else ""
    if {namespace, "*"} & {name.strip() for name in allowed.split(",")}:
        return ""
    return f"Namespace {backend.namespace} does not consent: annotate it with `{ALLOW_ROUTE_GROUPS}: {namespace}`"


def problems(world: World, namespace: str, endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """Why endpoints are not served, by name; nothing of those that are."""
    found = {endpoint.name: problem(world, endpoint, namespace) for endpoint in endpoints}
    return {name: why for name, why in found.items() if why}


def statuses(
    settings: Settings, key: str, endpoints: Iterable[Endpoint], wrong: Mapping[str, str]
) -> tuple[EndpointStatus, ...]:
    """Where each endpoint can be reached, or why it cannot (`wrong`: as `problems` gives it)."""
    made = []
    for endpoint in endpoints:
        why = wrong.get(endpoint.name, "") if settings.preview_domain else NO_GATEWAY
        made.append(EndpointStatus(endpoint.name, "" if why else url(settings, endpoint.name, key), why))
    return tuple(made)


def url(settings: Settings, name: str, key: str) -> str:
    """The address of an endpoint."""
    return f"{settings.preview_scheme}://{name}--{key}.{settings.preview_domain}"


def by_backend(found: Iterable[Preview]) -> Mapping[str, ServiceBackend]:
    """The Services that are asked, by the names of their clusters."""
    return {each.backend.name: each.backend for each in found}
