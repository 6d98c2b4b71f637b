"""NetworkPolicies that cut off a fork or the router before it, compared with what its baseline may do. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.api import reasons
from sandlane.api.labels import ROUTER_PODS
from sandlane.routing.build import listeners
from sandlane.routing.names import FIRST_LISTENER
from sandlane.sandbox.plan import Plan, PlannedFork, Problem
from sandlane.sandbox.services import Override
from sandlane.world.policies import Party, Way, blocks_egress, blocks_ingress, lost_peer, lost_way
from sandlane.world.records import ContainerPort, Sandbox, ServicePort
from sandlane.world.surroundings import NetworkPolicy
from sandlane.world.world import World


def blocked(world: World, sandbox: Sandbox, plan: Plan) -> Problem | None:
    """A NetworkPolicy because of which requests do not get from their callers to the router, or from it to a fork."""
    namespace = sandbox.metadata.namespace
    if not world.network_policies.list(namespace):
        return None
    router = Party(namespace, ROUTER_PODS)
    for fork in plan.forks:
        for override in fork.overrides:
            for port, target in override.ports:
                if (problem := _blocked_port(world, fork, override, port, target, router)) is not None:
                    return Problem(reasons.POLICY_BLOCKS_TRAFFIC, problem)
    return None


def cut_off(world: World, sandbox: Sandbox, plan: Plan) -> Problem | None:
    """A NetworkPolicy that lets a baseline's Pods reach what those of its fork cannot, because they lack its labels."""
    namespace = sandbox.metadata.namespace
    if not world.network_policies.list(namespace):
        return None
    for fork in plan.forks:
        had, has = Way(_baseline(fork, namespace)), Way(_pods(fork, namespace))
        policy = lost_way(world, "Egress", had, has) or lost_peer(world, "Ingress", had, has)
        if policy is not None and fork.deployment is not None:
            name = fork.reference.name
            what = f"NetworkPolicy {policy.metadata.name} lets the Pods of {name} reach what those of {fork.workload} cannot"
            return Problem(reasons.POLICY_BLOCKS_TRAFFIC, f"{what}: keep the labels that it goes by (preservedLabels)")
    return None


def _blocked_port(
    world: World, fork: PlannedFork, override: Override, port: ServicePort, target: int | str, router: Party
) -> str | None:
    """What is in the way at one port of a Service, in words."""
    pods = _pods(fork, router.namespace)
    reached = _port(fork.ports, target, port.protocol)
    if (policy := blocks_ingress(world, pods, reached, router)) is not None:
        return f"{_named(policy)} lets no router reach the Pods of {fork.workload} at port {target}"
    if (policy := blocks_egress(world, router, reached, pods)) is not None:
        return f"{_named(policy)} does not let the router's Pods reach those of {fork.workload} at port {target}"
    listener = ContainerPort(listeners(world, override.service).get(port.port, FIRST_LISTENER), "", port.protocol)
    before = fork.baseline.spec.template.spec.ports() if fork.baseline is not None else []
    had = Way(_baseline(fork, router.namespace), _port(before, port.target, port.protocol))
    has = Way(router, listener)
    policy = lost_way(world, "Ingress", had, has) or lost_peer(world, "Egress", had, has)
    if policy is None:
        return None
    labels = ",".join(f"{key}={value}" for key, value in ROUTER_PODS.items())
    service = override.service.metadata.name
    what = f"{_named(policy)} lets callers reach the Pods of {fork.reference.name}, but not the router before Service"
    return f"{what} {service} (Pods with {labels}, port {listener.container_port})"


def _port(declared: Iterable[ContainerPort], target: int | str, protocol: str) -> ContainerPort:
    """The container port that a Service's targetPort means, with number and name, since policies go by either."""
    for each in declared:
        if each.protocol == protocol and target in (each.container_port, each.name):
            return each
    number, name = (target, "") if isinstance(target, int) else (0, target)
    return ContainerPort(number, name, protocol)


def _named(policy: NetworkPolicy) -> str:
    return f"NetworkPolicy {policy.metadata.name}"


def _baseline(fork: PlannedFork, namespace: str) -> Party:
    return Party(namespace, fork.baseline.pod_labels if fork.baseline is not None else {})


def _pods(fork: PlannedFork, namespace: str) -> Party:
    template = fork.deployment["spec"]["template"] if fork.deployment is not None else {"metadata": {"labels": {}}}
    return Party(namespace, template["metadata"]["labels"])
