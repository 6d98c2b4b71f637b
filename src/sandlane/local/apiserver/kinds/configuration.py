"""ConfigMaps and Secrets: defaults, keys, sizes and what may not change."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import msgspec

from sandlane.kube.patch.values import equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.names import config_key

MAX_BYTES = 1024 * 1024

_REQUIRED_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def default_secret(obj: Object) -> None:
    """`stringData` goes into `data`, and the type is Opaque where none is given."""
    texts = obj.pop("stringData", None)
    if texts:
        data = obj["data"] = dict(obj.get("data") or {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()
    if not obj.get("type"):
        obj["type"] = "Opaque"


def _check_keys(faults: Faults, keys: Iterable[str], field: str) -> None:
    for key in keys:
        for detail in config_key(key):
            faults.invalid(f"{field}[{key}]", key, detail)


def _decoded_size(text: str) -> int:
    return len(text) * 3 // 4 - text[-2:].count("=")


def check_config_map(faults: Faults, obj: Object) -> None:
    """Keys and size of a ConfigMap."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    _check_keys(faults, data, "data")
    for key in data:
        if key in binary:
            faults.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    _check_keys(faults, binary, "binaryData")
    if sum(len(each.encode()) for each in data.values()) + sum(map(_decoded_size, binary.values())) > MAX_BYTES:
        faults.too_long("", MAX_BYTES)


def check_secret(faults: Faults, obj: Object) -> None:
    """Keys and size of a Secret, and what its type asks for."""
    data = obj.get("data") or {}
    _check_keys(faults, data, "data")
    if sum(map(_decoded_size, data.values())) > MAX_BYTES:
        faults.too_long("data", MAX_BYTES)
    kind = obj.get("type", "")
    annotations = obj["metadata"].get("annotations") or {}
    if kind == "kubernetes.io/service-account-token" and not annotations.get("kubernetes.io/service-account.name"):
        faults.required("metadata.annotations[kubernetes.io/service-account.name]")
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        faults.required("data[username]")
        faults.required("data[password]")
    for key in _REQUIRED_KEYS.get(kind, ()):
        if key not in data:
            faults.required(f"data[{key}]")
        elif key in (".dockerconfigjson", ".dockercfg"):
            _check_json(faults, data[key], f"data[{key}]")


def _check_json(faults: Faults, text: str, field: str) -> None:
    try:
        msgspec.json.decode(base64.b64decode(text))
    except ValueError as error:
        faults.invalid(field, "<secret contents redacted>", str(error))


def _check_immutable(faults: Faults, new: Object, old: Object, fields: Iterable[str]) -> None:
    if not old.get("immutable"):
        return
    text = "field is immutable when `immutable` is set"
    if not new.get("immutable"):
        faults.forbidden("immutable", text)
    for field in fields:
        if not equal_json(new.get(field) or {}, old.get(field) or {}):
            faults.forbidden(field, text)


def check_config_map_update(faults: Faults, new: Object, old: Object) -> None:
    """An immutable ConfigMap stays as it is."""
    _check_immutable(faults, new, old, ("data", "binaryData"))


def check_secret_update(faults: Faults, new: Object, old: Object) -> None:
    """A Secret's type may not change, and an immutable Secret stays as it is."""
    faults.immutable("type", new.get("type"), same=new.get("type") == old.get("type"))
    _check_immutable(faults, new, old, ("data",))
