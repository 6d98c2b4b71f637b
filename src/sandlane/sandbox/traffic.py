"""NetworkPolicies that cut off a fork from its router, or from what its baseline may reach. Pure."""

from __future__ import annotations

from sandlane.api import reasons
from sandlane.api.labels import ROUTER_PODS
from sandlane.routing.barriers import barrier, declared, named
from sandlane.routing.build import not_routable, protocol
from sandlane.sandbox.plan import Plan, PlannedFork, Problem
from sandlane.world.policies import Party, Way, blocks_egress, blocks_ingress, lost_peer, lost_way
from sandlane.world.records import Sandbox
from sandlane.world.world import World


def blocked(world: World, sandbox: Sandbox, plan: Plan) -> Problem | None:
    """A NetworkPolicy because of which requests do not get from the router to a fork."""
    namespace = sandbox.metadata.namespace
    if not world.network_policies.namespace(namespace):
        return None
    router = Party(namespace, ROUTER_PODS)
    for fork in plan.forks:
        pods = _pods(fork, namespace)
        for override in fork.overrides:
            for port, target in override.ports:
                if not_routable(override.service) or protocol(port) in ("tcp", "udp"):
                    continue  # no router sends the fork any request of it
                reached = declared(fork.ports, target, port.protocol)
                if (policy := blocks_ingress(world, pods, reached, router)) is not None:
                    what = (
                        f"{named(policy, namespace)} lets no router reach the Pods of {fork.workload} at port {target}"
                    )
                    return Problem(reasons.POLICY_BLOCKS_TRAFFIC, what)
                if (policy := blocks_egress(world, router, reached, pods)) is not None:
                    what = f"{named(policy, namespace)} does not let the router's Pods reach those of {fork.workload}"
                    return Problem(reasons.POLICY_BLOCKS_TRAFFIC, f"{what} at port {target}")
    return None


def barred(world: World, plan: Plan) -> Problem | None:
    """A NetworkPolicy because of which a Service of a baseline will not be turned to the router."""
    services = {override.service.metadata.key: override.service for fork in plan.forks for override in fork.overrides}
    for key in sorted(services):
        if not not_routable(services[key]) and (why := barrier(world, services[key])):
            return Problem(reasons.POLICY_BLOCKS_TRAFFIC, why)
    return None


def cut_off(world: World, sandbox: Sandbox, plan: Plan) -> Problem | None:
    """A NetworkPolicy that lets a baseline's Pods reach what those of its fork cannot, because they lack its labels."""
    namespace = sandbox.metadata.namespace
    policies = world.network_policies.list(namespace)
    if not policies:
        return None
    for fork in plan.forks:
        had, has = Way(_baseline(fork, namespace)), Way(_pods(fork, namespace))
        policy = lost_way(world, "Egress", had, has) or lost_peer(world, "Ingress", had, has, policies)
        if policy is not None and fork.deployment is not None:
            name = fork.reference.name
            what = f"NetworkPolicy {policy.metadata.name} lets the Pods of {name} reach what those of {fork.workload} cannot"
            return Problem(reasons.POLICY_BLOCKS_TRAFFIC, f"{what}: keep the labels that it goes by (preservedLabels)")
    return None


def _baseline(fork: PlannedFork, namespace: str) -> Party:
    return Party(namespace, fork.baseline.pod_labels if fork.baseline is not None else {})


def _pods(fork: PlannedFork, namespace: str) -> Party:
    template = fork.deployment["spec"]["template"] if fork.deployment is not None else {"metadata": {"labels": {}}}
    return Party(namespace, template["metadata"]["labels"])
