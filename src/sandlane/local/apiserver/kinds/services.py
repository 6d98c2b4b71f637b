"""Services: defaults, addresses and node ports, and what may change."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.kinds.names import (
    BAD_ADDRESS,
    BAD_RANGE,
    check_labels,
    dns_label,
    is_address,
    is_range,
    port_name,
    port_number,
    qualified_name,
    subdomain,
)

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
NODE_PORTS = range(30000, 32768)
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
_ADDRESS_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")


class AddressError(Exception):
    """An address or node port cannot be given out. `field` and `detail` say why."""

    def __init__(self, field: str, value: Any, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.value = value
        self.detail = detail

    @property
    def fault(self) -> FieldError:
        """The same as a fault of the object."""
        return FieldError("FieldValueInvalid", self.field, self.value, self.detail)


class Addresses(Protocol):
    """Who gives out cluster addresses and node ports."""

    def cluster_ip(self, wanted: str) -> str:
        """`wanted`, or a free address where it is empty. Raises AddressError."""

    def node_port(self, wanted: int) -> int:
        """`wanted`, or a free port where it is 0. Raises AddressError."""


class AddressPool:
    """Addresses of one Service range. What was just given out is not given again; what lives is asked for now and then, and
    whenever nothing else is free.

    Owned by the API server; one caller at a time.
    """

    _RECENT, _RENEW = 512, 256

    def __init__(self, cidr: str, services: Any) -> None:
        """`services()` lists the Service objects that live now."""
        self._network = ipaddress.ip_network(cidr)
        self._services = services
        self._next = 0
        self._next_port = 0
        self._recent: dict[str | int, None] = {}
        self._used: set[str] = set()
        self._given = self._RENEW

    def cluster_ip(self, wanted: str) -> str:
        """See Addresses."""
        if wanted:
            used = set(_addresses(self._services()))
            try:
                inside = ipaddress.ip_address(wanted) in self._network
            except ValueError:
                detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                raise AddressError("spec.clusterIPs[0]", wanted, detail) from None
            if not inside:
                text = (
                    f"the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {self._network}"
                )
                raise AddressError("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {text}")
            if wanted in used:
                text = f"failed to allocate IP {wanted}: provided IP is already allocated"
                raise AddressError("spec.clusterIPs", [wanted], text)
            self._remember(wanted)
            return wanted
        if self._given < self._RENEW and (found := self._free()):
            return found
        self._used, self._given = set(_addresses(self._services())), 0
        if found := self._free():
            return found
        raise AddressError("spec.clusterIPs", [], f"failed to allocate an address from {self._network}: range is full")

    def _free(self) -> str:
        """An address that nobody has; empty when there is none."""
        size = self._network.num_addresses - 2
        for _ in range(size):
            address = str(self._network[1 + self._next % size])
            self._next += 1
            if address not in self._used and address not in self._recent:
                self._remember(address)
                self._given += 1
                return address
        return ""

    def node_port(self, wanted: int) -> int:
        """See Addresses."""
        used = set(_node_ports(self._services()))
        if wanted:
            if wanted not in NODE_PORTS:
                text = "provided port is not in the valid range. The range of valid ports is 30000-32767"
                raise AddressError("spec.ports[0].nodePort", wanted, text)
            if wanted in used:
                raise AddressError("spec.ports[0].nodePort", wanted, "provided port is already allocated")
            return wanted
        for _ in NODE_PORTS:
            port = NODE_PORTS[self._next_port % len(NODE_PORTS)]
            self._next_port += 1
            if port not in used and port not in self._recent:
                self._remember(port)
                return port
        raise AddressError("spec.ports[0].nodePort", 0, "range is full")

    def _remember(self, given: str | int) -> None:
        self._recent[given] = None
        if len(self._recent) > self._RECENT:
            del self._recent[next(iter(self._recent))]


def addresses_of(service: Object) -> Object:
    """A Service with nothing but what the pool asks for."""
    spec = service.get("spec") or {}
    ports = [{"nodePort": port["nodePort"]} for port in spec.get("ports") or () if port.get("nodePort")]
    health = {"healthCheckNodePort": spec["healthCheckNodePort"]} if spec.get("healthCheckNodePort") else {}
    return {"spec": {"clusterIPs": spec.get("clusterIPs") or (), "ports": ports} | health}


def _addresses(services: Iterable[Object]) -> Iterator[str]:
    for service in services:
        yield from (service.get("spec") or {}).get("clusterIPs") or ()


def _node_ports(services: Iterable[Object]) -> Iterator[int]:
    for service in services:
        for port in (service.get("spec") or {}).get("ports") or ():
            if port.get("nodePort"):
                yield port["nodePort"]
        if health := (service.get("spec") or {}).get("healthCheckNodePort"):
            yield health


def default_service(obj: Object) -> None:
    """Defaults of a Service."""
    spec = obj.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if spec["sessionAffinity"] == "ClientIP":
        spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {}).setdefault("timeoutSeconds", 10800)
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    for port in spec.get("ports") or []:
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    outside = spec["type"] in ("NodePort", "LoadBalancer") or spec.get("externalIPs")
    if outside and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] != "ExternalName" and spec.get("internalTrafficPolicy") is None:
        spec["internalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
        spec["allocateLoadBalancerNodePorts"] = True


def allocate_service(obj: Object, old: Object | None, addresses: Addresses) -> None:
    """Give a Service that may be stored its addresses and node ports."""
    spec = obj["spec"]
    before = (old or {}).get("spec") or {}
    if spec["type"] == "ExternalName":
        return
    wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or []), "")
    if wanted != "None" and not before.get("clusterIP"):
        wanted = addresses.cluster_ip(wanted)
    family = "IPv6" if ":" in wanted else "IPv4"
    if wanted != "None" and (spec.get("ipFamilies") or [family])[0] != family:
        raise AddressError("spec.ipFamilies[0]", spec["ipFamilies"][0], "not configured on this cluster")
    spec["clusterIP"] = wanted
    spec["clusterIPs"] = [wanted]
    if wanted == "None" and not spec.get("selector") and not spec.get("ipFamilyPolicy"):
        spec["ipFamilyPolicy"] = "RequireDualStack"
        spec.setdefault("ipFamilies", ["IPv4", "IPv6"])
    spec.setdefault("ipFamilies", [family])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec["type"] == "NodePort" or (spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts")):
        _allocate_ports(spec, before, addresses)
    if spec["type"] == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
        wanted = spec.get("healthCheckNodePort") or before.get("healthCheckNodePort")
        spec["healthCheckNodePort"] = wanted or addresses.node_port(0)


def _allocate_ports(spec: Object, before: Object, addresses: Addresses) -> None:
    known = {(port.get("port"), port.get("protocol")): port.get("nodePort") for port in before.get("ports") or []}
    taken = {port.get("nodePort") for port in before.get("ports") or []}
    for port in spec.get("ports") or []:
        if not port.get("nodePort"):
            port["nodePort"] = known.get((port.get("port"), port.get("protocol"))) or addresses.node_port(0)
        elif port["nodePort"] not in taken:
            addresses.node_port(port["nodePort"])


def prepare_service_update(new: Object, old: Object) -> None:
    """An update keeps the addresses that it does not name; a change of type takes some away."""
    spec, before = new["spec"], old["spec"]
    if spec["type"] != "ExternalName" and before.get("type") != "ExternalName":
        if not spec.get("clusterIP"):
            spec["clusterIP"] = before.get("clusterIP", "")
            spec["clusterIPs"] = list(before.get("clusterIPs") or [])
        elif spec["clusterIP"] != before.get("clusterIP") and spec.get("clusterIPs") == before.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        for key in ("ipFamilies", "ipFamilyPolicy"):
            if spec.get(key) is None and key in before:
                spec[key] = before[key]
    if spec["type"] == "ExternalName" and before.get("type") != "ExternalName":
        for key in _ADDRESS_FIELDS:
            if spec.get(key) == before.get(key):
                spec.pop(key, None)
    if spec["type"] == "ClusterIP" and before.get("type") in ("NodePort", "LoadBalancer"):
        held = {port.get("nodePort") for port in before.get("ports") or []}
        for port in spec.get("ports") or []:
            if port.get("nodePort") in held:
                port.pop("nodePort", None)
        if spec.get("externalTrafficPolicy") == before.get("externalTrafficPolicy"):
            spec.pop("externalTrafficPolicy", None)


def check_service(faults: Faults, obj: Object) -> None:
    """A Service's spec."""
    spec = obj["spec"]
    kind = spec.get("type")
    ports = spec.get("ports") or []
    if kind not in TYPES:
        faults.not_supported("spec.type", kind, TYPES)
    if kind == "ExternalName":
        name = (spec.get("externalName") or "").removesuffix(".")
        if not name:
            faults.required("spec.externalName")
        else:
            for detail in subdomain(name):
                faults.invalid("spec.externalName", spec["externalName"], detail)
        if spec.get("clusterIP"):
            faults.forbidden("spec.clusterIPs[0]", "may not be set when `type` is 'ExternalName'")
    elif not ports and spec.get("clusterIP") != "None":
        faults.required("spec.ports")
    if kind in ("NodePort", "LoadBalancer") and spec.get("clusterIP") == "None":
        faults.invalid(
            "spec.clusterIPs[0]",
            "None",
            "may not be set to 'None' for NodePort services"
            if kind == "NodePort"
            else "may not be set to 'None' for LoadBalancer services",
        )
    check_labels(faults, spec.get("selector"), "spec.selector")
    faults.one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"), required=True)
    if spec.get("sessionAffinity") == "ClientIP":
        seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds", 0)
        if not 0 < seconds <= 86400:
            at = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            faults.invalid(at, seconds, "must be greater than 0 and less than 86400")
    if spec.get("ipFamilyPolicy") == "RequireDualStack" and (spec.get("selector") or spec.get("clusterIP") != "None"):
        text = "this cluster is not configured for dual-stack services"
        faults.invalid("spec.ipFamilyPolicy", "RequireDualStack", text)
    faults.one_of("spec.internalTrafficPolicy", spec.get("internalTrafficPolicy"), ("Cluster", "Local"))
    faults.one_of("spec.externalTrafficPolicy", spec.get("externalTrafficPolicy"), ("Cluster", "Local"))
    _check_ports(faults, ports, kind)
    for index, address in enumerate(spec.get("externalIPs") or []):
        if not is_address(address):
            faults.invalid(f"spec.externalIPs[{index}]", address, BAD_ADDRESS)
    ranges = spec.get("loadBalancerSourceRanges") or []
    if ranges and kind != "LoadBalancer":
        faults.forbidden("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'")
    for index, each in enumerate(ranges):
        if not is_range(each.strip()):
            faults.invalid(f"spec.LoadBalancerSourceRanges[{index}]", each, BAD_RANGE)
    if spec.get("externalTrafficPolicy") and kind not in ("NodePort", "LoadBalancer") and not spec.get("externalIPs"):
        text = "may only be set for externally-accessible services"
        faults.invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], text)
    faults.one_of("spec.trafficDistribution", spec.get("trafficDistribution"), _DISTRIBUTIONS)


def warn_service(faults: Faults, obj: Object) -> None:
    """Warnings about a Service."""
    spec = obj.get("spec") or {}
    if spec.get("externalIPs"):
        faults.warnings.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if spec.get("clusterIP") == "None" and spec.get("sessionAffinity") not in (None, "None"):
        faults.warnings.append("spec.SessionAffinity is ignored for headless services")
    if spec.get("externalName") and spec.get("type") != "ExternalName":
        faults.warnings.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        faults.warnings.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')


def _check_ports(faults: Faults, ports: list[Object], kind: Any) -> None:
    names: set[str] = set()
    pairs: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        at, name = f"spec.ports[{index}]", port.get("name", "")
        if not name:
            if len(ports) > 1:
                faults.required(f"{at}.name")
        else:
            for detail in dns_label(name):
                faults.invalid(f"{at}.name", name, detail)
            if name in names:
                faults.duplicate(f"{at}.name", name)
            names.add(name)
        for detail in port_number(port.get("port", 0)):
            faults.invalid(f"{at}.port", port.get("port", 0), detail)
        faults.one_of(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"), required=True)
        target = port.get("targetPort", 0)
        for detail in port_number(target) if isinstance(target, int) else port_name(target):
            faults.invalid(f"{at}.targetPort", target, detail)
        for detail in qualified_name(port["appProtocol"]) if port.get("appProtocol") else ():
            faults.invalid(f"{at}.appProtocol", port["appProtocol"], detail)
        if port.get("nodePort") and kind in ("ClusterIP", "ExternalName"):
            faults.forbidden(f"{at}.nodePort", f"may not be used when `type` is '{kind}'")
        pair = (port.get("port"), port.get("protocol"))
        if pair in pairs:
            shown = {"Name": "", "Protocol": port.get("protocol"), "AppProtocol": None, "Port": port.get("port")}
            faults.duplicate(at, {**shown, "TargetPort": 0, "NodePort": 0})
        pairs.add(pair)


def check_service_update(faults: Faults, new: Object, old: Object) -> None:
    """The cluster address may not change while the Service has one."""
    before, after = old["spec"], new["spec"]
    if "ExternalName" in (before.get("type"), after.get("type")):
        return
    if before.get("clusterIP") and after.get("clusterIP") != before["clusterIP"]:
        faults.invalid(
            "spec.clusterIPs[0]", after.get("clusterIPs") or [after.get("clusterIP")], "may not change once set"
        )
