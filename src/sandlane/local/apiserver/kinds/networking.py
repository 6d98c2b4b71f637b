"""Defaults and validation of NetworkPolicies, Ingresses, Endpoints and EndpointSlices."""

from __future__ import annotations

import ipaddress
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.names import check_selector, dns_label, port_number, subdomain


def _unset(target: Object, key: str, value: Any) -> None:
    if target.get(key) in (None, ""):
        target[key] = value


def default_network_policy(obj: Object) -> None:
    """Defaults of a NetworkPolicy."""
    spec = obj.setdefault("spec", {})
    for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
        for port in rule.get("ports") or []:
            _unset(port, "protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def check_network_policy(faults: Faults, obj: Object) -> None:
    """A NetworkPolicy's spec."""
    spec = obj["spec"]
    check_selector(faults, spec.get("podSelector"), "spec.podSelector")
    for index, kind in enumerate(spec.get("policyTypes") or []):
        faults.one_of(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress"), required=True)
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or []):
            for place, peer in enumerate(rule.get(peers) or []):
                at = f"spec.{direction}[{index}].{peers}[{place}]"
                if not any(key in peer for key in ("podSelector", "namespaceSelector", "ipBlock")):
                    faults.required(at, "must specify a peer")
                for key in ("podSelector", "namespaceSelector"):
                    check_selector(faults, peer.get(key), f"{at}.{key}")
                _check_block(faults, peer.get("ipBlock"), f"{at}.ipBlock")


def _check_block(faults: Faults, block: Object | None, at: str) -> None:
    if block is None:
        return
    try:
        ipaddress.ip_network(block.get("cidr", ""), strict=False)
    except ValueError:
        faults.invalid(
            f"{at}.cidr", block.get("cidr", ""), "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        )


def check_ingress(faults: Faults, obj: Object) -> None:
    """An Ingress' rules and backends."""
    spec = obj["spec"]
    if not spec.get("rules") and not spec.get("defaultBackend"):
        faults.invalid("spec", spec, "either `defaultBackend` or `rules` must be specified")
    if spec.get("defaultBackend"):
        _check_backend(faults, spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or []):
        at = f"spec.rules[{index}]"
        host = rule.get("host", "")
        if host and not host.startswith("*."):
            for detail in subdomain(host):
                faults.invalid(f"{at}.host", host, detail)
        paths = (rule.get("http") or {}).get("paths") or []
        if "http" in rule and not paths:
            faults.required(f"{at}.http.paths")
        for place, path in enumerate(paths):
            where = f"{at}.http.paths[{place}]"
            kinds = ("Exact", "ImplementationSpecific", "Prefix")
            if path.get("pathType") is None:
                faults.required(f"{where}.pathType", "pathType must be specified")
            else:
                faults.one_of(f"{where}.pathType", path["pathType"], kinds, required=True)
            if path.get("pathType") in ("Exact", "Prefix") and not path.get("path", "").startswith("/"):
                faults.invalid(f"{where}.path", path.get("path", ""), "must be an absolute path")
            _check_backend(faults, path.get("backend") or {}, f"{where}.backend")


def _check_backend(faults: Faults, backend: Object, at: str) -> None:
    service = backend.get("service")
    if service is None:
        if not backend.get("resource"):
            faults.required(at, "must specify a service or a resource backend")
        return
    for detail in dns_label(service.get("name", "")):
        faults.invalid(f"{at}.service.name", service.get("name", ""), detail)
    port = service.get("port") or {}
    if not port.get("name") and not port.get("number"):
        faults.required(f"{at}.service.port", "port name or number is required")
    if port.get("number"):
        for detail in port_number(port["number"]):
            faults.invalid(f"{at}.service.port.number", port["number"], detail)


def default_endpoints(obj: Object) -> None:
    """Ports of Endpoints are TCP unless they say otherwise."""
    for subset in obj.get("subsets") or []:
        for port in subset.get("ports") or []:
            _unset(port, "protocol", "TCP")


def default_endpoint_slice(obj: Object) -> None:
    """Ports of an EndpointSlice have a name and a protocol."""
    for port in obj.get("ports") or []:
        if port.get("name") is None:
            port["name"] = ""
        _unset(port, "protocol", "TCP")


def check_endpoint_slice(faults: Faults, obj: Object) -> None:
    """An EndpointSlice's addresses and ports."""
    faults.one_of("addressType", obj.get("addressType"), ("FQDN", "IPv4", "IPv6"), required=True)
    for index, endpoint in enumerate(obj.get("endpoints") or []):
        at = f"endpoints[{index}]"
        if not endpoint.get("addresses"):
            faults.required(f"{at}.addresses", "must contain at least 1 address")
        for place, address in enumerate(endpoint.get("addresses") or []):
            if obj.get("addressType") in ("IPv4", "IPv6") and not _is_address(address, obj["addressType"]):
                faults.invalid(
                    f"{at}.addresses[{place}]", address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                )
    names: set[str] = set()
    for index, port in enumerate(obj.get("ports") or []):
        if port.get("name", "") in names:
            faults.duplicate(f"ports[{index}].name", port.get("name", ""))
        names.add(port.get("name", ""))


def _is_address(text: str, family: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == (4 if family == "IPv4" else 6)
    except ValueError:
        return False


def check_endpoint_slice_update(faults: Faults, new: Object, old: Object) -> None:
    """The address type may not change."""
    faults.immutable("addressType", new.get("addressType"), same=new.get("addressType") == old.get("addressType"))
