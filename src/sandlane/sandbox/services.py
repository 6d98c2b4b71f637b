"""The fork's own Services: one for each Service of the baseline, with the ports that the fork's containers serve. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sandlane.api.types import ServicePortStatus, ServiceStatus
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Object
from sandlane.sandbox import names
from sandlane.world.records import ContainerPort, Service, ServicePort


class Override(msgspec.Struct, frozen=True):
    """A Service of the baseline, the fork's Service that stands in for it, and where its ports lead."""

    service: Service
    name: str
    ports: tuple[tuple[ServicePort, int | str], ...]
    missing: tuple[ServicePort, ...]

    @property
    def status(self) -> ServiceStatus:
        """As it is reported."""
        return ServiceStatus(
            from_=self.service.metadata.name,
            to=self.name,
            ports=tuple(ServicePortStatus(port.port, port.name, port.protocol) for port, _ in self.ports),
            missing_ports=tuple(port.port for port in self.missing),
        )


def override(
    sandbox: ObjectMeta,
    service: Service,
    baseline: str,
    before: Iterable[ContainerPort],
    after: Iterable[ContainerPort],
) -> Override:
    """How a Service leads to the fork of `baseline`, whose containers' ports were `before` in the baseline and are `after` now."""
    before, after = list(before), list(after)
    found, missing = [], []
    for port in service.spec.ports:
        target = resolve(port, before, after)
        if target is None:
            missing.append(port)
        else:
            found.append((port, target))
    name = names.service_name(sandbox, service.metadata.name, baseline)
    return Override(service, name, tuple(found), tuple(missing))


def resolve(port: ServicePort, before: list[ContainerPort], after: list[ContainerPort]) -> int | str | None:
    """The fork's container port behind a Service port, or None.

    A port that a patch renamed is found by its number, one that it renumbered by its name; a number that no container
    of the baseline declares needs no declaration in the fork either.
    """
    target = port.target
    same = [each for each in after if each.protocol == port.protocol]
    was = [each for each in before if each.protocol == port.protocol]
    if isinstance(target, str):
        if any(each.name == target for each in same):
            return target
        numbers = {each.container_port for each in was if each.name == target}
        return next((each.container_port for each in same if each.container_port in numbers), None)
    declared = [each for each in was if each.container_port == target]
    if not declared or any(each.container_port == target for each in same):
        return target
    called = {each.name for each in declared if each.name}
    return next((each.container_port for each in same if each.name in called), None)


def make_service(
    override: Override, *, namespace: str, fork: str, labels: dict[str, str], owner: Object
) -> Object | None:
    """The fork's Service; None when no port of it is served (a Service needs one)."""
    if not override.ports:
        return None
    ports = []
    for port, target in override.ports:
        made: Object = {"port": port.port, "protocol": port.protocol, "targetPort": target}
        if port.name:
            made["name"] = port.name
        if port.app_protocol:
            made["appProtocol"] = port.app_protocol
        ports.append(made)
    spec: Object = {"type": "ClusterIP", "selector": names.pod_selector(fork), "ports": ports}
    like = override.service.spec
    if like.publish_not_ready_addresses:
        spec["publishNotReadyAddresses"] = True
    if like.ip_families:
        spec |= {"ipFamilies": list(like.ip_families), "ipFamilyPolicy": like.ip_family_policy or "SingleStack"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": override.name, "namespace": namespace, "labels": labels, "ownerReferences": [owner]},
        "spec": spec,
    }
