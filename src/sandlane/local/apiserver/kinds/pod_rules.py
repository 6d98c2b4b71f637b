"""Validation of Pods and pod templates: what manifests get wrong, with the field of each fault."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.container_rules import Surroundings, check_container
from sandlane.local.apiserver.kinds.field_errors import Faults, go_struct
from sandlane.local.apiserver.kinds.names import (
    BAD_ADDRESS,
    NameRule,
    check_annotations,
    check_labels,
    dns_label,
    is_address,
    label_value,
    qualified_name,
    subdomain,
)
from sandlane.local.apiserver.kinds.placement import check_affinity, check_spread
from sandlane.local.apiserver.kinds.pods import all_containers
from sandlane.local.apiserver.kinds.resource_rules import check_resources
from sandlane.local.apiserver.kinds.security_rules import check_apparmor, check_apparmor_agrees, check_pod_security
from sandlane.local.apiserver.kinds.volume_rules import check_volumes

_RESTART = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_SEARCH = re.compile(r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*")
_BAD_SEARCH = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
)
_LINUX_ONLY = (
    "appArmorProfile",
    "seLinuxOptions",
    "fsGroup",
    "fsGroupChangePolicy",
    "seccompProfile",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
)
_PLACES = ("containers", "initContainers", "ephemeralContainers")
_NOT_FOR_EPHEMERAL = (
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
)
_MUTABLE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_pod(faults: Faults, obj: Object) -> None:
    """A Pod."""
    check_apparmor(faults, obj)
    check_pod_spec(faults, obj["spec"], "spec")
    check_apparmor_agrees(faults, obj)
    if obj["spec"].get("schedulingGates") and obj["spec"].get("nodeName"):
        faults.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")
    check_ephemeral_containers(faults, obj["spec"])


def check_new_pod(faults: Faults, obj: Object) -> None:
    """What a Pod cannot have yet."""
    if obj["spec"].get("ephemeralContainers"):
        faults.forbidden("spec.ephemeralContainers", "cannot be set on create")


def check_ephemeral_containers(faults: Faults, spec: Object) -> None:
    """What an ephemeral container may have."""
    names = {each.get("name") for place in ("containers", "initContainers") for each in spec.get(place) or []}
    for index, container in enumerate(spec.get("ephemeralContainers") or []):
        at, target = f"spec.ephemeralContainers[{index}]", container.get("targetContainerName")
        if target and target not in names:
            faults.not_found(f"{at}.targetContainerName", target)
        for key in _NOT_FOR_EPHEMERAL:
            if container.get(key) or (key == "lifecycle" and key in container):
                faults.forbidden(f"{at}.{key}", "cannot be set for an Ephemeral Container")


def check_template(faults: Faults, template: Object, field: str, claimed: Iterable[str] = ()) -> None:
    """A pod template of a workload. `claimed` names volumes that its Pods are given beside the template's."""
    metadata = template.get("metadata") or {}
    check_labels(faults, metadata.get("labels"), f"{field}.metadata.labels")
    check_annotations(faults, metadata.get("annotations"), f"{field}.metadata.annotations")
    check_pod_spec(faults, template.get("spec") or {}, f"{field}.spec", claimed)
    if (template.get("spec") or {}).get("ephemeralContainers"):
        faults.forbidden(f"{field}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")


def check_pod_spec(faults: Faults, spec: Object, field: str, claimed: Iterable[str] = ()) -> None:
    """A pod spec."""
    around = Surroundings(spec, check_volumes(faults, spec.get("volumes") or [], f"{field}.volumes") | set(claimed))
    if not spec.get("containers"):
        faults.required(f"{field}.containers")
    for path, container in sorted(all_containers(spec), key=lambda each: _PLACES.index(each[0].partition("[")[0])):
        check_container(faults, container, f"{field}.{path}", around)
    faults.one_of(f"{field}.restartPolicy", spec.get("restartPolicy"), _RESTART, required=True)
    faults.one_of(f"{field}.dnsPolicy", spec.get("dnsPolicy"), _DNS, required=True)
    check_labels(faults, spec.get("nodeSelector"), f"{field}.nodeSelector")
    check_pod_security(faults, spec, field)
    check_affinity(faults, spec, field)
    _check_dns(faults, spec, f"{field}.dnsConfig")
    _check_gates(faults, spec, field)
    check_spread(faults, spec, field)
    _check_claims(faults, spec.get("resourceClaims") or [], f"{field}.resourceClaims")
    for key in ("serviceAccountName", "nodeName"):
        _check_name(faults, spec, key, field, subdomain)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline < 1 << 31:
        faults.invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    for key in ("hostname", "subdomain"):
        _check_name(faults, spec, key, field, _one_label)
    if spec.get("hostnameOverride") and spec.get("hostNetwork"):
        faults.forbidden(f"{field}.hostnameOverride", "may not be specified when hostNetwork is true")
    _check_tolerations(faults, spec.get("tolerations") or [], f"{field}.tolerations")
    _check_aliases(faults, spec.get("hostAliases") or [], f"{field}.hostAliases")
    for key in ("priorityClassName", "runtimeClassName"):
        _check_name(faults, spec, key, field, subdomain)
    if spec.get("overhead"):
        check_resources(faults, {"limits": spec["overhead"]}, f"{field}.overhead", [])
    _check_system(faults, spec, field)


def _one_label(name: str) -> list[str]:
    return ["must not contain dots"] if "." in name else dns_label(name)


def _check_dns(faults: Faults, spec: Object, at: str) -> None:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            faults.required(at, "must provide `dnsConfig` when `dnsPolicy` is None")
            return
        if not config.get("nameservers"):
            text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            faults.required(f"{at}.nameservers", text)
            return
    config = config or {}
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > 3:
        faults.invalid(f"{at}.nameservers", servers, "must not have more than 3 nameservers")
    for index, address in enumerate(servers):
        if not is_address(address):
            faults.invalid(f"{at}.nameservers[{index}]", address, BAD_ADDRESS)
    if len(searches) > 32:
        faults.invalid(f"{at}.searches", searches, "must not have more than 32 search paths")
    if len(" ".join(searches)) > 2048:
        text = "must not have more than 2048 characters (including spaces) in the search list"
        faults.invalid(f"{at}.searches", searches, text)
    for index, search in enumerate(searches):
        if search != "." and not _SEARCH.fullmatch(search.removesuffix(".")):
            faults.invalid(f"{at}.searches[{index}]", search, _BAD_SEARCH)
    for index, option in enumerate(config.get("options") or []):
        if not option.get("name"):
            faults.required(f"{at}.options[{index}]", "must not be empty")


def _check_gates(faults: Faults, spec: Object, field: str) -> None:
    for index, gate in enumerate(spec.get("readinessGates") or []):
        kind = gate.get("conditionType", "")
        for detail in qualified_name(kind):
            faults.invalid(f"{field}.readinessGates[{index}].conditionType", kind, detail)
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or []):
        at, name = f"{field}.schedulingGates[{index}]", gate.get("name", "")
        for detail in qualified_name(name):
            faults.invalid(at, name, detail)
        if name in seen:
            faults.duplicate(at, name)
        seen.add(name)


def _check_claims(faults: Faults, claims: list[Object], at: str) -> None:
    for index, claim in enumerate(claims):
        if not claim.get("resourceClaimName") and not claim.get("resourceClaimTemplateName"):
            text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            shown = go_struct(claim, "name resourceClaimName resourceClaimTemplateName")
            faults.invalid(f"{at}[{index}]", shown, text)


def _check_system(faults: Faults, spec: Object, field: str) -> None:
    if spec.get("os") is None:
        return
    name, context = spec["os"].get("name", ""), spec.get("securityContext") or {}
    faults.one_of(f"{field}.os", name, ("linux", "windows"), required=True)
    if name == "windows":
        for key in _LINUX_ONLY:
            if context.get(key) is not None:
                faults.forbidden(f"{field}.securityContext.{key}", "cannot be set for a windows pod")
    elif name == "linux" and context.get("windowsOptions") is not None:
        text = "windows options cannot be set for a linux pod"
        faults.forbidden(f"{field}.securityContext.windowsOptions", text)


def _check_name(faults: Faults, spec: Object, key: str, field: str, rule: NameRule) -> None:
    if spec.get(key):
        for detail in rule(spec[key]):
            faults.invalid(f"{field}.{key}", spec[key], detail)


def _check_aliases(faults: Faults, aliases: list[Object], field: str) -> None:
    for index, alias in enumerate(aliases):
        if not is_address(alias.get("ip", "")):
            faults.invalid(f"{field}[{index}].ip", alias.get("ip", ""), BAD_ADDRESS)
        for place, name in enumerate(alias.get("hostnames") or []):
            for detail in subdomain(name):
                faults.invalid(f"{field}[{index}].hostnames[{place}]", name, detail)


def _check_tolerations(faults: Faults, tolerations: list[Object], field: str) -> None:
    for index, toleration in enumerate(tolerations):
        at = f"{field}[{index}]"
        operator, effect = toleration.get("operator", ""), toleration.get("effect", "")
        for detail in qualified_name(toleration["key"]) if toleration.get("key") else ():
            faults.invalid(f"{at}.key", toleration["key"], detail)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            faults.invalid(f"{at}.effect", effect, text)
        if operator in ("", "Equal"):
            for detail in label_value(toleration.get("value", "")):
                faults.invalid(f"{at}.operator", toleration["value"], detail)
        if not toleration.get("key") and operator != "Exists":
            faults.invalid(
                f"{at}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        if operator == "Exists" and toleration.get("value"):
            faults.invalid(f"{at}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
        if operator not in ("", "Equal", "Exists"):
            more = ("Lt", "Gt") if operator in ("Lt", "Gt") else ()  # they are known, but not switched on
            faults.not_supported(f"{at}.operator", operator, ("Equal", "Exists", *more))
        faults.one_of(f"{at}.effect", effect, ("NoExecute", "NoSchedule", "PreferNoSchedule"))


def check_pod_update(faults: Faults, new: Object, old: Object) -> None:
    """Of an existing Pod's spec, images and little more may change."""
    before, after = copy_json(old.get("spec") or {}), copy_json(new.get("spec") or {})
    for field in ("containers", "initContainers"):
        for index, container in enumerate(after.get(field) or []):
            if not container.get("image"):
                faults.required(f"spec.{field}[{index}].image")
        if len(before.get(field) or []) != len(after.get(field) or []):
            faults.forbidden(f"spec.{field}", "pod updates may not add or remove containers")
            return
        for container in [*(before.get(field) or []), *(after.get(field) or [])]:
            container.pop("image", None)
    old_tolerations = before.pop("tolerations", [])
    new_tolerations = after.pop("tolerations", [])
    if any(each not in new_tolerations for each in old_tolerations):
        faults.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    grace = before.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and after.get("terminationGracePeriodSeconds") == 1:
        after["terminationGracePeriodSeconds"] = grace
    was, now = before.pop("activeDeadlineSeconds", None), after.pop("activeDeadlineSeconds", None)
    if now is not None and not 0 <= now < 1 << 31:
        faults.invalid("spec.activeDeadlineSeconds", now, "must be between 0 and 2147483647, inclusive")
    elif was is not None and now is None:
        text = "must not update from a positive integer to nil value"
        faults.invalid("spec.activeDeadlineSeconds", None, text)
    elif was is not None and now is not None and now > was:
        faults.invalid("spec.activeDeadlineSeconds", now, "must be less than or equal to previous value")
    gates = [gate.get("name") for gate in before.get("schedulingGates") or []]
    for index, gate in enumerate(after.get("schedulingGates") or []):
        if gate.get("name") not in gates:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            faults.forbidden(f"spec.schedulingGates[{index}].name", text)
            return
    if before.get("schedulingGates") and not after.get("schedulingGates"):
        before.pop("schedulingGates")
    if not equal_json(before, after):
        faults.forbidden("spec", _MUTABLE_TEXT)
