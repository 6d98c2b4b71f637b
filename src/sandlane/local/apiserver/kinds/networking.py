"""Defaults and validation of NetworkPolicies, Ingresses, Endpoints and EndpointSlices."""

from __future__ import annotations

import ipaddress
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.names import (
    BAD_ADDRESS,
    BAD_RANGE,
    check_selector,
    dns_label,
    is_address,
    is_range,
    port_name,
    port_number,
    subdomain,
    wildcard_subdomain,
)


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
            for place, port in enumerate(rule.get("ports") or []):
                _check_policy_port(faults, port, f"spec.{direction}[{index}].ports[{place}]")
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
    if not block.get("cidr"):
        faults.required(f"{at}.cidr")
    elif not is_range(block["cidr"]):
        faults.invalid(f"{at}.cidr", block["cidr"], BAD_RANGE)
    for index, text in enumerate(block.get("except") or []):
        if not is_range(text):
            faults.invalid(f"{at}.except[{index}]", text, BAD_RANGE)
        elif is_range(block.get("cidr", "")):
            whole, part = (ipaddress.ip_network(each, strict=False) for each in (block["cidr"], text))
            if whole.version != part.version or whole == part or not part.subnet_of(whole):  # type: ignore[arg-type]
                faults.invalid(f"{at}.except[{index}]", text, "must be a strict subset of `cidr`")


def _check_policy_port(faults: Faults, port: Object, at: str) -> None:
    faults.one_of(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    number, end = port.get("port"), port.get("endPort")
    if number is None:
        if end is not None:
            faults.required(f"{at}.port", "must be specified when `endPort` is specified")
    elif isinstance(number, str):
        for detail in port_name(number):
            faults.invalid(f"{at}.port", number, detail)
        if end is not None:
            faults.forbidden(f"{at}.endPort", "may not be specified when `port` is non-numeric")
    else:
        for detail in port_number(number):
            faults.invalid(f"{at}.port", number, detail)
        if end is not None and end < number:
            faults.invalid(f"{at}.endPort", number, "must be greater than or equal to `port`")
        for detail in port_number(end) if end is not None else ():
            faults.invalid(f"{at}.endPort", end, detail)


_OLD_CLASS = "kubernetes.io/ingress.class"


def check_ingress(faults: Faults, obj: Object) -> None:
    """An Ingress' rules and backends."""
    spec = obj["spec"]
    if not spec.get("rules") and not spec.get("defaultBackend"):
        faults.invalid("spec", None, "either `defaultBackend` or `rules` must be specified")
    if spec.get("defaultBackend"):
        _check_backend(faults, spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or []):
        at = f"spec.rules[{index}]"
        host = rule.get("host", "")
        if is_address(host):
            faults.invalid(f"{at}.host", host, "must be a DNS name, not an IP address")
        for detail in _host(host) if host else ():
            faults.invalid(f"{at}.host", host, detail)
        paths = (rule.get("http") or {}).get("paths") or []
        if "http" in rule and not paths:
            faults.required(f"{at}.http.paths")
        for place, path in enumerate(paths):
            where = f"{at}.http.paths[{place}]"
            kinds = ("Exact", "ImplementationSpecific", "Prefix")
            if path.get("pathType") is None:
                faults.required(f"{where}.pathType", "pathType must be specified")
                continue
            if path.get("pathType") in ("Exact", "Prefix") and not path.get("path", "").startswith("/"):
                faults.invalid(f"{where}.path", path.get("path", ""), "must be an absolute path")
            if path["pathType"] not in kinds:
                faults.not_supported(f"{where}.pathType", path["pathType"], kinds)
            _check_backend(faults, path.get("backend") or {}, f"{where}.backend")
    for index, secured in enumerate(spec.get("tls") or []):
        for place, host in enumerate(secured.get("hosts") or []):
            for detail in _host(host):
                faults.invalid(f"spec.tls[{index}].hosts[{place}]", host, detail)
        if secret := secured.get("secretName"):
            for detail in subdomain(secret):
                faults.invalid(f"spec.tls[{index}].secretName", secret, detail)


def warn_ingress(faults: Faults, obj: Object) -> None:
    """The class of an Ingress was an annotation once."""
    if _OLD_CLASS in (obj["metadata"].get("annotations") or {}):
        faults.warnings.append(f"annotation \"{_OLD_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead")


def _host(host: str) -> list[str]:
    return wildcard_subdomain(host) if "*" in host else subdomain(host)


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
    names: set[str] = set()
    for index, port in enumerate(obj.get("ports") or []):
        name = port.get("name", "")
        for detail in dns_label(name) if name else ():
            faults.invalid(f"ports[{index}].name", name, detail)
        if name in names:
            faults.duplicate(f"ports[{index}].name", name)
        names.add(name)
    for index, endpoint in enumerate(obj.get("endpoints") or []):
        at = f"endpoints[{index}]"
        if not endpoint.get("addresses"):
            faults.required(f"{at}.addresses", "must contain at least 1 address")
        for place, address in enumerate(endpoint.get("addresses") or []):
            if obj.get("addressType") in ("IPv4", "IPv6") and not _is_address(address, obj["addressType"]):
                faults.invalid(f"{at}.addresses[{place}]", address, BAD_ADDRESS)


def _is_address(text: str, family: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == (4 if family == "IPv4" else 6)
    except ValueError:
        return False


def check_endpoint_slice_update(faults: Faults, new: Object, old: Object) -> None:
    """The address type may not change."""
    faults.immutable("addressType", new.get("addressType"), same=new.get("addressType") == old.get("addressType"))
