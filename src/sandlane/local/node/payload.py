"""What the files of a volume are: the content of configMap, secret, downwardAPI and projected volumes. Pure.

Rules: https://kubernetes.io/docs/concepts/storage/projected-volumes/
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

import msgspec

from sandlane.kube.resource import Object
from sandlane.local.node.environment import field_value, resource_value

WRITTEN = ("configMap", "secret", "downwardAPI", "projected")
"""Volumes whose files this node writes."""
ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
ACCOUNT_VOLUME = "kube-api-access"
TOKEN_SECONDS = 3607
DEFAULT_MODE = 0o644

Lookup = Callable[[str, str], Object | None]
"""Gives a ConfigMap or Secret: (kind, name)."""
Tokens = Callable[[str, int], str]
"""Gives a token: (audience, seconds)."""


class File(msgspec.Struct, frozen=True):
    """One file of a volume."""

    content: bytes
    mode: int


Payload = dict[str, File]
"""Files by their path in the volume."""


class VolumeMissing(Exception):
    """Something that a volume needs is not there; the message is the kubelet's."""


class VolumeUnsupported(Exception):
    """A volume of a type that this node does not have; the message says which."""


def mounted_volumes(pod: Object) -> list[Object]:
    """The volumes that some container mounts, that of its account included."""
    used = {mount["name"] for each in _containers(pod) for mount in each.get("volumeMounts") or ()}
    used |= {device["name"] for each in _containers(pod) for device in each.get("volumeDevices") or ()}
    return [volume for volume in pod["spec"].get("volumes") or () if volume["name"] in used]


def _containers(pod: Object) -> list[Object]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def volume_type(volume: Object) -> str:
    """The field that says where a volume comes from."""
    return next((key for key in volume if key != "name"), "emptyDir")


def account_volume() -> Object:
    """The volume that every Pod has unless `automountServiceAccountToken` says otherwise."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": ACCOUNT_VOLUME, "projected": {"sources": sources, "defaultMode": DEFAULT_MODE}}


def needs_account(pod: Object, account: Object | None) -> bool:
    """Whether a Pod gets its account's token by itself: its own word comes before its account's."""
    wanted = pod["spec"].get("automountServiceAccountToken")
    if wanted is None and account is not None:
        wanted = account.get("automountServiceAccountToken")
    return wanted is not False


def references(volume: Object) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets that a volume is made of: (kind, name)."""
    found = set()
    for source in _sources(volume):
        if "configMap" in source:
            found.add(("ConfigMap", source["configMap"].get("name", "")))
        if "secret" in source:
            found.add(("Secret", source["secret"].get("name") or source["secret"].get("secretName", "")))
    return found


def token_sources(volume: Object) -> list[tuple[str, int]]:
    """The tokens that a volume holds: (audience, seconds)."""
    found = [source["serviceAccountToken"] for source in _sources(volume) if "serviceAccountToken" in source]
    return [(token.get("audience") or "", token.get("expirationSeconds") or 3600) for token in found]


def payload(volume: Object, pod: Object, lookup: Lookup, tokens: Tokens, node_ip: str) -> Payload:
    """The files of a volume. Raises `VolumeMissing`."""
    kind = volume_type(volume)
    default = volume[kind].get("defaultMode")
    files: Payload = {}
    for source in _sources(volume):
        files |= _files(source, pod, lookup, tokens, node_ip, DEFAULT_MODE if default is None else default)
    return files


def _sources(volume: Object) -> Iterable[Object]:
    kind = volume_type(volume)
    if kind == "projected":
        return list(volume["projected"].get("sources") or ())
    return [{kind: volume[kind]}] if kind in WRITTEN else []


def _files(source: Object, pod: Object, lookup: Lookup, tokens: Tokens, node_ip: str, mode: int) -> Payload:
    for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if field in source:
            return _data_files(source[field], kind, lookup, mode)
    if "downwardAPI" in source:
        return {
            _path(item["path"]): File(_downward(pod, item, node_ip), _mode(item, mode))
            for item in source["downwardAPI"].get("items") or ()
        }
    if "serviceAccountToken" in source:
        token = source["serviceAccountToken"]
        text = tokens(token.get("audience") or "", token.get("expirationSeconds") or 3600)
        return {_path(token["path"]): File(text.encode(), mode)}
    raise VolumeUnsupported(f"a projected volume's source of type {next(iter(source), 'none')} is not supported here")


def _data_files(source: Object, kind: str, lookup: Lookup, mode: int) -> Payload:
    name = source.get("name") or source.get("secretName", "")
    found = lookup(kind, name)
    optional = bool(source.get("optional"))
    if found is None:
        if optional:
            return {}
        raise VolumeMissing(f'{kind.lower()} "{name}" not found')
    data = _bytes(found, kind)
    items = source.get("items")
    if not items:
        return {key: File(content, mode) for key, content in data.items()}
    files: Payload = {}
    for item in items:
        if item["key"] in data:
            files[_path(item["path"])] = File(data[item["key"]], _mode(item, mode))
        elif not optional:
            raise VolumeMissing(f"references non-existent {kind.lower()} key: {item['key']}")
    return files


def _bytes(obj: Object, kind: str) -> dict[str, bytes]:
    data = obj.get("data") or {}
    if kind == "Secret":
        return {key: base64.b64decode(value or "") for key, value in data.items()}
    made = {key: value.encode() for key, value in data.items()}
    return made | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


def _downward(pod: Object, item: Object, node_ip: str) -> bytes:
    if item.get("fieldRef"):
        return field_value(pod, item["fieldRef"]["fieldPath"], node_ip).encode()
    reference = item.get("resourceFieldRef") or {}
    container = next((each for each in _containers(pod) if each["name"] == reference.get("containerName")), None)
    return resource_value(container or {}, reference).encode()


def _mode(item: Object, default: int) -> int:
    return default if item.get("mode") is None else int(item["mode"])


def _path(path: str) -> str:
    """A path inside of a volume. Raises `VolumeMissing` for one that leads out of it."""
    words = path.split("/")
    if path.startswith("/") or ".." in words:
        raise VolumeMissing(f"invalid path {path!r}: it leads out of the volume")
    return "/".join(word for word in words if word not in ("", "."))
