"""ValidatingAdmissionPolicies: CEL expressions over a write, in force where a binding says so.

https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import structlog

from sandlane.kube.resource import Key, Object
from sandlane.kube.selectors import matches, selector_of
from sandlane.local.apiserver.admission.attributes import EXEMPT_GROUP, Attributes, Matcher
from sandlane.local.apiserver.admission.expressions import (
    ExpressionFailed,
    conditions_hold,
    evaluate,
    scope_of,
    type_of,
)
from sandlane.local.apiserver.auth.rbac import Rbac
from sandlane.local.apiserver.cel.scopes import Variables, of_policy
from sandlane.local.apiserver.cel.types import Type
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import ResourceType, StorageKey
from sandlane.local.apiserver.status import StatusError, forbidden
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.stored_form import show, translate

log = structlog.get_logger(__name__)

POLICIES: StorageKey = (EXEMPT_GROUP, "validatingadmissionpolicies")
BINDINGS: StorageKey = (EXEMPT_GROUP, "validatingadmissionpolicybindings")
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


class ConfigError(Exception):
    """A binding that cannot be evaluated as it is; the message says why."""


class Policies:
    """Evaluates the policies in the store."""

    def __init__(self, store: ObjectStore, registry: Registry, matcher: Matcher, rbac: Rbac) -> None:
        self._store = store
        self._registry = registry
        self._matcher = matcher
        self._rbac = rbac

    def any(self) -> bool:
        """Whether a policy is bound."""
        return bool(self._store.count(BINDINGS))

    async def validate(self, at: Attributes) -> None:
        """Raises `StatusError` when a policy denies."""
        if at.type_.resource.group == EXEMPT_GROUP:
            return
        for policy, binding, type_ in self._in_force(at):
            ignores = policy["spec"].get("failurePolicy") == "Ignore"
            try:
                kind = self._param_kind(policy)
            except ConfigError as error:
                if not ignores:
                    raise _denied(policy, None, at, f"failed to configure policy: {error}", "") from error
                continue
            try:
                several = await self._params(kind, binding, at)
            except ConfigError as error:
                if not ignores:
                    raise _denied(policy, binding, at, f"failed to configure binding: {error}", "") from error
                continue
            scope = await self._scope(at, type_)
            for params in several:
                for message, reason in self._violations(policy, at, {**scope, "params": params}):
                    self._act(policy, binding, at, message, reason)

    def _in_force(self, at: Attributes) -> Iterator[tuple[Object, Object, ResourceType]]:
        """Policies with their bindings that a write concerns, and the version in which they want to see it."""
        for _, stored in self._store.list(BINDINGS):
            binding = msgspec.json.decode(stored.data)
            found = self._store.get(POLICIES, Key("", binding["spec"].get("policyName", "")))
            if found is None or binding["metadata"].get("deletionTimestamp"):
                continue
            policy = msgspec.json.decode(found.data)
            type_ = self._matched(policy["spec"].get("matchConstraints") or {}, at)
            if type_ is not None and self._matched(binding["spec"].get("matchResources") or {}, at) is not None:
                yield policy, binding, type_

    def _matched(self, constraints: Object, at: Attributes) -> ResourceType | None:
        if not self._matcher.selected(at, constraints.get("namespaceSelector"), constraints.get("objectSelector")):
            return None
        rules, excluded = constraints.get("resourceRules"), constraints.get("excludeResourceRules") or ()
        anything = [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]
        policy = constraints.get("matchPolicy", "Equivalent")
        return self._matcher.served_as(at, rules or anything, policy, excluded)

    def _param_kind(self, policy: Object) -> ResourceType | None:
        """The type of a policy's parameters; None where it takes none. Raises `ConfigError`."""
        kind = policy["spec"].get("paramKind")
        if not kind:
            return None
        version, name = kind.get("apiVersion", ""), kind.get("kind", "")
        type_ = self._registry.by_kind(version, name)
        if type_ is None:
            group, _, version = version.rpartition("/")
            raise ConfigError(f"failed to find resource referenced by paramKind: '{group}/{version}, Kind={name}'")
        return type_

    async def _params(self, type_: ResourceType | None, binding: Object, at: Attributes) -> list[Object | None]:
        """The parameter objects of a policy; one None where it takes none. Raises `ConfigError`."""
        reference = binding["spec"].get("paramRef")
        if type_ is None or not reference:
            return [None]
        namespace = reference.get("namespace") or ""
        if type_.resource.namespaced:
            namespace = namespace or at.write.namespace
            if not namespace:
                why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                raise ConfigError(why)
        elif namespace:
            raise ConfigError("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        found: list[Object | None] = []
        if wanted := reference.get("name"):
            stored = self._store.get(type_.storage_key, Key(namespace, wanted))
            found += await show(type_, stored.data) if stored is not None else ()
        else:
            selector = selector_of(reference.get("selector"))
            for _, each in self._store.list(type_.storage_key, namespace):
                obj: Object = msgspec.json.decode(each.data)
                if selector is not None and matches(selector, obj["metadata"].get("labels") or {}):
                    found += await show(type_, each.data)
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            raise ConfigError("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    async def _scope(self, at: Attributes, type_: ResourceType) -> dict[str, Any]:
        """What expressions see of a write, in the version of the rule that it matches."""
        scope = scope_of(at, self._rbac, self._matcher.namespace(at))
        if type_ is not at.type_ and at.write.seen is None:
            resource = type_.resource
            kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
            named = {"group": resource.group, "version": resource.version, "resource": resource.plural}
            scope["request"] |= {"kind": kind, "resource": named}
            for field in ("object", "oldObject"):
                if scope[field] is not None:
                    scope[field] = await translate(scope[field], at.type_, type_)
        return scope

    def _violations(self, policy: Object, at: Attributes, scope: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Message and reason of each validation that fails."""
        spec = policy["spec"]
        ignores = spec.get("failurePolicy") == "Ignore"
        takes = bool(spec.get("paramKind"))
        try:
            if not conditions_hold(spec.get("matchConditions") or (), scope, of_policy(params=takes, variables=None)):
                return
        except ExpressionFailed as error:
            if not ignores:
                yield str(error), ""
            return
        scope["variables"] = variables = {}
        named: dict[str, Type] = {}
        for variable in spec.get("variables") or ():
            known = of_policy(params=takes, variables=named)
            named[variable["name"]] = type_of(variable["expression"], known)
            try:
                variables[variable["name"]] = evaluate(variable["expression"], scope, known)
            except ExpressionFailed as error:  # counts where it is used
                log.debug("policy_variable_failed", policy=policy["metadata"]["name"], error=str(error))
        known = of_policy(params=takes, variables=named)
        for validation in spec.get("validations") or ():
            try:
                passed = evaluate(validation["expression"], scope, known) is True
            except ExpressionFailed as error:
                if not ignores:
                    yield str(error), ""
                continue
            if not passed:
                yield _message(validation, scope, known), validation.get("reason") or ""
        for annotation in spec.get("auditAnnotations") or ():
            try:
                value = evaluate(annotation["valueExpression"], scope, known)
            except ExpressionFailed as error:
                if not ignores:
                    yield f"valueE{str(error)[1:]}", ""
                continue
            if isinstance(value, str) and value.strip():
                key = f"{policy['metadata']['name']}/{annotation['key']}"
                log.info("policy_audit_annotation", key=key, value=value.strip(), name=at.name)

    @staticmethod
    def _act(policy: Object, binding: Object, at: Attributes, message: str, reason: str) -> None:
        name, by = policy["metadata"]["name"], binding["metadata"]["name"]
        actions = binding["spec"].get("validationActions") or ["Deny"]
        if "Warn" in actions:
            at.write.warnings.append(
                f"Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{by}': {message}"
            )
        if "Audit" in actions:
            log.info("policy_violated", policy=name, binding=by, message=message)
        if "Deny" in actions:
            raise _denied(policy, binding, at, message, reason)


def _denied(policy: Object, binding: Object | None, at: Attributes, message: str, reason: str) -> StatusError:
    resource = at.type_.resource
    by = f" with binding '{binding['metadata']['name']}'" if binding is not None else ""
    why = f"ValidatingAdmissionPolicy '{policy['metadata']['name']}'{by} denied request: {message}"
    refused = forbidden(resource.group, resource.plural, at.name, why)
    reason = reason or "Invalid"
    details = (refused.details or {}) | {"causes": [{"message": why}]}
    return StatusError(_CODES.get(reason, 422), reason, refused.message, details)


def _message(validation: Object, scope: dict[str, Any], known: Variables) -> str:
    if expression := validation.get("messageExpression"):
        try:
            made = evaluate(expression, scope, known)
        except ExpressionFailed as error:  # falls back to the plain message, as the API says
            log.debug("message_expression_failed", error=str(error))
        else:
            if isinstance(made, str) and made.strip() and "\n" not in made:
                return made.strip()
    return str(validation.get("message") or f"failed expression: {validation['expression']}")
