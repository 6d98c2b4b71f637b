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
    selecting = _selecting(world.network_policies.list(party.namespace), direction, party)
    for policy in selecting:
        for rule in _rules(policy, direction):
            if _port_allowed(rule, port) and _peer_allowed(world, _peers(rule, direction), other, party.namespace):
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


# -- what other Pods have, and these have not -------------------------------------------------------------------


class Way(msgspec.Struct, frozen=True):
    """Pods and the port at which they are reached; no port: only what they may reach themselves matters."""

    party: Party
    port: ContainerPort | None = None


def lost_way(world: World, direction: str, had: Way, has: Way) -> NetworkPolicy | None:
    """A policy that lets traffic in to (`Ingress`) or out of (`Egress`) Pods of `had`, for which those of `has` have none.

    Both are in one namespace. Rules are compared as they are written, so two that say the same in other words differ.
    """
    policies = world.network_policies.list(has.party.namespace)
    selecting = _selecting(policies, direction, has.party)
    if not selecting:
        return None
    granted = [rule for policy in selecting for rule in _rules(policy, direction)]
    before = _selecting(policies, direction, had.party)
    if not before:  # everything was allowed
        return None if _granted(PolicyRule(), direction, had, has, granted) else selecting[0]
    for policy in before:
        if not all(_granted(rule, direction, had, has, granted) for rule in _rules(policy, direction)):
            return policy
    return None


def lost_peer(world: World, direction: str, had: Way, has: Way) -> NetworkPolicy | None:
    """A policy that lets other Pods of the namespace be reached from (`Ingress`) or reach (`Egress`) `had`, but not `has`."""
    namespace = has.party.namespace
    policies = [policy for policy in world.network_policies.list(namespace) if direction in _types(policy)]
    for policy in policies:
        same = [each for each in policies if each.spec.pod_selector in (policy.spec.pod_selector, LabelSelector())]
        granted = [rule for each in same for rule in _rules(each, direction)]
        for rule in _rules(policy, direction):
            peers = _peers(rule, direction)
            named = peers and any(p.ip_block is None and _is_peer(world, p, had.party, namespace) for p in peers)
            if not named or (had.port is not None and not _port_allowed(rule, had.port)):
                continue
            if not any(
                _peer_allowed(world, _peers(each, direction), has.party, namespace) and _ports_granted(rule, each, has)
                for each in granted
            ):
                return policy
    return None


def _selecting(policies: Iterable[NetworkPolicy], direction: str, party: Party) -> list[NetworkPolicy]:
    return [p for p in policies if direction in _types(p) and selects(p.spec.pod_selector, party.labels)]


def _rules(policy: NetworkPolicy, direction: str) -> tuple[PolicyRule, ...]:
    return (policy.spec.ingress if direction == "Ingress" else policy.spec.egress) or ()


def _peers(rule: PolicyRule, direction: str) -> tuple[PolicyPeer, ...] | None:
    return rule.from_ if direction == "Ingress" else rule.to


def _granted(rule: PolicyRule, direction: str, had: Way, has: Way, granted: Iterable[PolicyRule]) -> bool:
    """Whether what a rule allows to `had` is allowed to `has` too."""
    if had.port is not None and not _port_allowed(rule, had.port):
        return True
    peers = _peers(rule, direction)
    return any(_peers(each, direction) in (peers, None, ()) and _ports_granted(rule, each, has) for each in granted)


def _ports_granted(rule: PolicyRule, other: PolicyRule, has: Way) -> bool:
    if has.port is not None:
        return _port_allowed(other, has.port)
    return not other.ports or other.ports == rule.ports
