"""Which sandbox takes the place of a workload for which key: the rules that the routes API serves. Pure.

Where `rules.py` speaks of Service ports, these speak of workloads: a consumer of messages has no Service, and has to know
all the same whether a message with a key is meant for itself or for its fork.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from sandlane.api.keys import routing_key
from sandlane.api.types import OnDisconnect
from sandlane.routing.groups import matched_sandboxes
from sandlane.routing.tunnels import Held
from sandlane.world.records import LocalWorkload, RouteGroup, Sandbox
from sandlane.world.world import World


class Baseline(NamedTuple):
    """A workload as its owner deployed it."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"


class ServiceRoute(msgspec.Struct, frozen=True):
    """Where a Service port of the baseline leads with the key: the fork's own Service, at the same port."""

    service: str
    port: int
    host: str


class WorkloadRule(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Everything with this key that is meant for the baseline is meant for the sandbox instead."""

    key: str
    namespace: str
    """Of the baseline, the sandbox and the workload."""
    kind: str
    name: str
    sandbox: str
    via: str
    """Whose key it is: `Sandbox NAMESPACE/NAME` or `RouteGroup NAMESPACE/NAME`."""
    workload: str
    """The fork (a Deployment), or the LocalWorkload."""
    local: bool = False
    routes: tuple[ServiceRoute, ...] = ()
    """Empty for a laptop, which only the routers reach, and for a workload without a Service."""

    @property
    def baseline(self) -> Baseline:
        """The workload that is replaced."""
        return Baseline(self.namespace, self.kind, self.name)

    @property
    def id(self) -> tuple[Baseline, str]:
        """There is one rule for each baseline and key."""
        return self.baseline, self.key


def workload_rules(world: World, held: Held | None = None) -> list[WorkloadRule]:
    """All rules, in order of baseline and key."""
    owners: list[Sandbox | RouteGroup] = [*world.sandboxes, *world.route_groups]
    return sorted((rule for owner in owners for rule in rules_of(world, owner, held)), key=lambda rule: rule.id)


def rules_of(
    world: World, owner: Sandbox | RouteGroup, held: Held | None = None, members: list[Sandbox] | None = None
) -> list[WorkloadRule]:
    """The rules of one key: none while its owner is going, or an older object has the key.

    `members`: a group's sandboxes, the oldest first, from who knows them already.
    """
    key = routing_key(owner.metadata.uid, owner.spec.routing_key)
    if owner.metadata.deleting or world.with_key(key)[0] is not owner:
        return []
    found: dict[Baseline, WorkloadRule] = {}
    via = f"{type(owner).__name__} {owner.metadata.key}"
    if isinstance(owner, Sandbox):
        members = [owner]
    for sandbox in matched_sandboxes(world, owner) if members is None else members:  # type: ignore[arg-type]
        for rule in _of_sandbox(world, sandbox, key, via, held):
            found.setdefault(rule.baseline, rule)  # of two sandboxes the older one counts
    return list(found.values())


def _of_sandbox(world: World, sandbox: Sandbox, key: str, via: str, held: Held | None) -> Iterable[WorkloadRule]:
    if sandbox.metadata.deleting or sandbox.spec.suspended:
        return
    namespace, name = sandbox.metadata.key
    references = {fork.fork_of.name for fork in sandbox.spec.forks}
    for fork in sandbox.status.forks:
        if not fork.ever_ready or fork.baseline.name not in references:
            continue
        routes = tuple(
            ServiceRoute(service.from_, port.port, f"{service.to}.{namespace}.svc")
            for service in fork.services
            for port in service.ports
        )
        yield WorkloadRule(
            key, namespace, fork.baseline.kind, fork.baseline.name, name, via, fork.workload, routes=routes
        )
    for local in world.local_workloads.list(namespace):
        if local.spec.sandbox == name and _takes_over(local, held):
            baseline = local.spec.from_
            yield WorkloadRule(key, namespace, baseline.kind, baseline.name, name, via, local.metadata.name, local=True)


def _takes_over(local: LocalWorkload, held: Held | None) -> bool:
    """A laptop that is away keeps its place unless the baseline shall stand in: as for requests."""
    if local.metadata.deleting:
        return False
    return bool((held or {}).get(local.metadata.uid)) or local.spec.on_disconnect is not OnDisconnect.BASELINE
