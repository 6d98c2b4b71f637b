"""The world: one store of frozen records per kind, with the lookups that plans need.

`World.from_cache` reads live informers, `World.of` is made of plain objects for tests and golden files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from sandlane.api.keys import routing_key
from sandlane.api.labels import FORK, MANAGED_BY, MANAGED_SELECTOR, MANAGER, ORIGINAL, ROUTER, SANDBOX, TUNNEL
from sandlane.api.types import WorkloadReference
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LOCAL_WORKLOADS,
    NAMESPACES,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_QUOTAS,
    ROUTE_GROUPS,
    SANDBOXES,
    SERVICES,
    Key,
    Object,
    Resource,
)
from sandlane.kube.store import Record, Store
from sandlane.world.records import (
    Deployment,
    EndpointSlice,
    LocalWorkload,
    Namespace,
    Pod,
    RouteGroup,
    Sandbox,
    Service,
    ServiceSpec,
)
from sandlane.world.surroundings import NetworkPolicy, PersistentVolumeClaim, ResourceQuota

R = TypeVar("R", bound=Record)


class _HasStore(Protocol[R]):
    @property
    def store(self) -> Store[R]: ...


class Informers(Protocol):
    """What `World.from_cache` needs of `sandlane.kube.cache.Cache`."""

    def informer(self, resource: Resource, record_type: type[R], *, label_selector: str = "") -> _HasStore[R]:
        """The informer of a kind."""


KINDS: Mapping[str, tuple[Resource, type[Any]]] = {
    "sandboxes": (SANDBOXES, Sandbox),
    "route_groups": (ROUTE_GROUPS, RouteGroup),
    "local_workloads": (LOCAL_WORKLOADS, LocalWorkload),
    "services": (SERVICES, Service),
    "endpoint_slices": (ENDPOINT_SLICES, EndpointSlice),
    "deployments": (DEPLOYMENTS, Deployment),
    "pods": (PODS, Pod),
    "namespaces": (NAMESPACES, Namespace),
    "network_policies": (NETWORK_POLICIES, NetworkPolicy),
    "resource_quotas": (RESOURCE_QUOTAS, ResourceQuota),
    "claims": (PERSISTENT_VOLUME_CLAIMS, PersistentVolumeClaim),
}
"""Which kinds the world holds, under which attribute, as which record."""
SELECTORS: Mapping[str, str] = {"pods": MANAGED_SELECTOR}
"""Of these kinds only the labelled objects are watched."""


class World:
    """All that is known. Reading gives what is known now; records are frozen and may be kept."""

    def __init__(self, stores: Mapping[str, Store[Any]] | None = None) -> None:
        given = stores or {}
        stores = {name: given.get(name) or Store() for name in KINDS if name not in given} | dict(given)
        self.sandboxes: Store[Sandbox] = stores["sandboxes"]
        self.route_groups: Store[RouteGroup] = stores["route_groups"]
        self.local_workloads: Store[LocalWorkload] = stores["local_workloads"]
        self.services: Store[Service] = stores["services"]
        self.endpoint_slices: Store[EndpointSlice] = stores["endpoint_slices"]
        self.deployments: Store[Deployment] = stores["deployments"]
        self.pods: Store[Pod] = stores["pods"]
        self.namespaces: Store[Namespace] = stores["namespaces"]
        self.network_policies: Store[NetworkPolicy] = stores["network_policies"]
        self.resource_quotas: Store[ResourceQuota] = stores["resource_quotas"]
        self.claims: Store[PersistentVolumeClaim] = stores["claims"]
        self._index()

    @classmethod
    def of(cls, objects: Iterable[Object]) -> World:
        """A world made of plain objects; those of other kinds are ignored. Raises `msgspec.ValidationError`."""
        types = {(resource.api_version, resource.kind): (name, record) for name, (resource, record) in KINDS.items()}
        stores: dict[str, Store[Any]] = {name: Store() for name in KINDS}
        for obj in objects:
            found = types.get((obj.get("apiVersion", ""), obj.get("kind", "")))
            if found is not None:
                stores[found[0]].set(decode(found[1], msgspec.json.encode(obj)))
        return cls(stores)

    @classmethod
    def from_cache(cls, cache: Informers) -> World:
        """A live world over the informers of a cache, which watches its kinds from now on."""
        return cls(
            {
                name: cache.informer(resource, record, label_selector=SELECTORS.get(name, "")).store
                for name, (resource, record) in KINDS.items()
            }
        )

    # -- lookups ----------------------------------------------------------------------------------------

    def original(self, service: Service) -> Service:
        """The Service as its owner wrote it, also while it is turned."""
        return original(service)

    def services_selecting(self, namespace: str, labels: Mapping[str, str]) -> list[Service]:
        """The Services (as their owners wrote them) whose selector matches these Pod labels, in order of name."""
        found = {
            service.metadata.key: service
            for key, value in labels.items()
            for service in self.services.by_index("selector", f"{namespace}/{key}={value}")
        }
        originals = (original(found[key]) for key in sorted(found))
        return [service for service in originals if (service.spec.selector or {}).items() <= labels.items()]

    def baseline(self, namespace: str, reference: WorkloadReference) -> Deployment | None:
        """The baseline that a reference means."""
        if reference.kind != "Deployment":
            return None
        return self.deployments.get(Key(reference.namespace or namespace, reference.name))

    def sandboxes_of_baseline(self, key: Key) -> list[Sandbox]:
        """The sandboxes that fork this Deployment or replace it by a laptop."""
        return self.sandboxes.by_index("baseline", str(key))

    def with_key(self, key: str) -> list[Sandbox | RouteGroup]:
        """All that claim a routing key, the oldest first: that one has it."""
        found: list[Sandbox | RouteGroup] = [
            *self.sandboxes.by_index("routing-key", key),
            *self.route_groups.by_index("routing-key", key),
        ]
        return sorted(found, key=_age)

    def owned_deployments(self, owner: ObjectMeta) -> list[Deployment]:
        """The Deployments that this very object controls."""
        return self.deployments.by_index("owner", owner.uid)

    def owned_services(self, owner: ObjectMeta) -> list[Service]:
        """The Services that this very object controls."""
        return self.services.by_index("owner", owner.uid)

    def owned_local_workloads(self, owner: ObjectMeta) -> list[LocalWorkload]:
        """The LocalWorkloads that this very object controls."""
        return self.local_workloads.by_index("owner", owner.uid)

    def local_workloads_of(self, sandbox: Key) -> list[LocalWorkload]:
        """The LocalWorkloads that stand in for workloads of a sandbox."""
        return self.local_workloads.by_index("sandbox", str(sandbox))

    def local_workloads_from(self, deployment: Key) -> list[LocalWorkload]:
        """The LocalWorkloads that stand in for a Deployment."""
        return self.local_workloads.by_index("baseline", str(deployment))

    def pods_of_fork(self, key: Key) -> list[Pod]:
        """The Pods of the fork (a Deployment of ours) with this key."""
        return self.pods.by_index("fork", str(key))

    def routers(self, namespace: str) -> list[Pod]:
        """The Pods of a namespace's routers."""
        return self.pods.by_index("router", namespace)

    def shadows(self, namespace: str) -> list[Service]:
        """The Services of a namespace that stand for the baselines of others."""
        return self.services.by_index("shadow", namespace)

    def tunnel_servers(self, namespace: str) -> list[Pod]:
        """The Pods of a namespace's tunnel servers."""
        return self.pods.by_index("tunnel", namespace)

    def slices_of(self, service: Key) -> list[EndpointSlice]:
        """The EndpointSlices of a Service."""
        return self.endpoint_slices.by_index("service", str(service))

    def _index(self) -> None:
        self.sandboxes.add_index("baseline", _baselines)
        self.sandboxes.add_index("routing-key", _key)
        self.route_groups.add_index("routing-key", _key)
        self.services.add_index("selector", _selector)
        self.services.add_index("shadow", _shadow)
        self.endpoint_slices.add_index("service", _service)
        self.pods.add_index("fork", _fork)
        self.pods.add_index("router", _router)
        self.pods.add_index("tunnel", lambda pod: [pod.metadata.namespace] if TUNNEL in pod.metadata.labels else [])
        self.local_workloads.add_index("sandbox", lambda local: [f"{local.metadata.namespace}/{local.spec.sandbox}"])
        self.local_workloads.add_index("baseline", _replaced)
        for store in (self.deployments, self.services, self.local_workloads):
            store.add_index("owner", _owner)


def decode(record_type: type[R], data: bytes) -> R:
    """One record from JSON, as an informer decodes it."""
    from_bytes = getattr(record_type, "from_bytes", None)
    record: R = from_bytes(data) if from_bytes else msgspec.json.decode(data, type=record_type)
    return record


def original(service: Service) -> Service:
    """The Service as its owner wrote it: the fields saved in the annotation over those it has now."""
    saved = service.metadata.annotations.get(ORIGINAL)
    if saved is None:
        return service
    try:
        spec = msgspec.convert(msgspec.to_builtins(service.spec) | msgspec.json.decode(saved, type=dict), ServiceSpec)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return service  # somebody wrote into the annotation: routing reports it
    return msgspec.structs.replace(service, spec=spec)


def ours(record: Record) -> bool:
    """Whether Sandlane made the object for another one (a fork's Service, a shadow Service, ...)."""
    metadata = record.metadata
    return metadata.labels.get(MANAGED_BY) == MANAGER and bool(metadata.owner_references)


def _age(record: Sandbox | RouteGroup) -> tuple[str, Key]:
    return record.metadata.creation_timestamp, record.metadata.key


def _key(record: Sandbox | RouteGroup) -> list[str]:
    return [routing_key(record.metadata.uid, record.spec.routing_key)]


def _baselines(sandbox: Sandbox) -> Iterator[str]:
    references = [fork.fork_of for fork in sandbox.spec.forks] + [local.from_ for local in sandbox.spec.local]
    for reference in references:
        if reference.kind == "Deployment":
            yield f"{reference.namespace or sandbox.metadata.namespace}/{reference.name}"


def _selector(service: Service) -> list[str]:
    """One pair of the original selector: whoever has it may be selected. Services of our own are no one's baseline."""
    if ours(service):
        return []
    selector = original(service).spec.selector
    if not selector or service.spec.type == "ExternalName":
        return []
    key = min(selector)
    return [f"{service.metadata.namespace}/{key}={selector[key]}"]


def _shadow(service: Service) -> list[str]:
    return [service.metadata.namespace] if service.metadata.labels.get(ROUTER) == "shadow" else []


def _service(endpoints: EndpointSlice) -> list[str]:
    return [str(Key(endpoints.metadata.namespace, endpoints.service))] if endpoints.service else []


def _fork(pod: Pod) -> list[str]:
    name = pod.metadata.labels.get(FORK)
    return [str(Key(pod.metadata.namespace, name))] if name else []


def _router(pod: Pod) -> list[str]:
    labels = pod.metadata.labels
    return [pod.metadata.namespace] if ROUTER in labels and SANDBOX not in labels else []


def _replaced(local: LocalWorkload) -> list[str]:
    reference = local.spec.from_
    return [f"{reference.namespace or local.metadata.namespace}/{reference.name}"]


def _owner(record: Record) -> list[str]:
    controller = record.metadata.controller
    return [controller.uid] if controller else []
