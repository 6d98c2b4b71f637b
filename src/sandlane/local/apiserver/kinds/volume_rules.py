"""Validation of the volumes of a Pod, for the kinds of volumes that manifests have."""

from __future__ import annotations

from collections.abc import Callable

from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.names import check_annotations, check_labels, dns_label

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_HOST_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_DOWNWARD = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_REQUIRED = {
    "persistentVolumeClaim": ("claimName",),
    "gitRepo": ("repository",),
    "iscsi": ("targetPortal", "iqn"),
    "awsElasticBlockStore": ("volumeID",),
    "gcePersistentDisk": ("pdName",),
    "nfs": ("server", "path"),
    "csi": ("driver",),
    "image": ("reference",),
}


def check_volumes(faults: Faults, volumes: list[Object], field: str) -> set[str]:
    """The volumes of a pod spec; the names of those that are fine."""
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        at, name, before = f"{field}[{index}]", volume.get("name", ""), len(faults.errors)
        sources = [key for key in volume if key != "name"]
        if not sources:
            faults.required(at, "must specify a volume type")
        for place, source in enumerate(sources):
            if place:
                faults.forbidden(f"{at}.{source}", "may not specify more than 1 volume type")
            else:
                _check_source(faults, source, volume[source], f"{at}.{source}")
        if not name:
            faults.required(f"{at}.name")
        else:
            for detail in dns_label(name):
                faults.invalid(f"{at}.name", name, detail)
        if name in names:
            faults.duplicate(f"{at}.name", name)
        if len(faults.errors) == before:
            names.add(name)
    return names


def check_claim_spec(faults: Faults, spec: Object, at: str) -> None:
    """What a claim asks for."""
    modes = spec.get("accessModes") or []
    if not modes:
        faults.required(f"{at}.accessModes", "at least 1 access mode is required")
    for mode in modes:
        faults.one_of(f"{at}.accessModes", mode, ACCESS_MODES, required=True)
    requests = (spec.get("resources") or {}).get("requests") or {}
    if "storage" not in requests:
        faults.required(f"{at}.resources[storage]")
    elif parse_quantity(requests["storage"]) <= 0:
        faults.invalid(f"{at}.resources[storage]", requests["storage"], "must be greater than zero")


def _check_source(faults: Faults, kind: str, source: Object, at: str) -> None:
    for key in _REQUIRED.get(kind, ()):
        if not source.get(key):
            faults.required(f"{at}.{key}")
    if (special := _SPECIAL.get(kind)) is not None:
        special(faults, source, at)


def _check_empty(faults: Faults, source: Object, at: str) -> None:
    if "sizeLimit" in source and parse_quantity(source["sizeLimit"]) < 0:
        faults.forbidden(f"{at}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _check_host_path(faults: Faults, source: Object, at: str) -> None:
    path = source.get("path", "")
    if not path:
        faults.required(f"{at}.path")
    elif ".." in path.split("/"):
        faults.invalid(f"{at}.path", path, "must not contain '..'")
    if source.get("type", "") not in _HOST_TYPES:
        faults.not_supported(f"{at}.type", source["type"], _HOST_TYPES)


def _check_nfs(faults: Faults, source: Object, at: str) -> None:
    path = source.get("path", "")
    if path and not path.startswith("/"):
        faults.invalid(f"{at}.path", path, "must be an absolute path")


def _check_csi(faults: Faults, source: Object, at: str) -> None:
    secret = source.get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        faults.required(f"{at}.nodePublishSecretRef.name")


def _check_image(faults: Faults, source: Object, at: str) -> None:
    faults.one_of(f"{at}.pullPolicy", source.get("pullPolicy"), _PULL_POLICIES)


def _check_ephemeral(faults: Faults, source: Object, at: str) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        faults.required(f"{at}.volumeClaimTemplate")
        return
    at, metadata = f"{at}.volumeClaimTemplate", template.get("metadata") or {}
    check_labels(faults, metadata.get("labels"), f"{at}.metadata.labels")
    check_annotations(faults, metadata.get("annotations"), f"{at}.metadata.annotations")
    for key in ("name", "generateName", "namespace", "ownerReferences", "finalizers"):
        if metadata.get(key):
            faults.forbidden(f"{at}.metadata.{key}", "cannot be set")
    check_claim_spec(faults, template.get("spec") or {}, f"{at}.spec")


def _check_secret(faults: Faults, source: Object, at: str) -> None:
    if not source.get("secretName"):
        faults.required(f"{at}.secretName")
    _check_files(faults, source, at)


def _check_config_map(faults: Faults, source: Object, at: str) -> None:
    if not source.get("name"):
        faults.required(f"{at}.name")
    _check_files(faults, source, at)


def _check_files(faults: Faults, source: Object, at: str) -> None:
    _check_mode(faults, source.get("defaultMode"), f"{at}.defaultMode")
    for index, item in enumerate(source.get("items") or []):
        where = f"{at}.items[{index}]"
        if not item.get("key"):
            faults.required(f"{where}.key")
        check_relative(faults, item.get("path", ""), f"{where}.path")
        _check_mode(faults, item.get("mode"), f"{where}.mode")


def _check_mode(faults: Faults, mode: int | None, at: str) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        faults.invalid(at, mode, "must be a number between 0 and 0777 (octal), both inclusive")


def check_relative(faults: Faults, path: str, at: str) -> None:
    """A path that stays below where it begins, and is there."""
    if not path:
        faults.required(at)
    elif path.startswith("/"):
        faults.invalid(at, path, "must be a relative path")
    if ".." in path.split("/"):
        faults.invalid(at, path, "must not contain '..'")
    elif path.startswith(".."):
        faults.invalid(at, path, "must not start with '..'")


def _check_downward(faults: Faults, source: Object, at: str) -> None:
    _check_mode(faults, source.get("defaultMode"), f"{at}.defaultMode")
    for item in source.get("items") or []:
        check_relative(faults, item.get("path", ""), f"{at}.path")
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is not None:
            path = field.get("fieldPath", "")
            bare = path.partition("['")[0]
            if bare not in _DOWNWARD:
                if path.startswith(("metadata.", "spec.", "status.")):
                    faults.not_supported(f"{at}.fieldRef.fieldPath", path, _DOWNWARD)
                else:
                    text = f"error converting fieldPath: field label not supported: {path}"
                    faults.invalid(f"{at}.fieldRef.fieldPath", path, text)
            if resource is not None:
                faults.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
        elif resource is None:
            faults.required(at, "one of fieldRef and resourceFieldRef is required")
        elif not resource.get("containerName"):
            faults.required(f"{at}.resourceFieldRef.containerName")
        _check_mode(faults, item.get("mode"), f"{at}.mode")


def _check_projected(faults: Faults, source: Object, at: str) -> None:
    _check_mode(faults, source.get("defaultMode"), f"{at}.defaultMode")
    paths: set[str] = set()
    for index, each in enumerate(source.get("sources") or []):
        where = f"{at}.sources[{index}]"
        if len(each) > 1:
            faults.forbidden(where, "may not specify more than 1 volume type per source")
            continue
        for kind, part in each.items():
            below = f"{where}.{kind}"
            if kind in ("secret", "configMap"):
                if not part.get("name"):
                    faults.required(f"{below}.name")
                _check_files(faults, part, below)
            elif kind == "downwardAPI":
                _check_downward(faults, part, below)
            elif kind == "serviceAccountToken":
                if part.get("expirationSeconds", 3600) < 600:
                    text = "may not specify a duration less than 10 minutes"
                    faults.invalid(f"{below}.expirationSeconds", part["expirationSeconds"], text)
                if not part.get("path"):
                    faults.required(f"{at}.path")
            for path in [item.get("path", "") for item in part.get("items") or [part]]:
                if path and path in paths:
                    faults.invalid(at, path, "conflicting duplicate paths")
                paths.add(path)


_SPECIAL: dict[str, Callable[[Faults, Object, str], None]] = {
    "configMap": _check_config_map,
    "csi": _check_csi,
    "downwardAPI": _check_downward,
    "emptyDir": _check_empty,
    "ephemeral": _check_ephemeral,
    "hostPath": _check_host_path,
    "image": _check_image,
    "nfs": _check_nfs,
    "projected": _check_projected,
    "secret": _check_secret,
}
