"""What NetworkPolicies allow: whether Pods with some labels may be reached by, or may reach, Pods with others. Pure.

The rules are those of https://kubernetes.io/docs/concepts/services-networking/network-policies/: without a policy that
selects a Pod everything is allowed in that direction, else only what some policy allows. A peer by IP block means Pods whose
addresses are known to be in it; where addresses are not known, or a network plugin does not look at those of Pods, it counts
as allowing them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sandlane.api.labels import FORK, ROUTER
from sandlane.kube.resource import Key
from sandlane.kube.selectors import SelectorError, matches, selector_of
from sandlane.world.records import ContainerPort, LabelSelector
from sandlane.world.surroundings import NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from sandlane.world.world import World

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that every Namespace has."""
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Party(msgspec.Struct, frozen=True):
    """Pods of one sort: their namespace, labels, and addresses as far as they are known."""

    namespace: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...] = ()


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
        return all(_in_block(peer.ip_block, address) for address in other.addresses)
    if peer.namespace_selector is None:
        if other.namespace != namespace:
            return False
    else:
        found = world.namespaces.get(Key("", other.namespace))
        known = found.metadata.labels if found else {}
        labels = {NAMESPACE_NAME: other.namespace} | known
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

    Both are in one namespace. A peer is let through as well where a rule names everything that it selects, by selectors
    that are as wide or wider.
    """
    policies = world.network_policies.list(has.party.namespace)
    selecting = _selecting(policies, direction, has.party)
    if not selecting:
        return None
    granted = [rule for policy in selecting for rule in _rules(policy, direction)]

    def lost(rule: PolicyRule) -> bool:
        if had.port is not None and not _port_allowed(rule, had.port):
            return False
        others = [peer for peer in _peers(rule, direction) or (None,) if not _is_only(peer, has.party)]
        return not all(
            any(
                _covers(world, _peers(each, direction), peer, has.party.namespace) and _ports_granted(rule, each, has)
                for each in granted
            )
            for peer in others
        )

    before = _selecting(policies, direction, had.party)
    if not before:  # everything was allowed
        return selecting[0] if lost(PolicyRule()) else None
    return next((policy for policy in before if any(map(lost, _rules(policy, direction)))), None)


def lost_peer(
    world: World, direction: str, had: Way, has: Way, policies: Iterable[NetworkPolicy]
) -> NetworkPolicy | None:
    """A policy, of these, that lets its Pods be reached from (`Ingress`) or reach (`Egress`) `had`, but not `has`."""
    policies = [policy for policy in policies if _rules(policy, direction) and direction in _types(policy)]
    for policy in policies:
        namespace, selector = policy.metadata.namespace, policy.spec.pod_selector
        rules = [
            rule
            for rule in _rules(policy, direction)
            if (had.port is None or _port_allowed(rule, had.port))
            and _peer_allowed(world, _peers(rule, direction), had.party, namespace)
        ]
        if not rules or _is_only(PolicyPeer(selector), has.party):
            continue
        granted = [
            rule
            for each in policies
            if each.metadata.namespace == namespace and _implies(selector, each.spec.pod_selector)
            for rule in _rules(each, direction)
            if _peer_allowed(world, _peers(rule, direction), has.party, namespace)
        ]
        if not all(any(_ports_granted(rule, each, has) for each in granted) for rule in rules):
            return policy
    return None


def _selecting(policies: Iterable[NetworkPolicy], direction: str, party: Party) -> list[NetworkPolicy]:
    return [p for p in policies if direction in _types(p) and selects(p.spec.pod_selector, party.labels)]


def _rules(policy: NetworkPolicy, direction: str) -> tuple[PolicyRule, ...]:
    return (policy.spec.ingress if direction == "Ingress" else policy.spec.egress) or ()


def _peers(rule: PolicyRule, direction: str) -> tuple[PolicyPeer, ...] | None:
    return rule.from_ if direction == "Ingress" else rule.to


def _ports_granted(rule: PolicyRule, other: PolicyRule, has: Way) -> bool:
    if has.port is not None:
        return _port_allowed(other, has.port)
    return not other.ports or other.ports == rule.ports


# -- what selects as much or more -------------------------------------------------------------------------------


def _is_only(peer: PolicyPeer | None, party: Party) -> bool:
    """Whether a peer means nobody but Pods of ours like these, which do not call each other."""
    if peer is None or peer.pod_selector is None:
        return False
    known = {key: _values(peer.pod_selector, key) for key in (ROUTER, FORK) if key in party.labels}
    return any(values == {party.labels[key]} for key, values in known.items())


def _covers(world: World, peers: tuple[PolicyPeer, ...] | None, narrow: PolicyPeer | None, namespace: str) -> bool:
    """Whether the peers of a rule (none: everyone) mean all whom another one means."""
    if not peers:
        return True
    return narrow is not None and any(_wider(world, peer, narrow, namespace) for peer in peers)


def _wider(world: World, wide: PolicyPeer, narrow: PolicyPeer, namespace: str) -> bool:
    if wide == narrow:
        return True
    if wide.ip_block is not None or narrow.ip_block is not None:
        both = wide.ip_block is not None and narrow.ip_block is not None
        return both and _within(narrow.ip_block or {}, wide.ip_block or {})
    if narrow.namespace_selector is None:
        if wide.namespace_selector is not None:
            own = PolicyPeer(namespace_selector=wide.namespace_selector)
            if not _is_peer(world, own, Party(namespace, {}), namespace):
                return False
    elif wide.namespace_selector is None:
        if _values(narrow.namespace_selector, NAMESPACE_NAME) != {namespace}:
            return False
    elif not _implies(narrow.namespace_selector, wide.namespace_selector):
        return False
    return _implies(narrow.pod_selector or LabelSelector(), wide.pod_selector or LabelSelector())


def _implies(narrow: LabelSelector, wide: LabelSelector) -> bool:
    """Whether whatever `narrow` selects is selected by `wide`, as can be told from how they are written."""
    demands: list[dict[str, Any]] = [
        {"key": k, "operator": "In", "values": [v]} for k, v in (wide.match_labels or {}).items()
    ]
    demands += wide.match_expressions or ()
    for demand in demands:
        values = _values(narrow, demand["key"])
        met = LabelSelector(match_expressions=(demand,))
        if demand in (narrow.match_expressions or ()):
            continue
        if not values or not all(selects(met, {demand["key"]: value}) for value in values):
            return False
    return True


def _values(selector: LabelSelector, key: str) -> set[str]:
    """The values that a label must have one of; empty when it may have any or be missing."""
    if key in (selector.match_labels or {}):
        return {(selector.match_labels or {})[key]}
    for expression in selector.match_expressions or ():
        if expression.get("key") == key and expression.get("operator") == "In":
            return set(expression.get("values") or ())
    return set()


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    """Whether an address is in an `ipBlock`."""
    try:
        found = ipaddress.ip_address(address)
        inside, outside = _networks(block)
    except ValueError:
        return False
    return found in inside and not any(found in each for each in outside)


def _within(narrow: Mapping[str, Any], wide: Mapping[str, Any]) -> bool:
    """Whether an `ipBlock` is within another one."""
    try:
        inner, missing = _networks(narrow)
        outer, left_out = _networks(wide)
        return inner.subnet_of(outer) and all(  # type: ignore[arg-type]
            not each.overlaps(inner) or any(each.subnet_of(other) for other in missing)  # type: ignore[arg-type]
            for each in left_out
        )
    except (ValueError, TypeError):
        return False


def _networks(block: Mapping[str, Any]) -> tuple[_Network, list[_Network]]:
    """What is in an `ipBlock`, and what is left out of it. Raises `ValueError`."""
    excepted = [ipaddress.ip_network(each, strict=False) for each in block.get("except") or ()]
    return ipaddress.ip_network(block.get("cidr", ""), strict=False), excepted
