"""Defaults and validation of RBAC, webhooks, admission policies, certificates, Leases and Events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from sandlane.kube.patch.values import equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.cel import scopes
from sandlane.local.apiserver.cel.program import compile_expression
from sandlane.local.apiserver.cel.syntax import CompileError
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.names import path_segment


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
        faults.one_of(f"{at}.kind", subject.get("kind"), ("Group", "ServiceAccount", "User"), required=True)
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            faults.required(f"{at}.namespace")


def check_role_binding_update(faults: Faults, new: Object, old: Object) -> None:
    """The role of a binding may not change."""
    if not equal_json(new.get("roleRef"), old.get("roleRef")):
        faults.invalid("roleRef", new.get("roleRef"), "cannot change roleRef")


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
    for field in ("eventTime", "reportingController", "reportingInstance", "action", "reason"):
        if not obj.get(field):
            faults.required(field)
    if obj.get("type") not in ("Normal", "Warning"):
        faults.invalid("type", obj.get("type", ""), f"has invalid value: {obj.get('type', '')}")
    if len(obj.get("note", "")) > 1024:
        faults.invalid("note", "", "can have at most 1024 characters")
    _check_event_namespace(faults, obj, "regarding")


def default_webhooks(obj: Object) -> None:
    """Defaults of the webhooks of a configuration."""
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    for hook in obj.get("webhooks") or []:
        for key, value in (("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("timeoutSeconds", 10)):
            if hook.get(key) is None:
                hook[key] = value
        for key in ("namespaceSelector", "objectSelector"):
            if hook.get(key) is None:
                hook[key] = {}
        if mutating and hook.get("reinvocationPolicy") is None:
            hook["reinvocationPolicy"] = "Never"
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443
        for rule in hook.get("rules") or []:
            if rule.get("scope") is None:
                rule["scope"] = "*"


def check_webhooks(faults: Faults, obj: Object) -> None:
    """The webhooks of a configuration."""
    names: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or []):
        at, name = f"webhooks[{index}]", hook.get("name", "")
        if name.count(".") < 2:
            faults.invalid(f"{at}.name", name, "should be a domain with at least three segments separated by dots")
        if name in names:
            faults.duplicate(f"{at}.name", name)
        names.add(name)
        if not hook.get("admissionReviewVersions"):
            faults.required(f"{at}.admissionReviewVersions", "must specify one of v1, v1beta1")
        elif not {"v1", "v1beta1"} & set(hook["admissionReviewVersions"]):
            faults.invalid(
                f"{at}.admissionReviewVersions",
                hook["admissionReviewVersions"],
                "must include at least one of v1, v1beta1",
            )
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            if hook.get("sideEffects") is None:
                faults.required(f"{at}.sideEffects", "must specify one of None, NoneOnDryRun")
            else:
                faults.not_supported(f"{at}.sideEffects", hook["sideEffects"], ("None", "NoneOnDryRun"))
        faults.one_of(f"{at}.failurePolicy", hook.get("failurePolicy"), ("Fail", "Ignore"), required=True)
        if not 1 <= hook.get("timeoutSeconds", 10) <= 30:
            faults.invalid(
                f"{at}.timeoutSeconds", hook["timeoutSeconds"], "the timeout value must be between 1 and 30 seconds"
            )
        client = hook.get("clientConfig") or {}
        if ("url" in client) == ("service" in client):
            faults.required(f"{at}.clientConfig", "exactly one of url or service is required")
        if "url" in client:
            check_webhook_url(faults, client["url"], f"{at}.clientConfig.url")
        _check_conditions(faults, hook, f"{at}.matchConditions", scopes.CONDITIONS)


def check_webhook_url(faults: Faults, url: str, field: str) -> None:
    """Where a webhook is: a URL over TLS, with nothing but a host and a path."""
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        faults.required(field, f"url must be a valid URL: {error}{form}")
        return
    if parts.scheme != "https":
        faults.invalid(field, parts.scheme, f"'https' is the only allowed URL scheme{form}")
    if not host:
        faults.invalid(field, parts.netloc, f"host must be specified{form}")
    if parts.username is not None:
        faults.invalid(field, parts.username, "user information is not permitted in the URL")
    if parts.fragment:
        faults.invalid(field, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        faults.invalid(field, parts.query, "query parameters are not permitted in the URL")


def default_admission_policy(obj: Object) -> None:
    """Defaults of a ValidatingAdmissionPolicy, and of what a binding matches."""
    spec = obj.setdefault("spec", {})
    if obj.get("kind") == "ValidatingAdmissionPolicy" and spec.get("failurePolicy") is None:
        spec["failurePolicy"] = "Fail"
    for field in ("matchConstraints", "matchResources"):
        matches = spec.get(field)
        if matches is None:
            continue
        if matches.get("matchPolicy") is None:
            matches["matchPolicy"] = "Equivalent"
        for key in ("namespaceSelector", "objectSelector"):
            if matches.get(key) is None:
                matches[key] = {}
        for rule in [*(matches.get("resourceRules") or []), *(matches.get("excludeResourceRules") or [])]:
            if rule.get("scope") is None:
                rule["scope"] = "*"


def _check_conditions(faults: Faults, owner: Object, at: str, variables: scopes.Variables) -> None:
    """Names and expressions of match conditions."""
    names: set[str] = set()
    for index, condition in enumerate(owner.get("matchConditions") or ()):
        name = condition.get("name", "")
        if not name:
            faults.required(f"{at}[{index}].name")
        elif name in names:
            faults.duplicate(f"{at}[{index}].name", name)
        names.add(name)
        _check_expression(faults, condition.get("expression"), f"{at}[{index}].expression", variables, "bool")


def _check_expression(
    faults: Faults, expression: str | None, at: str, variables: scopes.Variables, wanted: str = ""
) -> None:
    """An expression that can be run, and gives a value of the wanted type."""
    if not (expression or "").strip():
        faults.required(at)
        return
    assert expression is not None
    try:
        found = compile_expression(expression, variables).type.name
    except CompileError as error:
        faults.invalid(at, expression, f"compilation failed: {error}")
        return
    if wanted and found not in (wanted, "dyn"):
        faults.invalid(at, expression, f"must evaluate to {wanted}")


def check_admission_policy(faults: Faults, obj: Object) -> None:
    """The expressions of a ValidatingAdmissionPolicy."""
    spec = obj.get("spec") or {}
    params = bool(spec.get("paramKind"))
    _check_conditions(faults, spec, "spec.matchConditions", scopes.of_policy(params=params, variables=None))
    named: list[str] = []
    for index, variable in enumerate(spec.get("variables") or ()):
        seen = scopes.of_policy(params=params, variables=named)
        _check_expression(faults, variable.get("expression"), f"spec.variables[{index}].expression", seen)
        named.append(variable.get("name", ""))
    seen = scopes.of_policy(params=params, variables=named)
    for index, validation in enumerate(spec.get("validations") or ()):
        at = f"spec.validations[{index}]"
        _check_expression(faults, validation.get("expression"), f"{at}.expression", seen, "bool")
        if validation.get("messageExpression"):
            _check_expression(faults, validation["messageExpression"], f"{at}.messageExpression", seen, "string")
    for index, annotation in enumerate(spec.get("auditAnnotations") or ()):
        at = f"spec.auditAnnotations[{index}].valueExpression"
        _check_expression(faults, annotation.get("valueExpression"), at, seen)
    if obj.get("kind") == "ValidatingAdmissionPolicy" and not (spec.get("validations") or spec.get("auditAnnotations")):
        for field in ("validations", "auditAnnotations"):
            faults.required(f"spec.{field}", "validations or auditAnnotations must contain at least one item")


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
    if not spec.get("request"):
        faults.required("spec.request")
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


def check_signing_request_update(faults: Faults, new: Object, old: Object) -> None:
    """What is asked for may not change."""
    faults.immutable("spec", new.get("spec"), same=equal_json(new.get("spec"), old.get("spec")))
