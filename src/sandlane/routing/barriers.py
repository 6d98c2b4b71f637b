"""NetworkPolicies because of which a Service must not be turned: its callers would lose its baseline. Pure.

Turned, a connection to the Service goes from its caller to a router's Pod, and from there to a Pod of the baseline. Whoever
may go the short way now has to be let through on both halves of the long one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sandlane.api.labels import FORK, ROUTER_PODS
from sandlane.kube.resource import Key
from sandlane.routing.build import listeners
from sandlane.routing.names import FIRST_LISTENER, shadow_name
from sandlane.world.policies import Party, Way, blocks_egress, blocks_ingress, lost_peer, lost_way
from sandlane.world.records import ContainerPort, Service
from sandlane.world.surroundings import NetworkPolicy
from sandlane.world.world import World


def barrier(world: World, service: Service, doors: Mapping[int, int] | None = None) -> str:
    """What would keep requests from a Service's baseline if it were turned; empty when nothing would.

    `service` is as its owner wrote it; `doors` are the router's ports for its ports, as far as they are known.
    """
    if not len(world.network_policies):
        return ""
    namespace, name = service.metadata.key
    doors = doors if doors is not None else listeners(world, service)
    addresses = tuple(pod.status.pod_ip for pod in world.routers(namespace) if pod.status.pod_ip)
    router = Party(namespace, ROUTER_PODS, addresses)
    labels = ",".join(f"{key}={value}" for key, value in ROUTER_PODS.items())
    for workload, pods, ports in _baselines(world, service):
        for port in service.spec.ports:
            reached = declared(ports, port.target, port.protocol)
            if (policy := blocks_ingress(world, pods, reached, router)) is not None:
                what = f"{named(policy, namespace)} lets no router reach {workload} at port {port.target}"
                return f"Service {name} is not turned to the router: {what} (from Pods with {labels})"
            if (policy := blocks_egress(world, router, reached, pods)) is not None:
                what = f"{named(policy, namespace)} does not let the router's Pods reach {workload}"
                return f"Service {name} is not turned to the router: {what} at port {port.target} (Pods with {labels})"
            door = ContainerPort(doors.get(port.port, FIRST_LISTENER), "", port.protocol)
            had, has = Way(pods, reached), Way(router, door)
            policy = lost_way(world, "Ingress", had, has)
            policy = policy or lost_peer(world, "Egress", had, has, world.network_policies)
            if policy is not None:
                what = f"{named(policy, namespace)} lets callers reach {workload}, but not the router before it"
                return f"Service {name} is not turned to the router: {what} (Pods with {labels}, port {door.container_port})"
    return ""


def declared(ports: Iterable[ContainerPort], target: int | str, protocol: str) -> ContainerPort:
    """The container port that a Service's targetPort means, with number and name, since policies go by either."""
    for each in ports:
        if each.protocol == protocol and target in (each.container_port, each.name):
            return each
    number, name = (target, "") if isinstance(target, int) else (0, target)
    return ContainerPort(number, name, protocol)


def named(policy: NetworkPolicy, namespace: str) -> str:
    """A policy in words, with its namespace when that is another one."""
    metadata = policy.metadata
    return f"NetworkPolicy {metadata.name if metadata.namespace == namespace else metadata.key}"


def _baselines(world: World, service: Service) -> Iterator[tuple[str, Party, list[ContainerPort]]]:
    """The Pods behind a Service: those of its Deployments; else all that is known of them is what it selects by."""
    namespace, name = service.metadata.key
    selector = service.spec.selector or {}
    slices = world.slices_of(Key(namespace, shadow_name(name))) or world.slices_of(service.metadata.key)
    addresses = tuple(address for each in slices for endpoint in each.endpoints or () for address in endpoint.addresses)
    found = [
        each
        for each in world.deployments.namespace(namespace)
        if selector.items() <= each.pod_labels.items() and FORK not in each.pod_labels
    ]
    for each in sorted(found, key=lambda each: each.metadata.key):
        pods = Party(namespace, each.pod_labels, addresses)
        yield f"the Pods of {each.metadata.name}", pods, each.spec.template.spec.ports()
    if not found:
        yield "its Pods", Party(namespace, selector, addresses), []
