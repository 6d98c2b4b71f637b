"""Validation of Pods and pod templates: what manifests get wrong, with the field of each fault."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, go_struct
from sandlane.local.apiserver.kinds.names import (
    BAD_ADDRESS,
    NameRule,
    check_annotations,
    check_labels,
    config_key,
    dns_label,
    env_name,
    is_address,
    port_name,
    port_number,
    subdomain,
)
from sandlane.local.apiserver.kinds.placement import check_placement
from sandlane.local.apiserver.kinds.pods import all_containers

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_RESTART = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_PLACES = ("containers", "initContainers", "ephemeralContainers")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_CONTEXT = (
    "capabilities privileged SELinuxOptions windowsOptions runAsUser runAsGroup runAsNonRoot readOnlyRootFilesystem "
    "allowPrivilegeEscalation procMount seccompProfile appArmorProfile"
)
_MUTABLE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_pod(faults: Faults, obj: Object) -> None:
    """A Pod."""
    check_pod_spec(faults, obj["spec"], "spec")
    if obj["spec"].get("schedulingGates") and obj["spec"].get("nodeName"):
        faults.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")
    config = obj["spec"].get("dnsConfig") or {}
    for index, address in enumerate(config.get("nameservers") or []):
        if not is_address(address):
            faults.invalid(f"spec.dnsConfig.nameservers[{index}]", address, BAD_ADDRESS)


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
    volumes = _check_volumes(faults, spec.get("volumes") or [], f"{field}.volumes") | set(claimed)
    if not spec.get("containers"):
        faults.required(f"{field}.containers")
    seen: set[str] = set()
    for path, container in sorted(all_containers(spec), key=lambda each: _PLACES.index(each[0].partition("[")[0])):
        _check_container(faults, container, f"{field}.{path}", volumes, seen)
    faults.one_of(f"{field}.restartPolicy", spec.get("restartPolicy"), _RESTART, required=True)
    faults.one_of(f"{field}.dnsPolicy", spec.get("dnsPolicy"), _DNS, required=True)
    check_labels(faults, spec.get("nodeSelector"), f"{field}.nodeSelector")
    _check_ids(faults, spec.get("securityContext") or {}, f"{field}.securityContext")
    check_placement(faults, spec, field)
    for key in ("serviceAccountName", "nodeName"):
        _check_name(faults, spec, key, field, subdomain)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline < 1 << 31:
        faults.invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    for key in ("hostname", "subdomain"):
        _check_name(faults, spec, key, field, dns_label)
    _check_tolerations(faults, spec.get("tolerations") or [], f"{field}.tolerations")
    _check_aliases(faults, spec.get("hostAliases") or [], f"{field}.hostAliases")
    for key in ("priorityClassName", "runtimeClassName"):
        _check_name(faults, spec, key, field, subdomain)


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


def _check_ids(faults: Faults, context: Object, at: str) -> None:
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        value = context.get(key)
        if value is not None and not 0 <= value < 1 << 31:
            faults.invalid(f"{at}.{key}", value, "must be between 0 and 2147483647, inclusive")


def _check_tolerations(faults: Faults, tolerations: list[Object], field: str) -> None:
    for index, toleration in enumerate(tolerations):
        at = f"{field}[{index}]"
        operator, effect = toleration.get("operator", ""), toleration.get("effect", "")
        if not toleration.get("key") and operator != "Exists":
            faults.invalid(
                f"{at}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        if operator == "Exists" and toleration.get("value"):
            faults.invalid(f"{at}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
        if operator not in ("", "Equal", "Exists"):
            faults.not_supported(f"{at}.operator", operator, ("Equal", "Exists"))
        faults.one_of(f"{at}.effect", effect, ("NoExecute", "NoSchedule", "PreferNoSchedule"))


def _check_volumes(faults: Faults, volumes: list[Object], field: str) -> set[str]:
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        at, name = f"{field}[{index}]", volume.get("name", "")
        sources = [key for key in volume if key != "name"]
        for extra in sources[1:]:
            faults.forbidden(f"{at}.{extra}", "may not specify more than 1 volume type")
        if not sources:
            faults.required(at, "must specify a volume type")
        if not name:
            faults.required(f"{at}.name")
        else:
            for detail in dns_label(name):
                faults.invalid(f"{at}.name", name, detail)
        if name in names:
            faults.duplicate(f"{at}.name", name)
        names.add(name)
        for source, key in (("secret", "secretName"), ("persistentVolumeClaim", "claimName"), ("hostPath", "path")):
            if source in volume and not volume[source].get(key):
                faults.required(f"{at}.{source}.{key}")
        if "configMap" in volume and not volume["configMap"].get("name"):
            faults.required(f"{at}.configMap.name")
    return names


def _check_container(faults: Faults, container: Object, at: str, volumes: set[str], seen: set[str]) -> None:
    name = container.get("name", "")
    if not name:
        faults.required(f"{at}.name")
    else:
        for detail in dns_label(name):
            faults.invalid(f"{at}.name", name, detail)
    image = container.get("image", "")
    if not image:
        faults.required(f"{at}.image")
    elif image != image.strip():
        faults.invalid(f"{at}.image", image, "must not have leading or trailing whitespace")
    policies = ("FallbackToLogsOnError", "File")
    faults.one_of(f"{at}.terminationMessagePolicy", container.get("terminationMessagePolicy"), policies, required=True)
    _check_ports(faults, container.get("ports") or [], f"{at}.ports")
    _check_env(faults, container, at)
    mounts: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        where = f"{at}.volumeMounts[{index}]"
        if not mount.get("name"):
            faults.required(f"{where}.name")
        elif mount["name"] not in volumes:
            faults.not_found(f"{where}.name", mount["name"])
        path = mount.get("mountPath", "")
        if not path:
            faults.required(f"{where}.mountPath")
        if path in mounts:
            faults.invalid(f"{where}.mountPath", path, "must be unique")
        mounts.add(path)
    faults.one_of(f"{at}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES, required=True)
    _check_resources(faults, container.get("resources") or {}, f"{at}.resources")
    _check_privileges(faults, container.get("securityContext") or {}, f"{at}.securityContext")
    if name and name in seen:
        faults.duplicate(f"{at}.name", name)
    seen.add(name)
    _check_life(faults, container, at)


def _check_life(faults: Faults, container: Object, at: str) -> None:
    """Hooks and probes; init containers that end have none."""
    ends = ".initContainers[" in at and container.get("restartPolicy") != "Always"
    for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(key) is None:
            continue
        if ends:
            faults.forbidden(f"{at}.{key}", "may not be set for init containers without restartPolicy=Always")
        elif key == "lifecycle":
            for hook in ("postStart", "preStop"):
                if container[key].get(hook) is not None:
                    _check_handler(faults, container[key][hook], f"{at}.{key}.{hook}")
        else:
            _check_probe(faults, container[key], f"{at}.{key}", readiness=key == "readinessProbe")


def _check_privileges(faults: Faults, context: Object, at: str) -> None:
    _check_ids(faults, context, at)
    if context.get("allowPrivilegeEscalation") is False:
        text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        if context.get("privileged"):
            faults.invalid(at, go_struct(context, _CONTEXT), text)
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            faults.invalid(at, go_struct(context, _CONTEXT), text)


def _check_ports(faults: Faults, ports: list[Object], field: str) -> None:
    names: set[str] = set()
    for index, port in enumerate(ports):
        at, name = f"{field}[{index}]", port.get("name", "")
        if name:
            for detail in port_name(name):
                faults.invalid(f"{at}.name", name, detail)
            if name in names:
                faults.duplicate(f"{at}.name", name)
            names.add(name)
        if not port.get("containerPort"):
            faults.required(f"{at}.containerPort")
        else:
            for detail in port_number(port["containerPort"]):
                faults.invalid(f"{at}.containerPort", port["containerPort"], detail)
        if port.get("hostPort"):
            for detail in port_number(port["hostPort"]):
                faults.invalid(f"{at}.hostPort", port["hostPort"], detail)
        faults.one_of(f"{at}.protocol", port.get("protocol"), _PROTOCOLS, required=True)


def _check_env(faults: Faults, container: Object, at: str) -> None:
    for index, variable in enumerate(container.get("env") or []):
        where, name = f"{at}.env[{index}]", variable.get("name", "")
        if not name:
            faults.required(f"{where}.name")
        else:
            for detail in env_name(name):
                faults.invalid(f"{where}.name", name, detail)
        source = variable.get("valueFrom")
        if source is None:
            continue
        if variable.get("value"):
            faults.invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty")
        if len(source) != 1:
            text = (
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            )
            faults.invalid(
                f"{where}.valueFrom", "", text if not source else "may not have more than one field specified at a time"
            )
        for kind in ("configMapKeyRef", "secretKeyRef"):
            if kind in source:
                if not source[kind].get("name"):
                    faults.required(f"{where}.valueFrom.{kind}.name")
                if not source[kind].get("key"):
                    faults.required(f"{where}.valueFrom.{kind}.key")
                else:
                    for detail in config_key(source[kind]["key"]):
                        faults.invalid(f"{where}.valueFrom.{kind}.key", source[kind]["key"], detail)
        if "fieldRef" in source:
            _check_field_path(faults, source["fieldRef"].get("fieldPath", ""), f"{where}.valueFrom.fieldRef.fieldPath")
    for index, source in enumerate(container.get("envFrom") or []):
        for kind in ("configMapRef", "secretRef"):
            if kind in source and not source[kind].get("name"):
                faults.required(f"{at}.envFrom[{index}].{kind}.name")
        if not any(kind in source for kind in ("configMapRef", "secretRef")):
            text = "must specify one of: `configMapRef` or `secretRef`"
            faults.invalid(f"{at}.envFrom[{index}]", "", text)


_FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_OTHER_PATHS = ("metadata.annotations", "metadata.labels", "spec.host", "spec.restartPolicy", "spec.schedulerName")
_SUBSCRIPT = re.compile(r"metadata\.(annotations|labels)\['[^']+'\]")


def _check_field_path(faults: Faults, path: str, at: str) -> None:
    """Which fields of a Pod its environment may know."""
    if not path:
        faults.required(at)
    elif path in _OTHER_PATHS:
        faults.not_supported(at, path, _FIELD_PATHS)
    elif path not in _FIELD_PATHS and not _SUBSCRIPT.fullmatch(path):
        faults.invalid(at, path, f"error converting fieldPath: field label not supported: {path}")


def _check_probe(faults: Faults, probe: Object, at: str, *, readiness: bool) -> None:
    _check_handler(faults, probe, at)
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        faults.non_negative(f"{at}.{key}", probe.get(key))
    if not readiness and probe.get("successThreshold", 1) != 1:
        faults.invalid(f"{at}.successThreshold", probe["successThreshold"], "must be 1")


def _check_handler(faults: Faults, probe: Object, at: str) -> None:
    """What a probe or a hook does."""
    handlers = [each for each in _HANDLERS if each in probe]
    if not handlers:
        faults.required(at, "must specify a handler type")
    for extra in handlers[1:]:
        faults.forbidden(f"{at}.{extra}", "may not specify more than 1 handler type")
    for handler in ("httpGet", "tcpSocket", "grpc"):
        if handler in probe:
            port: Any = probe[handler].get("port", 0)
            details = port_number(port) if isinstance(port, int) else port_name(port)
            for detail in details:
                faults.invalid(f"{at}.{handler}.port", port, detail)
    if "exec" in probe and not probe["exec"].get("command"):
        faults.required(f"{at}.exec.command")


def _check_resources(faults: Faults, resources: Object, at: str) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for group, values in (("limits", limits), ("requests", requests)):
        for name, text in values.items():
            if "/" not in name and name not in _RESOURCES and not name.startswith("hugepages-"):
                faults.invalid(f"{at}.{group}[{name}]", name, "must be a standard resource type or fully qualified")
                faults.invalid(f"{at}.{group}[{name}]", name, "must be a standard resource for containers")
            if parse_quantity(text) < 0:
                faults.invalid(f"{at}.{group}[{name}]", text, "must be greater than or equal to 0")
    for name, text in requests.items():
        if name in limits and parse_quantity(text) > parse_quantity(limits[name]):
            faults.invalid(f"{at}.requests", text, f"must be less than or equal to {name} limit of {limits[name]}")


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
    before.pop("activeDeadlineSeconds", None)
    after.pop("activeDeadlineSeconds", None)
    if before.get("schedulingGates") and not after.get("schedulingGates"):
        before.pop("schedulingGates")
    if not equal_json(before, after):
        faults.forbidden("spec", _MUTABLE_TEXT)
