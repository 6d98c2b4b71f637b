"""What NetworkPolicies allow: whether Pods with some labels may be reached by, or may reach, Pods with others. Pure.

The rules are those of https://kubernetes.io/docs/concepts/services-networking/network-policies/: without a policy that
selects a Pod everything is allowed in that direction, else only what some policy allows. Peers by IP block are taken as
allowed, since addresses of Pods are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from sandlane.kube.resource import Key
from sandlane.kube.selectors import SelectorError, matches, selector_of
from sandlane.world.records import ContainerPort, LabelSelector
from sandlane.world.surroundings import NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from sandlane.world.world import World


class Party(msgspec.Struct, frozen=True):
    """Pods of one sort: their namespace and labels."""

    namespace: str
    labels: Mapping[str, str]


def blocks_ingress(world: World, target: Party, port: ContainerPort, source: Party) -> NetworkPolicy | None:
    """A policy because of which `source` cannot reach `target` at a container port, or None when it can."""
    return _blocks(world, target, port, source, "Ingress")


def blocks_egress(world: World, source: Party, port: ContainerPort, target: Party) -> NetworkPolicy | None:
    """A policy because of which `source` may not open connections to `target` at a container port."""
    return _blocks(world, source, port, target, "Egress")


def _blocks(world: World, party: Party, port: ContainerPort, other: Party, direction: str) -> NetworkPolicy | None:
    selecting = [
        policy
        for policy in world.network_policies.list(party.namespace)
        if direction in _types(policy) and selects(policy.spec.pod_selector, party.labels)
    ]
    for policy in selecting:
        rules = policy.spec.ingress if direction == "Ingress" else policy.spec.egress
        for rule in rules or ():
            peers = rule.from_ if direction == "Ingress" else rule.to
            if _port_allowed(rule, port) and _peer_allowed(world, peers, other, party.namespace):
                return None
    return selecting[0] if selecting else None


def _types(policy: NetworkPolicy) -> tuple[str, ...]:
    if policy.spec.policy_types is not None:
        return policy.spec.policy_types
    return ("Ingress", "Egress") if policy.spec.egress is not None else ("Ingress",)


def selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether a `LabelSelector` selects Pods (or namespaces) with these labels; an empty one selects all."""
    if selector is None:
        return False
    try:
        parsed = selector_of({"matchLabels": selector.match_labels, "matchExpressions": selector.match_expressions})
    except (SelectorError, KeyError):
        return False
    return matches(parsed or (), labels)


def _port_allowed(rule: PolicyRule, port: ContainerPort) -> bool:
    if not rule.ports:
        return True
    return any(_same_port(allowed, port) for allowed in rule.ports)


def _same_port(allowed: PolicyPort, port: ContainerPort) -> bool:
    if allowed.protocol != port.protocol:
        return False
    if allowed.port is None:
        return True
    if isinstance(allowed.port, str):
        return allowed.port == port.name
    return allowed.port <= port.container_port <= (allowed.end_port or allowed.port)


def _peer_allowed(world: World, peers: Iterable[PolicyPeer] | None, other: Party, namespace: str) -> bool:
    if not peers:
        return True
    return any(_is_peer(world, peer, other, namespace) for peer in peers)


def _is_peer(world: World, peer: PolicyPeer, other: Party, namespace: str) -> bool:
    if peer.ip_block is not None:
        return True
    if peer.namespace_selector is None:
        if other.namespace != namespace:
            return False
    else:
        found = world.namespaces.get(Key("", other.namespace))
        known = found.metadata.labels if found else {}
        labels = {"kubernetes.io/metadata.name": other.namespace} | known
        if not selects(peer.namespace_selector, labels):
            return False
    return peer.pod_selector is None or selects(peer.pod_selector, other.labels)
