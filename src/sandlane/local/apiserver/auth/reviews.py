"""SubjectAccessReview and its kin: questions about rights, answered from RBAC; nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from sandlane.kube.resource import Object
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.auth.rbac import Attributes, Rbac
from sandlane.local.apiserver.auth.user import User
from sandlane.local.apiserver.body import check_fields, decode_object, validation_mode
from sandlane.local.apiserver.kinds.field_errors import Faults, go_struct
from sandlane.local.apiserver.kinds.names import qualified_name
from sandlane.local.apiserver.request_info import RequestInfo
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import bad_request, invalid

JSON = (("content-type", "application/json"),)
AUTHORIZATION = "authorization.k8s.io"
_NO_SUBJECT = "at least one of user or group must be specified"
_NEITHER = "exactly one of nonResourceAttributes or resourceAttributes must be specified"


class Reviews:
    """Answers reviews. `handle` is one of the server's handlers."""

    def __init__(self, rbac: Rbac) -> None:
        self._rbac = rbac

    async def handle(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
    ) -> Response | None:
        """The answer to a review, or None for anything else."""
        if info.verb != "create" or info.subresource:
            return None
        answer: Callable[[Object, RequestInfo, User], Object] | None = {
            (AUTHORIZATION, "subjectaccessreviews"): self._subject,
            (AUTHORIZATION, "localsubjectaccessreviews"): self._subject,
            (AUTHORIZATION, "selfsubjectaccessreviews"): self._self,
            (AUTHORIZATION, "selfsubjectrulesreviews"): self._rules,
            ("authentication.k8s.io", "selfsubjectreviews"): self._who,
        }.get((info.group, info.resource))
        if answer is None:
            return None
        decoded = decode_object(type_, request)
        obj = decoded.obj
        check_fields(type_, obj, decoded.duplicates, validation_mode(query, info.verb), [])
        obj["status"] = answer(obj, info, user)
        if info.resource == "selfsubjectrulesreviews":
            obj["spec"] = {}
        return Response(201, JSON, msgspec.json.encode(obj))

    def _subject(self, obj: Object, info: RequestInfo, user: User) -> Object:
        spec = obj.get("spec") or {}
        faults = _check(spec)
        if not spec.get("user") and not spec.get("groups"):
            faults.invalid("spec.user", spec.get("user") or "", _NO_SUBJECT)
        if info.resource == "localsubjectaccessreviews":
            _check_local(faults, obj, spec, info.namespace)
        extra = {key: value for key, value in obj["metadata"].items() if key not in ("namespace", "managedFields")}
        if extra:
            faults.invalid("metadata", extra, "must be empty")
        _refuse(faults)
        return self._decide(spec, spec.get("user") or "", spec.get("groups") or ())

    def _self(self, obj: Object, info: RequestInfo, user: User) -> Object:
        spec = obj.get("spec") or {}
        _refuse(_check(spec))
        return self._decide(spec, user.name, user.groups)

    def _decide(self, spec: Object, user: str, groups: Iterable[str]) -> Object:
        wanted = spec.get("resourceAttributes")
        if wanted is not None:
            names = ("verb", "group", "resource", "subresource", "namespace", "name")
            attributes = Attributes(*(wanted.get(name) or "" for name in names))
        else:
            path = spec["nonResourceAttributes"]
            attributes = Attributes(path.get("verb") or "", path=path.get("path") or "")
        why = self._rbac.allowed(user, groups, attributes)
        if why is None:
            return {"allowed": False}
        return {"allowed": True} | ({"reason": why} if why else {})

    def _rules(self, obj: Object, info: RequestInfo, user: User) -> Object:
        namespace = (obj.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise bad_request("no namespace on request")
        rules = [rule for rule, _ in self._rbac.rules(user.name, user.groups, namespace)]
        resources = [rule for rule in rules if rule.get("resources")]
        paths = [rule for rule in rules if rule.get("nonResourceURLs")]
        return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}

    def _who(self, obj: Object, info: RequestInfo, user: User) -> Object:
        return {"userInfo": user.to_info()}


def _check(spec: Object) -> Faults:
    faults = Faults()
    if spec.get("resourceAttributes") is None and spec.get("nonResourceAttributes") is None:
        faults.invalid("spec.resourceAttributes", None, _NEITHER)
    elif spec.get("resourceAttributes") is not None and spec.get("nonResourceAttributes") is not None:
        together = "cannot be specified in combination with resourceAttributes"
        shown = go_struct(spec["nonResourceAttributes"], "path verb")
        faults.invalid("spec.nonResourceAttributes", shown, together)
    for kind in ("fieldSelector", "labelSelector"):
        selector = (spec.get("resourceAttributes") or {}).get(kind)
        if selector is not None:
            _check_selector(faults, selector, f"spec.resourceAttributes.{kind}")
    return faults


def _check_selector(faults: Faults, selector: Object, at: str) -> None:
    raw, requirements = selector.get("rawSelector"), selector.get("requirements") or []
    if raw and requirements:
        faults.invalid(f"{at}.rawSelector", raw, "may not specified at the same time as requirements")
    elif not raw and not requirements:
        faults.required(f"{at}.requirements", f"when {at} is specified, requirements or rawSelector is required")
    for index, requirement in enumerate(requirements):
        for detail in qualified_name(requirement.get("key", "")) if at.endswith("labelSelector") else ():
            faults.invalid(f"{at}.requirements[{index}].key", requirement.get("key", ""), detail)


def _check_local(faults: Faults, obj: Object, spec: Object, namespace: str) -> None:
    given = obj["metadata"].get("namespace") or namespace
    if given != namespace:
        raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
    if spec.get("nonResourceAttributes") is not None:
        faults.invalid(
            "spec.nonResourceAttributes", spec["nonResourceAttributes"], "disallowed on this kind of request"
        )
    wanted = spec.get("resourceAttributes")
    if wanted is not None and wanted.setdefault("namespace", namespace) != namespace:
        faults.invalid("spec.resourceAttributes.namespace", wanted["namespace"], "must match metadata.namespace")


def _refuse(faults: Faults) -> None:
    if faults.errors:
        raise invalid(AUTHORIZATION, "", "", faults.errors)
