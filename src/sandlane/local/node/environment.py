"""The environment and command line of a container: variables from everywhere, and `$(VAR)` expansion. Pure.

Rules: https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object

_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")
Lookup = Callable[[str, str], Object | None]
"""Gives a ConfigMap or Secret: (kind, name)."""


class ConfigMissing(Exception):
    """A ConfigMap, Secret or key that a container needs is not there (the reason CreateContainerConfigError)."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(VAR)` replaced where the variable is known; `$$` is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def service_variables(services: Iterable[Object], namespace: str, served: Callable[[int], int]) -> dict[str, str]:
    """`NAME_SERVICE_HOST`, `NAME_SERVICE_PORT` and the older link variables of a namespace's Services."""
    found: dict[str, str] = {}
    for service in services:
        spec, metadata = service["spec"], service["metadata"]
        address = spec.get("clusterIP")
        if not address or address == "None":
            continue
        in_default = metadata["namespace"] == "default" and metadata["name"] == "kubernetes"
        if metadata.get("namespace") != namespace and not in_default:
            continue
        name = metadata["name"].upper().replace("-", "_")
        ports = spec.get("ports") or ()
        if not ports:
            continue
        found[f"{name}_SERVICE_HOST"] = address
        for index, port in enumerate(ports):
            number = served(port["port"])
            protocol = port.get("protocol", "TCP")
            if index == 0:
                found[f"{name}_SERVICE_PORT"] = str(number)
                found[f"{name}_PORT"] = f"{protocol.lower()}://{address}:{number}"
            if port.get("name"):
                found[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(number)
            link = f"{name}_PORT_{port['port']}_{protocol}"
            found[link] = f"{protocol.lower()}://{address}:{number}"
            found |= {f"{link}_PROTO": protocol.lower(), f"{link}_PORT": str(number), f"{link}_ADDR": address}
    return found


def container_environment(
    pod: Object, container: Object, lookup: Lookup, base: Mapping[str, str], node_ip: str
) -> dict[str, str]:
    """All variables of a container. Raises `ConfigMissing`."""
    env = dict(base)
    for source in container.get("envFrom") or ():
        env |= _from_source(source, lookup)
    for entry in container.get("env") or ():
        if entry.get("valueFrom"):
            value = _value_from(pod, container, entry["valueFrom"], lookup, node_ip)
            if value is None:
                continue
        else:
            value = expand(entry.get("value") or "", env)
        env[entry["name"]] = value
    return env


def command_line(
    container: Object, image_command: Iterable[str], image_args: Iterable[str], env: Mapping[str, str]
) -> list[str]:
    """The process' arguments: `command` replaces the image's entrypoint and its arguments, `args` the arguments."""
    command, args = container.get("command") or [], container.get("args") or []
    line = [*command, *args] if command else [*image_command, *(args or image_args)]
    return [expand(word, env) for word in line]


def decoded(obj: Object) -> dict[str, str]:
    """The data of a ConfigMap or Secret as text."""
    found = dict(obj.get("data") or {})
    if obj.get("kind") == "Secret":
        return {key: base64.b64decode(value).decode(errors="replace") for key, value in found.items()}
    return found


def _need(kind: str, reference: Object, lookup: Lookup) -> Object | None:
    found = lookup(kind, reference.get("name", ""))
    if found is None and not reference.get("optional"):
        plural = {"ConfigMap": "configmap", "Secret": "secret"}[kind]
        raise ConfigMissing(f'{plural} "{reference.get("name", "")}" not found')
    return found


def _from_source(source: Object, lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        if source.get(field):
            found = _need(kind, source[field], lookup)
            return {prefix + key: value for key, value in decoded(found).items()} if found else {}
    return {}


def _value_from(pod: Object, container: Object, source: Object, lookup: Lookup, node_ip: str) -> str | None:
    for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if reference := source.get(field):
            found = _need(kind, reference, lookup)
            values = decoded(found) if found else {}
            if reference["key"] not in values:
                if reference.get("optional"):
                    return None
                raise ConfigMissing(
                    f"couldn't find key {reference['key']} in {kind} {pod['metadata']['namespace']}/{reference['name']}"
                )
            return values[reference["key"]]
    if reference := source.get("fieldRef"):
        return field_value(pod, reference["fieldPath"], node_ip)
    if reference := source.get("resourceFieldRef"):
        return resource_value(container, reference)
    return ""


def resource_value(container: Object, reference: Object) -> str:
    """A limit or request in units of the divisor, rounded up; 0 when the container has none."""
    kind, _, name = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    text = (resources.get(kind) or {}).get(name) or (resources.get("limits") or {}).get(name) or "0"
    divisor = parse_quantity(str(reference.get("divisor") or "1")) or 1
    return str(math.ceil(parse_quantity(str(text)) / divisor))


def field_value(pod: Object, path: str, node_ip: str) -> str:
    """A field of the downward API."""
    match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if match:
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        values = pod["metadata"].get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))
    if path in ("status.hostIP", "status.hostIPs"):
        return node_ip
    if path == "status.podIPs":
        path = "status.podIP"
    value: Any = pod
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "" if value is None else str(value)
