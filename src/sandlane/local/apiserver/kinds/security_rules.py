"""Validation of security contexts, and the old annotation for AppArmor that became a field."""

from __future__ import annotations

import re

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.pods import all_containers
from sandlane.local.apiserver.kinds.volume_rules import check_relative

APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_MAX_PROFILE = 4095
_MAX_ID = "must be between 0 and 2147483647, inclusive"
_SYSCTL = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
_BAD_SYSCTL = (
    "must have at most 253 characters and match regex "
    "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
)


def check_security(faults: Faults, context: Object, at: str) -> None:
    """What the contexts of Pods and of containers share."""
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        value = context.get(key)
        if value is not None and not 0 <= value < 1 << 31:
            faults.invalid(f"{at}.{key}", value, _MAX_ID)
    faults.one_of(f"{at}.procMount", context.get("procMount"), ("Default", "Unmasked"))
    for key in ("seccompProfile", "appArmorProfile"):
        if context.get(key) is not None:
            _check_profile(faults, key, context[key], f"{at}.{key}")
    options = context.get("windowsOptions") or {}
    if options.get("runAsUserName") == "":
        faults.invalid(f"{at}.windowsOptions.runAsUserName", "", "runAsUserName cannot be an empty string")


def _check_profile(faults: Faults, key: str, profile: Object, at: str) -> None:
    kind, path, armor = profile.get("type", ""), profile.get("localhostProfile"), key == "appArmorProfile"
    name = "AppArmor" if armor else "seccomp"
    if not kind:
        faults.required(f"{at}.type", f"type is required when {key} is set")
        return
    faults.one_of(f"{at}.type", kind, _PROFILES)
    if kind == "Localhost":
        if path is None:
            faults.required(f"{at}.localhostProfile", f"must be set when {name} type is Localhost")
        elif not armor:
            check_relative(faults, path, f"{at}.localhostProfile")
        elif path != path.strip():
            faults.invalid(f"{at}.localhostProfile", path, "must not be padded with whitespace")
        elif len(path.encode()) > _MAX_PROFILE:
            faults.too_long(f"{at}.localhostProfile", _MAX_PROFILE)
    elif path is not None and kind in _PROFILES:
        shown = path if armor else {"Type": kind, "LocalhostProfile": path}
        faults.invalid(f"{at}.localhostProfile", shown, f"can only be set when {name} type is Localhost")


def check_pod_security(faults: Faults, spec: Object, field: str) -> None:
    """A Pod's security context, and what of the host it shares."""
    context, at = spec.get("securityContext") or {}, f"{field}.securityContext"
    check_security(faults, context, at)
    for index, group in enumerate(context.get("supplementalGroups") or []):
        if not 0 <= group < 1 << 31:
            faults.invalid(f"{at}.supplementalGroups[{index}]", group, _MAX_ID)
    names: set[str] = set()
    for index, sysctl in enumerate(context.get("sysctls") or []):
        name, where = sysctl.get("name", ""), f"{at}.sysctls[{index}].name"
        if not name:
            faults.required(where)
        elif len(name) > 253 or not _SYSCTL.fullmatch(name):
            faults.invalid(where, name, _BAD_SYSCTL)
        elif name in names:
            faults.duplicate(where, name)
        names.add(name)
    faults.one_of(f"{at}.fsGroupChangePolicy", context.get("fsGroupChangePolicy"), ("Always", "OnRootMismatch"))
    faults.one_of(f"{at}.supplementalGroupsPolicy", context.get("supplementalGroupsPolicy"), ("Merge", "Strict"))
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        faults.invalid(f"{at}.shareProcessNamespace", True, text)
    if spec.get("hostUsers") is False:
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                faults.forbidden(f"{field}.{key}", "when `hostUsers` is false")


def apparmor_from_annotations(pod: Object) -> None:
    """A new Pod has the profiles of its annotations as fields, too."""
    for key, value in (pod["metadata"].get("annotations") or {}).items():
        profile = _profile(value)
        if not key.startswith(APPARMOR) or profile is None:
            continue
        for _, container in all_containers(pod["spec"]):
            if container.get("name") == key.removeprefix(APPARMOR):
                container.setdefault("securityContext", {}).setdefault("appArmorProfile", profile)


def _profile(text: str) -> Object | None:
    if text in ("runtime/default", "unconfined"):
        return {"type": "RuntimeDefault" if text == "runtime/default" else "Unconfined"}
    if text.startswith("localhost/") and text != "localhost/":
        return {"type": "Localhost", "localhostProfile": text.removeprefix("localhost/")}
    return None


def check_apparmor(faults: Faults, pod: Object) -> None:
    """What the annotations of a Pod say of AppArmor: of which containers, which profile, and not another than the field."""
    containers = {each.get("name"): (path, each) for path, each in all_containers(pod["spec"])}
    for key, value in (pod["metadata"].get("annotations") or {}).items():
        if not key.startswith(APPARMOR):
            continue
        at, name = f"metadata.annotations[{key}]", key.removeprefix(APPARMOR)
        if name not in containers:
            faults.invalid(at, name, "container not found")
        if value and _profile(value) is None and value != "localhost/":
            faults.invalid(at, value, f'invalid AppArmor profile name: "{value}"')


def check_apparmor_agrees(faults: Faults, pod: Object) -> None:
    """An annotation and a field do not say different things."""
    annotations = pod["metadata"].get("annotations") or {}
    for path, container in all_containers(pod["spec"]):
        profile = _profile(annotations.get(f"{APPARMOR}{container.get('name')}", ""))
        field = (container.get("securityContext") or {}).get("appArmorProfile")
        if profile is not None and field is not None and field.get("type") != profile["type"]:
            at = f"spec.{path}.securityContext.appArmorProfile.type"
            faults.forbidden(at, "apparmor type in annotation and field must match")
