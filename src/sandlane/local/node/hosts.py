"""A Pod's `/etc/hosts`: itself, its `hostAliases`, and the names of all Services, as cluster DNS would give them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.kube.resource import Object

DOMAIN = "svc.cluster.local"
_HEAD = """\
# Made by Sandlane's node, and written again whenever Services change.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
"""


def hostname(pod: Object) -> str:
    """A Pod's host name: `spec.hostname`, else its name, as long as the kernel allows."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def service_lines(services: Iterable[Object], slices: Iterable[Object]) -> dict[str, list[tuple[str, str]]]:
    """By namespace: (address, name within the namespace) of each Service; headless ones lead to their ready Pods."""
    headless: set[tuple[str, str]] = set()
    found: dict[str, list[tuple[str, str]]] = {}
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        address = spec.get("clusterIP")
        if address == "None":
            headless.add((metadata["namespace"], metadata["name"]))
        elif address:
            found.setdefault(metadata["namespace"], []).append((address, metadata["name"]))
    for each in slices:
        metadata = each["metadata"]
        name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        if (metadata["namespace"], name) not in headless:
            continue
        lines = found.setdefault(metadata["namespace"], [])
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            for address in endpoint.get("addresses") or ():
                lines.append((address, name))
                if endpoint.get("hostname"):
                    lines.append((address, f"{endpoint['hostname']}.{name}"))
    return {namespace: sorted(set(lines), key=lambda line: (line[1], line[0])) for namespace, lines in found.items()}


def hosts_file(pod: Object, address: str, services: dict[str, list[tuple[str, str]]]) -> str:
    """The whole file for one Pod. Services of its own namespace have short names, too."""
    own = pod["metadata"]["namespace"]
    name = hostname(pod)
    subdomain = pod["spec"].get("subdomain")
    full = f"{name}.{subdomain}.{own}.{DOMAIN}\t" if subdomain else ""
    lines = [f"{address}\t{full}{name}"]
    for alias in pod["spec"].get("hostAliases") or ():
        lines.append(f"{alias['ip']}\t{' '.join(alias.get('hostnames') or ())}")
    for namespace in sorted(services, key=lambda each: (each != own, each)):
        for target, service in services[namespace]:
            base = f"{service}.{namespace}"
            names = [base, f"{base}.svc", f"{base}.{DOMAIN}"]
            lines.append(f"{target}\t{' '.join([service, *names] if namespace == own else names)}")
    return _HEAD + "\n".join(lines) + "\n"
