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
from sandlane.local.apiserver.admission.expressions import ExpressionFailed, conditions_hold, evaluate, scope_of
from sandlane.local.apiserver.auth.rbac import Rbac
from sandlane.local.apiserver.cel.scopes import Variables, of_policy
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import StorageKey
from sandlane.local.apiserver.status import StatusError, forbidden
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.stored_form import show

log = structlog.get_logger(__name__)

POLICIES: StorageKey = (EXEMPT_GROUP, "validatingadmissionpolicies")
BINDINGS: StorageKey = (EXEMPT_GROUP, "validatingadmissionpolicybindings")
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


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
        for policy, binding in self._in_force(at):
            for params in await self._params(policy, binding, at):
                for message, reason in self._violations(policy, at, params):
                    self._act(policy, binding, at, message, reason)

    def _in_force(self, at: Attributes) -> Iterator[tuple[Object, Object]]:
        """Policies with their bindings that a write concerns."""
        for _, stored in self._store.list(BINDINGS):
            binding = msgspec.json.decode(stored.data)
            found = self._store.get(POLICIES, Key("", binding["spec"].get("policyName", "")))
            if found is None or binding["metadata"].get("deletionTimestamp"):
                continue
            policy = msgspec.json.decode(found.data)
            wanted = (policy["spec"].get("matchConstraints") or {}, binding["spec"].get("matchResources") or {})
            if all(self._matches(constraints, at) for constraints in wanted):
                yield policy, binding

    def _matches(self, constraints: Object, at: Attributes) -> bool:
        if not self._matcher.selected(at, constraints.get("namespaceSelector"), constraints.get("objectSelector")):
            return False
        rules, excluded = constraints.get("resourceRules"), constraints.get("excludeResourceRules") or ()
        anything = [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]
        policy = constraints.get("matchPolicy", "Equivalent")
        return self._matcher.served_as(at, rules or anything, policy, excluded) is not None

    async def _params(self, policy: Object, binding: Object, at: Attributes) -> list[Object | None]:
        """The parameter objects of a policy; one None where it takes none."""
        kind, reference = policy["spec"].get("paramKind"), binding["spec"].get("paramRef")
        if not kind or not reference:
            return [None]
        type_ = self._registry.by_kind(kind.get("apiVersion", ""), kind.get("kind", ""))
        found: list[Object | None] = []
        if type_ is not None:
            where = (reference.get("namespace") or at.write.namespace) if type_.resource.namespaced else ""
            selector = selector_of(reference.get("selector"))
            for key, stored in self._store.list(type_.storage_key, where):
                obj: Object = msgspec.json.decode(stored.data)
                by_name = reference.get("name") == key.name
                if by_name or (
                    not reference.get("name")
                    and selector is not None
                    and matches(selector, obj["metadata"].get("labels") or {})
                ):
                    found += await show(type_, stored.data)
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            self._act(policy, binding, at, "no params found for policy binding with `Deny` parameterNotFoundAction", "")
        return found

    def _violations(self, policy: Object, at: Attributes, params: Object | None) -> Iterator[tuple[str, str]]:
        """Message and reason of each validation that fails."""
        spec = policy["spec"]
        ignores = spec.get("failurePolicy") == "Ignore"
        takes = bool(spec.get("paramKind"))
        scope: dict[str, Any] = {**scope_of(at, self._rbac, self._matcher.namespace(at)), "params": params}
        try:
            if not conditions_hold(spec.get("matchConditions") or (), scope, of_policy(params=takes, variables=None)):
                return
        except ExpressionFailed as error:
            if not ignores:
                yield str(error), ""
            return
        scope["variables"] = variables = {}
        named: list[str] = []
        for variable in spec.get("variables") or ():
            try:
                known = of_policy(params=takes, variables=named)
                named.append(variable["name"])
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
            resource = at.type_.resource
            why = f"ValidatingAdmissionPolicy '{name}' with binding '{by}' denied request: {message}"
            refused = forbidden(resource.group, resource.plural, at.name, why)
            reason = reason or "Invalid"
            details = (refused.details or {}) | {"causes": [{"message": message}]}
            raise StatusError(_CODES.get(reason, 422), reason, refused.message, details)


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
