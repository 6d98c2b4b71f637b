"""Discovery: which groups, versions and resources are served, in the legacy and in the aggregated form."""

from __future__ import annotations

import base64
import hashlib

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.table import Subresource
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import ResourceType

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


def api_versions(address: str) -> Object:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(registry: Registry) -> Object:
    """`/apis`."""
    groups = [_group(group, versions) for group, versions in registry.groups().items() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Object | None:
    """`/apis/GROUP`."""
    versions = registry.groups().get(name)
    if not name or versions is None:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def resource_list(registry: Registry, group_name: str, version: str) -> Object | None:
    """`/api/v1` and `/apis/GROUP/VERSION`."""
    types = registry.in_version(group_name, version)
    if not types:
        return None
    resources: list[Object] = []
    for type_ in sorted(types, key=lambda type_: type_.resource.plural):
        resources.append(_resource(type_))
        resources += [_subresource(type_, sub) for sub in _subresources(type_)]
    answer: Object = {"kind": "APIResourceList"}
    if group_name:
        answer["apiVersion"] = "v1"
    answer["groupVersion"] = f"{group_name}/{version}" if group_name else version
    answer["resources"] = resources
    return answer


def aggregated(registry: Registry, *, core: bool) -> Object:
    """`/api` or `/apis` as one `APIGroupDiscoveryList`."""
    items = []
    for name, versions in registry.groups().items():
        if (name == "") != core:
            continue
        entries = [
            {
                "version": version,
                "resources": [
                    _discovered(type_)
                    for type_ in sorted(registry.in_version(name, version), key=lambda type_: type_.resource.plural)
                ],
                "freshness": "Current",
            }
            for version in versions
        ]
        metadata: Object = {"creationTimestamp": None}
        items.append({"metadata": ({"name": name} if name else {}) | metadata, "versions": entries})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _group(name: str, versions: list[str]) -> Object:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _resource(type_: ResourceType) -> Object:
    resource = type_.resource
    entry: Object = {
        "name": resource.plural,
        "singularName": type_.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _verbs(type_),
    }
    if type_.short_names:
        entry["shortNames"] = list(type_.short_names)
    if type_.categories:
        entry["categories"] = list(type_.categories)
    if type_.is_stored:
        entry["storageVersionHash"] = _storage_version_hash(type_)
    return entry


def _storage_version_hash(type_: ResourceType) -> str:
    """What changes when objects come to be kept in another version."""
    group_name, _ = type_.storage_key
    version = type_.storage_version or type_.resource.version
    kept = f"{group_name}/{version}/{type_.resource.kind}"
    return base64.b64encode(hashlib.sha256(kept.encode()).digest()[:8]).decode()


def _subresource(type_: ResourceType, sub: Subresource) -> Object:
    entry: Object = {
        "name": f"{type_.resource.plural}/{sub.name}",
        "singularName": "",
        "namespaced": type_.resource.namespaced,
    }
    if sub.version:
        entry |= {"group": sub.group, "version": sub.version} if sub.group else {"version": sub.version}
    entry["kind"] = sub.kind or type_.resource.kind
    entry["verbs"] = sorted(sub.verbs)
    return entry


def _discovered(type_: ResourceType) -> Object:
    resource = type_.resource
    entry: Object = {
        "resource": resource.plural,
        "responseKind": _kind(resource.group, resource.version, resource.kind, type_.custom),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": type_.singular,
        "verbs": _verbs(type_),
    }
    if type_.short_names:
        entry["shortNames"] = list(type_.short_names)
    if type_.categories:
        entry["categories"] = list(type_.categories)
    if type_.subresources:
        entry["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind or resource.kind}
                if sub.group
                else _kind(resource.group, resource.version, sub.kind or resource.kind, type_.custom),
                "verbs": sorted(sub.verbs),
            }
            for sub in _subresources(type_)
        ]
    return entry


def _verbs(type_: ResourceType) -> list[str]:
    """In upstream's order."""
    return [verb for verb in CUSTOM_VERBS if verb in type_.verbs] if type_.custom else sorted(type_.verbs)


def _subresources(type_: ResourceType) -> list[Subresource]:
    """In upstream's order."""
    if type_.custom:
        return sorted(type_.subresources, key=lambda sub: sub.name == "scale")
    return sorted(type_.subresources, key=lambda sub: sub.name)


def _kind(group_name: str, version: str, kind: str, custom: bool) -> Object:
    """Those of built-in kinds are named by kind alone, as upstream."""
    if not custom:
        group_name = version = ""
    return {"group": group_name, "version": version, "kind": kind}
