"""What is around workloads and limits them, as frozen records: volume claims, NetworkPolicies, ResourceQuotas."""

from __future__ import annotations

from typing import Any

import msgspec

from sandlane.kube.metadata import ObjectMeta
from sandlane.world.records import LabelSelector, Struct


class ClaimSpec(Struct, frozen=True, gc=False):
    """What of a claim's spec matters."""

    access_modes: tuple[str, ...] | None = None


class PersistentVolumeClaim(Struct, frozen=True, gc=False):
    """A PersistentVolumeClaim."""

    metadata: ObjectMeta
    spec: ClaimSpec = ClaimSpec()

    @property
    def shared(self) -> bool:
        """Whether Pods on several nodes may use it at the same time."""
        return any(mode.endswith("Many") for mode in self.spec.access_modes or ())


class PolicyPort(Struct, frozen=True, gc=False):
    """Ports that a rule allows; none of them: every port of the protocol."""

    port: int | str | None = None
    end_port: int = 0
    protocol: str = "TCP"


class PolicyPeer(Struct, frozen=True, gc=False):
    """Who a rule allows."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: dict[str, Any] | None = None


class PolicyRule(Struct, frozen=True, gc=False):
    """An ingress (`from`) or egress (`to`) rule; no peers: everyone, no ports: every port."""

    from_: tuple[PolicyPeer, ...] | None = msgspec.field(name="from", default=None)
    to: tuple[PolicyPeer, ...] | None = None
    ports: tuple[PolicyPort, ...] | None = None


class NetworkPolicySpec(Struct, frozen=True, gc=False):
    """What a NetworkPolicy selects and allows."""

    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[str, ...] | None = None
    ingress: tuple[PolicyRule, ...] | None = None
    egress: tuple[PolicyRule, ...] | None = None


class NetworkPolicy(Struct, frozen=True, gc=False):
    """A NetworkPolicy."""

    metadata: ObjectMeta
    spec: NetworkPolicySpec = NetworkPolicySpec()


class ResourceQuotaStatus(Struct, frozen=True, gc=False):
    """Limits and use, as quantities by resource name."""

    hard: dict[str, str] | None = None
    used: dict[str, str] | None = None


class ResourceQuota(Struct, frozen=True, gc=False):
    """A ResourceQuota."""

    metadata: ObjectMeta
    status: ResourceQuotaStatus = ResourceQuotaStatus()
