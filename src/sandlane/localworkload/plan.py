"""Whether a LocalWorkload can stand in for its workload, and what would be routed to it. Pure."""

from __future__ import annotations

import msgspec

from sandlane.api import reasons
from sandlane.kube.resource import Key
from sandlane.routing.build import protocol, service_ports
from sandlane.world.records import LocalWorkload
from sandlane.world.world import World


class Problem(msgspec.Struct, frozen=True):
    """Why it is not accepted."""

    reason: str
    message: str


def check(world: World, local: LocalWorkload) -> Problem | None:
    """The first thing that is in the way, or None."""
    namespace, spec = local.metadata.namespace, local.spec
    sandbox = world.sandboxes.get(Key(namespace, spec.sandbox))
    if sandbox is None:
        return Problem(reasons.SANDBOX_NOT_FOUND, f"spec.sandbox: there is no Sandbox {spec.sandbox} in {namespace}")
    baseline = world.baseline(namespace, spec.from_)
    if baseline is None:
        kind = f"{spec.from_.kind} {spec.from_.name}"
        return Problem(reasons.BASELINE_NOT_FOUND, f"spec.from: there is no {kind} in {namespace}")
    for fork in sandbox.spec.forks:
        if (fork.fork_of.kind, fork.fork_of.name) == (spec.from_.kind, spec.from_.name):
            why = f"spec.from: sandbox {spec.sandbox} forks {spec.from_.kind} {spec.from_.name}; it can do one or the other"
            return Problem(reasons.INVALID_SPEC, why)
    has = sorted({port.container_port for port in baseline.spec.template.spec.ports()})
    for index, mapping in enumerate(spec.mappings):
        if has and mapping.port not in has:
            ports = ", ".join(map(str, has))
            why = f"spec.mappings[{index}].port: {spec.from_.name} has no container port {mapping.port}; it has {ports}"
            return Problem(reasons.INVALID_SPEC, why)
    keyless = {mapping.port for mapping in spec.mappings if not mapping.all_connections}
    for service, port, number in service_ports(world, baseline):
        if number in keyless and protocol(port) == "tcp":
            why = (
                f"spec.mappings: port {number} is plain TCP by Service {service.metadata.name} (port {port.port}), whose "
                "connections carry no routing key: with allConnections: true in its mapping the laptop takes everybody's"
            )
            return Problem(reasons.INVALID_SPEC, why)
    if not spec.mappings:
        return Problem(reasons.INVALID_SPEC, "spec.mappings: name at least one port of the workload")
    return None
