"""Defaults and validation of RBAC, certificates, Leases and Events."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, go_struct
from sandlane.local.apiserver.kinds.names import path_segment

_USAGES = (
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
)
_LEAST_SECONDS = 600
_SUBJECTS = ("ServiceAccount", "User", "Group")


def _unset(target: Object, key: str, value: Any) -> None:
    if target.get(key) in (None, ""):
        target[key] = value


def default_role_binding(obj: Object) -> None:
    """Groups of subjects and of the role follow from their kinds."""
    reference = obj.setdefault("roleRef", {})
    _unset(reference, "apiGroup", "rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or []:
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = "rbac.authorization.k8s.io"


def check_role(faults: Faults, obj: Object) -> None:
    """A Role's rules."""
    for index, rule in enumerate(obj.get("rules") or []):
        at = f"rules[{index}]"
        if not rule.get("verbs"):
            faults.required(f"{at}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if obj["metadata"].get("namespace"):
                text = "namespaced rules cannot apply to non-resource URLs"
                faults.invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"], text)
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                text = "rules cannot apply to both regular resources and non-resource URLs"
                faults.invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"], text)
            continue
        if not rule.get("apiGroups"):
            faults.required(f"{at}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            faults.required(f"{at}.resources", "resource rules must supply at least one resource")


def check_role_binding(faults: Faults, obj: Object) -> None:
    """A RoleBinding's role and subjects."""
    reference = obj.get("roleRef") or {}
    kinds = ("ClusterRole", "Role") if obj["metadata"].get("namespace") else ("ClusterRole",)
    if reference.get("apiGroup") != "rbac.authorization.k8s.io":
        faults.not_supported("roleRef.apiGroup", reference.get("apiGroup"), ("rbac.authorization.k8s.io",))
    if reference.get("kind") not in kinds:
        faults.not_supported("roleRef.kind", reference.get("kind", ""), kinds)
    if not reference.get("name"):
        faults.required("roleRef.name")
    else:
        for detail in path_segment(reference["name"]):
            faults.invalid("roleRef.name", reference["name"], detail)
    for index, subject in enumerate(obj.get("subjects") or []):
        at = f"subjects[{index}]"
        if not subject.get("name"):
            faults.required(f"{at}.name")
        if subject.get("kind") not in _SUBJECTS:
            faults.not_supported(f"{at}.kind", subject.get("kind", ""), _SUBJECTS)
        wanted = "rbac.authorization.k8s.io" if subject.get("kind") in ("User", "Group") else ""
        if subject.get("apiGroup", "") != wanted and subject.get("kind") in _SUBJECTS:
            faults.not_supported(f"{at}.apiGroup", subject.get("apiGroup", ""), (wanted,))
        bare = subject.get("kind") == "ServiceAccount" and not subject.get("namespace")
        if bare and not obj["metadata"].get("namespace"):
            faults.required(f"{at}.namespace")


def check_role_binding_update(faults: Faults, new: Object, old: Object) -> None:
    """The role of a binding may not change."""
    if not equal_json(new.get("roleRef"), old.get("roleRef")):
        faults.invalid("roleRef", go_struct(new.get("roleRef") or {}, "APIGroup kind name"), "cannot change roleRef")


def check_lease(faults: Faults, obj: Object) -> None:
    """A Lease's numbers."""
    spec = obj.get("spec") or {}
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and duration <= 0:
        faults.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0")
    faults.non_negative("spec.leaseTransitions", spec.get("leaseTransitions"))


def check_core_event(faults: Faults, obj: Object) -> None:
    """A core Event is about an object of its own namespace."""
    _check_event_namespace(faults, obj, "involvedObject")


def _check_event_namespace(faults: Faults, obj: Object, field: str) -> None:
    namespace = obj["metadata"].get("namespace", "")
    involved = (obj.get(field) or {}).get("namespace", "")
    if involved != namespace and not (not involved and namespace == "default"):
        faults.invalid(f"{field}.namespace", involved, "does not match event.namespace")


def check_event(faults: Faults, obj: Object) -> None:
    """An Event of events.k8s.io: time, reporter, action, reason and type are required."""
    if not obj.get("eventTime"):
        faults.required("eventTime")
        return
    for field in ("reportingController", "reportingInstance", "action", "reason"):
        if not obj.get(field):
            faults.required(field)
    if obj.get("type") not in ("Normal", "Warning"):
        faults.invalid("type", obj.get("type", ""), f"has invalid value: {obj.get('type', '')}")
    if len(obj.get("note", "")) > 1024:
        faults.invalid("note", "", "can have at most 1024 characters")
    _check_event_namespace(faults, obj, "regarding")


class Requester(Protocol):
    """Who makes a request."""

    @property
    def name(self) -> str:
        """The user's name."""

    @property
    def groups(self) -> Sequence[str]:
        """The user's groups."""

    @property
    def uid(self) -> str:
        """The user's uid, or empty."""

    @property
    def extra(self) -> Mapping[str, Sequence[str]]:
        """What else is known of the user."""


def record_requester(obj: Object, requester: Requester) -> None:
    """A CertificateSigningRequest says who made it, whatever the client sent."""
    spec = obj["spec"]
    spec["username"] = requester.name
    spec["groups"] = list(requester.groups)
    for key, value in (("uid", requester.uid), ("extra", {key: list(each) for key, each in requester.extra.items()})):
        if value:
            spec[key] = value
        else:
            spec.pop(key, None)


def check_signing_request(faults: Faults, obj: Object) -> None:
    """A CertificateSigningRequest's spec."""
    spec = obj["spec"]
    try:
        text = base64.b64decode(spec.get("request") or "")
    except ValueError:
        text = b""
    if not text.lstrip().startswith(b"-----BEGIN CERTIFICATE REQUEST-----"):
        faults.invalid("spec.request", spec.get("request") or None, "PEM block type must be CERTIFICATE REQUEST")
    for index, usage in enumerate(spec.get("usages") or []):
        if usage not in _USAGES:
            faults.not_supported(f"spec.usages[{index}]", usage, _USAGES)
    if not spec.get("signerName"):
        faults.required("spec.signerName")
    elif "/" not in spec["signerName"]:
        faults.invalid(
            "spec.signerName",
            spec["signerName"],
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        )
    if not spec.get("usages"):
        faults.required("spec.usages")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _LEAST_SECONDS:
        detail = f"may not specify a duration less than {_LEAST_SECONDS} seconds (10 minutes)"
        faults.invalid("spec.expirationSeconds", seconds, detail)


def keep_signing_request(new: Object, old: Object) -> None:
    """What is asked for does not change."""
    new["spec"] = copy_json(old.get("spec") or {})


def approve(new: Object, old: Object, now: str) -> None:
    """A change through `approval`: of the status only the conditions count, and each has a time."""
    keep_signing_request(new, old)
    status = {key: value for key, value in (old.get("status") or {}).items() if key != "conditions"}
    conditions = (new.get("status") or {}).get("conditions") or []
    for condition in conditions:
        condition["lastTransitionTime"] = condition.get("lastTransitionTime") or now
        condition["lastUpdateTime"] = condition.get("lastUpdateTime") or now
    new["status"] = status | ({"conditions": conditions} if conditions else {})


def check_signing_status(faults: Faults, new: Object, old: Object) -> None:
    """A decision stays; what is issued is a certificate."""
    status, before = new.get("status") or {}, old.get("status") or {}
    left, had = ([each["type"] for each in part.get("conditions") or ()] for part in (status, before))
    for kind in ("Approved", "Denied", "Failed"):
        if kind in had and kind not in left:
            faults.forbidden("status.conditions", f'updates may not remove a condition of type "{kind}"')
    certificate = status.get("certificate")
    if certificate and b"-----BEGIN CERTIFICATE-----" not in base64.b64decode(certificate):
        text = "must contain at least one CERTIFICATE PEM block"
        faults.invalid("status.certificate", "<certificate data>", text)
