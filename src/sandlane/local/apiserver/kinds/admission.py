"""Defaults and validation of webhook configurations, admission policies and their bindings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from sandlane.kube.resource import Object
from sandlane.local.apiserver.cel import scopes
from sandlane.local.apiserver.cel.program import compile_expression
from sandlane.local.apiserver.cel.syntax import RESERVED, CompileError
from sandlane.local.apiserver.cel.types import DYN, Type
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.kinds.names import check_selector, dns1035_label, path_segment, qualified_name, subdomain

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_ACTIONS = ("Audit", "Deny", "Warn")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*", re.ASCII)


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
        if not name:
            faults.required(f"{at}.name")
        elif name.count(".") < 2:
            faults.invalid(f"{at}.name", name, "should be a domain with at least three segments separated by dots")
        if name in names:
            faults.duplicate(f"{at}.name", name)
        names.add(name)
        _check_rules(faults, hook.get("rules") or (), f"{at}.rules")
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
        elif "url" in client:
            check_webhook_url(faults, client["url"], f"{at}.clientConfig.url")
        else:
            _check_service(faults, client["service"] or {}, f"{at}.clientConfig.service")
        faults.one_of(f"{at}.matchPolicy", hook.get("matchPolicy"), ("Equivalent", "Exact"))
        for key in ("namespaceSelector", "objectSelector"):
            check_selector(faults, hook.get(key), f"{at}.{key}")
        _check_conditions(faults, hook, f"{at}.matchConditions", scopes.CONDITIONS)


def _check_service(faults: Faults, service: Object, at: str) -> None:
    """The Service that a webhook is behind."""
    for field, named in (("name", "namespace"), ("namespace", "name")):  # upstream mixes them up
        if not service.get(field):
            faults.required(f"{at}.{named}")
    path = service.get("path")
    if path is not None and not path.startswith("/"):
        faults.invalid(f"{at}.path", path, "must start with a '/'")
    if path and path != "/":
        for place, segment in enumerate(path.removesuffix("/").split("/")[1:] or [""]):
            if not segment:
                faults.invalid(f"{at}.path", path, f"segment[{place}] may not be empty")
    if not 0 < service.get("port", 443) < 65536:
        why = "port is not valid: must be between 1 and 65535, inclusive"
        faults.invalid(f"{at}.port", service["port"], why)


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
        if not (condition.get("expression") or "").strip():
            faults.required(f"{at}[{index}].expression")
        else:
            _check_expression(faults, condition["expression"], f"{at}[{index}].expression", variables, "bool")
        if not name:
            faults.required(f"{at}[{index}].name")
            continue
        for detail in qualified_name(name):
            faults.invalid(f"{at}[{index}].name", name, detail)
        if name in names:
            faults.duplicate(f"{at}[{index}].name", name)
        names.add(name)


def _check_rules(faults: Faults, rules: Iterable[Object], at: str) -> None:
    """Which operations on which resources."""
    for index, rule in enumerate(rules):
        field = f"{at}[{index}]"
        only = rule.get("resourceNames") or ()
        for place, name in enumerate(only):
            for detail in path_segment(name):
                faults.invalid(f"{field}.resourceNames[{place}]", name, detail)
            if name in only[:place]:
                faults.duplicate(f"{field}.resourceNames[{place}]", name)
        for key, many in (
            ("operations", "operations"),
            ("apiGroups", "API groups"),
            ("apiVersions", "API versions"),
            ("resources", "resources"),
        ):
            given = rule.get(key) or []
            wildcard = "*/*" if key == "resources" else "*"
            if not given:
                faults.required(f"{field}.{key}")
            if len(given) > 1 and wildcard in given:
                faults.invalid(f"{field}.{key}", given, f"if '{wildcard}' is present, must not specify other {many}")
            for place, each in enumerate(given):
                if key == "operations" and each not in _OPERATIONS:
                    faults.not_supported(f"{field}.{key}[{place}]", each, _OPERATIONS)
                elif not each and key in ("apiVersions", "resources"):
                    faults.required(f"{field}.{key}[{place}]")
        given = rule.get("resources") or []
        for place, each in enumerate(given):
            name, slash, sub = each.partition("/")
            if slash and sub != "*" and f"{name}/*" in given:
                why = f"if '{name}/*' is present, must not specify {each}"
                faults.invalid(f"{field}.resources[{place}]", each, why)
            elif slash and name != "*" and f"*/{sub}" in given:
                why = f"if '*/{sub}' is present, must not specify {each}"
                faults.invalid(f"{field}.resources[{place}]", each, why)
        faults.one_of(f"{field}.scope", rule.get("scope"), _SCOPES)


def _check_match(faults: Faults, match: Object, at: str) -> None:
    """`matchConstraints` of a policy, `matchResources` of a binding."""
    faults.one_of(f"{at}.matchPolicy", match.get("matchPolicy"), ("Equivalent", "Exact"), required=True)
    for key in ("namespaceSelector", "objectSelector"):
        check_selector(faults, match.get(key), f"{at}.{key}")
    for key in ("resourceRules", "excludeResourceRules"):
        _check_rules(faults, match.get(key) or (), f"{at}.{key}")


def _check_expression(
    faults: Faults, expression: str | None, at: str, variables: scopes.Variables, *wanted: str
) -> Type:
    """An expression that can be run, and gives a value of a wanted type. What it gives."""
    if not (expression or "").strip():
        faults.required(at, f"{at.rpartition('.')[2]} is not specified")
        return DYN
    assert expression is not None
    try:
        found = compile_expression(expression, variables).type
    except CompileError as error:
        faults.invalid(at, expression, f"compilation failed: {error}")
        return DYN
    if wanted and found.name not in wanted:
        which = wanted[0] if len(wanted) == 1 else f"one of [{' '.join(wanted)}]"
        faults.invalid(at, expression, f"must evaluate to {which} but got {found}")
    return found


def check_admission_policy(faults: Faults, obj: Object) -> None:
    """A ValidatingAdmissionPolicy: what it matches, and its expressions."""
    spec = obj.get("spec") or {}
    kind = spec.get("paramKind")
    faults.one_of("spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"), required=True)
    if kind is not None:
        _check_param_kind(faults, kind)
    match = spec.get("matchConstraints")
    if match is None:
        faults.required("spec.matchConstraints")
    else:
        _check_match(faults, match, "spec.matchConstraints")
        if not match.get("resourceRules"):
            faults.required("spec.matchConstraints.resourceRules")
    params = kind is not None
    _check_conditions(faults, spec, "spec.matchConditions", scopes.of_policy(params=params, variables=None))
    named: dict[str, Type] = {}
    for index, variable in enumerate(spec.get("variables") or ()):
        name, at = variable.get("name", ""), f"spec.variables[{index}]"
        if not name.strip():
            faults.required(f"{at}.name", "name is not specified")
        elif not _IDENTIFIER.fullmatch(name) or name in RESERVED:
            faults.invalid(f"{at}.name", name, "must be a valid CEL identifier")
        seen = scopes.of_policy(params=params, variables=named)
        named[name] = _check_expression(faults, variable.get("expression"), f"{at}.expression", seen)
    seen = scopes.of_policy(params=params, variables=named)
    if not (spec.get("validations") or spec.get("auditAnnotations")):
        for field in ("validations", "auditAnnotations"):
            faults.required(f"spec.{field}", "validations or auditAnnotations must contain at least one item")
    for index, validation in enumerate(spec.get("validations") or ()):
        _check_validation(faults, validation, f"spec.validations[{index}]", seen)
    keys: set[str] = set()
    for index, annotation in enumerate(spec.get("auditAnnotations") or ()):
        at, key = f"spec.auditAnnotations[{index}]", annotation.get("key", "")
        whole = f"{obj['metadata'].get('name', '')}/{key}"
        for detail in qualified_name(whole):
            faults.invalid(f"{at}.key", whole, detail)
        _check_expression(
            faults, annotation.get("valueExpression"), f"{at}.valueExpression", seen, "string", "null_type"
        )
        if key in keys:
            faults.duplicate(f"{at}.key", key)
        keys.add(key)


def _check_param_kind(faults: Faults, kind: Object) -> None:
    """Which kind the parameters of a policy are of."""
    version = kind.get("apiVersion", "")
    group, _, name = version.rpartition("/")
    if not version:
        faults.required("spec.paramKind.apiVersion")
    else:
        for detail in (subdomain(group) if group else []) + dns1035_label(name):
            faults.invalid("spec.paramKind.apiVersion", group if group and not subdomain(group) else name, detail)
    if not kind.get("kind"):
        faults.required("spec.paramKind.kind")
    else:
        for detail in dns1035_label(kind["kind"].lower()):
            text = f"may have mixed case, but should otherwise match: {detail}"
            faults.invalid("spec.paramKind.kind", kind["kind"], text)


def _check_validation(faults: Faults, validation: Object, at: str, seen: scopes.Variables) -> None:
    """One rule of a policy, and what it says when it is broken."""
    _check_expression(faults, validation.get("expression"), f"{at}.expression", seen, "bool")
    message = validation.get("message") or ""
    if message and not message.strip():
        faults.invalid(f"{at}.message", message, "must be non-empty if specified")
    elif "\n" in message.strip():
        faults.invalid(f"{at}.message", message, "must not contain line breaks")
    expression = validation.get("messageExpression")
    if expression and not expression.strip():
        faults.invalid(f"{at}.messageExpression", expression, "must be non-empty if specified")
    elif expression:
        _check_expression(faults, expression, f"{at}.messageExpression", seen, "string")
    faults.one_of(f"{at}.reason", validation.get("reason"), _REASONS)


def check_policy_binding(faults: Faults, obj: Object) -> None:
    """A ValidatingAdmissionPolicyBinding: the policy, its parameters, and what happens to who breaks it."""
    spec = obj.get("spec") or {}
    if not spec.get("policyName"):
        faults.required("spec.policyName")
    for detail in subdomain(spec["policyName"]) if spec.get("policyName") else ():
        faults.invalid("spec.policyName", spec["policyName"], detail)
    if (reference := spec.get("paramRef")) is not None:
        _check_param_ref(faults, reference)
    if spec.get("matchResources") is not None:
        _check_match(faults, spec["matchResources"], "spec.matchResources")
    actions = spec.get("validationActions") or []
    for index, action in enumerate(actions):
        at = f"spec.validationActions[{index}]"
        if action not in _ACTIONS:
            faults.not_supported(at, action, _ACTIONS)
        if action in actions[:index]:
            faults.duplicate(at, action)
    if {"Deny", "Warn"} <= set(actions):
        text = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        faults.invalid("spec.validationActions", actions, text)
    if not actions:
        faults.required("spec.validationActions", "at least one validation action is required")


def _check_param_ref(faults: Faults, reference: Object) -> None:
    name, selector = reference.get("name") or "", reference.get("selector")
    exclusive = "name and selector are mutually exclusive"
    for detail in path_segment(name):
        faults.invalid("spec.paramRef.name", name, detail)
    if name and selector is not None:
        faults.forbidden("spec.paramRef.name", exclusive)
        faults.forbidden("spec.paramRef.selector", exclusive)
    if selector is not None:
        check_selector(faults, selector, "spec.paramRef.selector")
    if not name and selector is None:
        faults.required("spec.paramRef", "one of name or selector must be specified")
    action = reference.get("parameterNotFoundAction")
    if not action:
        faults.required("spec.paramRef.parameterNotFoundAction")
    elif action not in ("Deny", "Allow"):
        supported = 'supported values: "Deny", "Allow"'
        at = "spec.paramRef.parameterNotFoundAction"
        faults.errors.append(FieldError("FieldValueNotSupported", at, action, supported))
