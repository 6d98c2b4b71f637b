"""Validation of containers: ports, environment, mounts, probes, rights."""

from __future__ import annotations

import re
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, go_struct
from sandlane.local.apiserver.kinds.names import (
    config_key,
    dns_label,
    env_name,
    port_name,
    port_number,
    qualified_name,
    subdomain,
)
from sandlane.local.apiserver.kinds.resource_rules import check_resources
from sandlane.local.apiserver.kinds.security_rules import check_security
from sandlane.local.apiserver.kinds.volume_rules import check_relative

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_CONTEXT = (
    "capabilities privileged SELinuxOptions windowsOptions runAsUser runAsGroup runAsNonRoot readOnlyRootFilesystem "
    "allowPrivilegeEscalation procMount seccompProfile appArmorProfile"
)
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
_SUBSCRIPT = re.compile(r"metadata\.(annotations|labels)\['([^']+)'\]")


_RESTART = ("Always", "Never", "OnFailure")
_RULE_ACTIONS = ("Restart", "RestartAllContainers")
_RESIZED = ("cpu", "memory")
_RESIZE_POLICIES = ("NotRequired", "RestartContainer")
_PROPAGATION = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")
_ASKABLE = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_HEADER = re.compile("[-A-Za-z0-9]+")
_BAD_HEADER = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is "
    "'[-A-Za-z0-9]+')"
)


class Surroundings:
    """What the containers of a pod spec share: its volumes and claims, and the names and host ports that are taken."""

    def __init__(self, spec: Object, volumes: set[str]) -> None:
        self.volumes = volumes
        self.claims = [claim.get("name", "") for claim in spec.get("resourceClaims") or []]
        self.grace = spec.get("terminationGracePeriodSeconds")
        self.own_users = spec.get("hostUsers") is False
        self.names: set[str] = set()
        self.host_ports: set[str] = set()


def check_container(faults: Faults, container: Object, at: str, around: Surroundings) -> None:
    """A container of a pod spec."""
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
    policies = ("File", "FallbackToLogsOnError")
    faults.one_of(f"{at}.terminationMessagePolicy", container.get("terminationMessagePolicy"), policies, required=True)
    _check_ports(faults, container.get("ports") or [], f"{at}.ports")
    _check_env(faults, container, at)
    _check_mounts(faults, container, at, around.volumes)
    faults.one_of(f"{at}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES, required=True)
    check_resources(faults, container.get("resources") or {}, f"{at}.resources", around.claims)
    _check_resize_policy(faults, container.get("resizePolicy") or [], f"{at}.resizePolicy")
    check_security(faults, container.get("securityContext") or {}, f"{at}.securityContext")
    _check_privileges(faults, container.get("securityContext") or {}, f"{at}.securityContext", around)
    if name and name in around.names:
        faults.duplicate(f"{at}.name", name)
    around.names.add(name)
    _check_restarts(faults, container, at)
    _check_life(faults, container, at, around.grace)
    for index, port in enumerate(container.get("ports") or []):
        if port.get("hostPort") and ".initContainers[" not in at:
            taken = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if taken in around.host_ports:
                faults.duplicate(f"{at}.ports[{index}].hostPort", taken)
            around.host_ports.add(taken)


def _check_mounts(faults: Faults, container: Object, at: str, volumes: set[str]) -> None:
    mounts: set[str] = set()
    privileged = (container.get("securityContext") or {}).get("privileged")
    for index, mount in enumerate(container.get("volumeMounts") or []):
        where, below = f"{at}.volumeMounts[{index}]", f"{at}.volumeMounts"
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
        if mount.get("subPath"):
            check_relative(faults, mount["subPath"], f"{below}.subPath")
        if mount.get("subPathExpr"):
            if mount.get("subPath"):
                text = "subPathExpr and subPath are mutually exclusive"
                faults.invalid(f"{where}.subPathExpr", mount["subPathExpr"], text)
            check_relative(faults, mount["subPathExpr"], f"{below}.subPathExpr")
        faults.one_of(f"{below}.mountPropagation", mount.get("mountPropagation"), _PROPAGATION)
        if mount.get("mountPropagation") == "Bidirectional" and not privileged:
            text = "Bidirectional mount propagation is available only to privileged containers"
            faults.forbidden(f"{below}.mountPropagation", text)
        recursive = mount.get("recursiveReadOnly")
        faults.one_of(f"{below}.recursiveReadOnly", recursive, _RECURSIVE)
        if recursive in ("Enabled", "IfPossible") and not mount.get("readOnly"):
            faults.forbidden(f"{below}.recursiveReadOnly", "may only be specified when readOnly is true")
    for index, device in enumerate(container.get("volumeDevices") or []):
        where = f"{at}.volumeDevices[{index}]"
        if not device.get("name"):
            faults.required(f"{where}.name")
        if device.get("name", "") not in volumes:
            faults.not_found(f"{where}.name", device.get("name", ""))
        if not device.get("devicePath"):
            faults.required(f"{where}.devicePath")


def _check_resize_policy(faults: Faults, policies: list[Object], at: str) -> None:
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        name = policy.get("resourceName", "")
        if name in seen:
            faults.duplicate(f"{at}[{index}]", name)
        seen.add(name)
        faults.one_of(at, name, _RESIZED, required=True)
        faults.one_of(at, policy.get("restartPolicy"), _RESIZE_POLICIES, required=True)


def _check_restarts(faults: Faults, container: Object, at: str) -> None:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    if ".ephemeralContainers[" not in at:
        faults.one_of(f"{at}.restartPolicy", policy, _RESTART)
    if rules and not policy:
        faults.required(f"{at}.restartPolicy", "must specify restartPolicy when restart rules are used")
    for index, rule in enumerate(rules):
        where = f"{at}.restartPolicyRules[{index}]"
        faults.one_of(f"{where}.action", rule.get("action"), _RULE_ACTIONS, required=True)
        if rule.get("exitCodes") is None:
            faults.required(f"{where}.exitCodes", "must be specified")


def _check_life(faults: Faults, container: Object, at: str, grace: int | None) -> None:
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
                    _check_handler(faults, container[key][hook], f"{at}.{key}.{hook}", grace)
        else:
            _check_probe(faults, container[key], f"{at}.{key}", readiness=key == "readinessProbe")


def _check_privileges(faults: Faults, context: Object, at: str, around: Surroundings) -> None:
    kind = context.get("procMount")
    if kind == "Unmasked" and not around.own_users:
        faults.invalid(f"{at}.procMount", kind, "`hostUsers` must be false to use `Unmasked`")
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
            _check_field_path(faults, source["fieldRef"], f"{where}.valueFrom.fieldRef")
        if "resourceFieldRef" in source:
            _check_resource_path(faults, source["resourceFieldRef"], f"{where}.valueFrom.resourceFieldRef")
    for index, source in enumerate(container.get("envFrom") or []):
        where, kinds = f"{at}.envFrom[{index}]", [kind for kind in ("configMapRef", "secretRef") if kind in source]
        for detail in env_name(source["prefix"]) if source.get("prefix") else ():
            faults.invalid(f"{where}.prefix", source["prefix"], detail)
        for kind in kinds:
            name = source[kind].get("name", "")
            if not name:
                faults.required(f"{where}.{kind}.name")
            else:
                for detail in subdomain(name):
                    faults.invalid(f"{where}.{kind}.name", name, detail)
        if not kinds:
            faults.invalid(f"{at}.envFrom", "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(kinds) > 1:
            faults.invalid(f"{at}.envFrom", "", "may not have more than one field specified at a time")


def _check_field_path(faults: Faults, reference: Object, at: str) -> None:
    """Which fields of a Pod its environment may know."""
    path, version = reference.get("fieldPath", ""), reference.get("apiVersion", "v1")
    if not path:
        faults.required(f"{at}.fieldPath")
    elif version != "v1":
        text = f"error converting fieldPath: unsupported pod version: {version}"
        faults.invalid(f"{at}.fieldPath", path, text)
    elif (found := _SUBSCRIPT.fullmatch(path)) is not None:
        for detail in qualified_name(found[2]):
            faults.invalid(at, found[2], detail)
    elif path in _OTHER_PATHS:
        faults.not_supported(f"{at}.fieldPath", path, _FIELD_PATHS)
    elif path not in _FIELD_PATHS:
        faults.invalid(f"{at}.fieldPath", path, f"error converting fieldPath: field label not supported: {path}")


def _check_resource_path(faults: Faults, reference: Object, at: str) -> None:
    """Which resources of a container its environment may know."""
    resource, divisor = reference.get("resource", ""), reference.get("divisor", "0")
    if not resource:
        faults.required(f"{at}.resource")
    elif resource not in _ASKABLE and "hugepages-" not in resource:
        faults.not_supported(f"{at}.resource", resource, _ASKABLE)
    elif resource.endswith(".cpu") and divisor not in ("0", "1", "1m"):
        text = "only divisor's values 1m and 1 are supported with the cpu resource"
        faults.invalid(f"{at}.divisor", resource, text)


def _check_probe(faults: Faults, probe: Object, at: str, *, readiness: bool) -> None:
    _check_handler(faults, probe, at)
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        faults.non_negative(f"{at}.{key}", probe.get(key))
    if not readiness and probe.get("successThreshold", 1) != 1:
        faults.invalid(f"{at}.successThreshold", probe["successThreshold"], "must be 1")
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and (readiness or grace <= 0):
        text = "must not be set for readinessProbes" if readiness else "must be greater than 0"
        faults.invalid(f"{at}.terminationGracePeriodSeconds", grace, text)


def _check_handler(faults: Faults, probe: Object, at: str, grace: int | None = None) -> None:
    """What a probe or a hook does."""
    handlers = [each for each in _HANDLERS if each in probe]
    if not handlers:
        faults.required(at, "must specify a handler type")
    for place, handler in enumerate(handlers):
        where = f"{at}.{handler}"
        if place:
            faults.forbidden(where, "may not specify more than 1 handler type")
        elif handler == "exec":
            if not probe["exec"].get("command"):
                faults.required(f"{where}.command")
        elif handler == "sleep":
            seconds = probe["sleep"].get("seconds", 0)
            if grace is not None and not 0 <= seconds <= grace:
                text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                faults.invalid(where, seconds, text)
        else:
            port: Any = probe[handler].get("port", 0)
            for detail in port_number(port) if isinstance(port, int) else port_name(port):
                faults.invalid(f"{where}.port", port, detail)
            if handler == "httpGet":
                _check_http(faults, probe[handler], where)


def _check_http(faults: Faults, action: Object, at: str) -> None:
    faults.one_of(f"{at}.scheme", action.get("scheme"), ("HTTP", "HTTPS"), required=True)
    for header in action.get("httpHeaders") or []:
        if not _HEADER.fullmatch(header.get("name", "")):
            faults.invalid(f"{at}.httpHeaders", header.get("name", ""), _BAD_HEADER)
