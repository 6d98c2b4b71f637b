"""SubjectAccessReview and its kin: questions about rights, answered from RBAC; nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sandlane.kube.resource import Object
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.auth.rbac import GROUP, Attributes, allowed, rules_of
from sandlane.local.apiserver.body import decode_object
from sandlane.local.apiserver.request_info import RequestInfo
from sandlane.local.apiserver.resource_type import ResourceType, StorageKey
from sandlane.local.apiserver.status import bad_request
from sandlane.local.apiserver.store.objects import ObjectStore

JSON = (("content-type", "application/json"),)
AUTHORIZATION = "authorization.k8s.io"


class Reviews:
    """Answers reviews. `handle` is one of the server's handlers."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def objects(self, plural: str) -> Iterable[Object]:
        """All objects of an RBAC resource."""
        storage: StorageKey = (GROUP, plural)
        return [msgspec.json.decode(stored.data) for _, stored in self._store.list(storage)]

    async def handle(
        self, type_: ResourceType, info: RequestInfo, request: Request, user: Any, query: dict[str, str]
    ) -> Response | None:
        """The answer to a review, or None for anything else."""
        if info.verb != "create" or info.subresource:
            return None
        answer: Callable[[Object, RequestInfo, Any], Object] | None = {
            (AUTHORIZATION, "subjectaccessreviews"): self._subject,
            (AUTHORIZATION, "localsubjectaccessreviews"): self._subject,
            (AUTHORIZATION, "selfsubjectaccessreviews"): self._self,
            (AUTHORIZATION, "selfsubjectrulesreviews"): self._rules,
            ("authentication.k8s.io", "selfsubjectreviews"): self._who,
        }.get((info.group, info.resource))
        if answer is None:
            return None
        obj = decode_object(type_, request).obj
        type_.strategy.prune(obj)
        obj["status"] = answer(obj, info, user)
        return Response(201, JSON, msgspec.json.encode(obj))

    def _subject(self, obj: Object, info: RequestInfo, user: Any) -> Object:
        spec = obj.get("spec") or {}
        if not spec.get("user") and not spec.get("groups"):
            raise bad_request("spec.user: at least one of user or group must be specified")
        if info.resource == "localsubjectaccessreviews":
            spec.setdefault("resourceAttributes", {}).setdefault("namespace", info.namespace)
        return self._decide(spec, spec.get("user", ""), spec.get("groups") or ())

    def _self(self, obj: Object, info: RequestInfo, user: Any) -> Object:
        return self._decide(obj.get("spec") or {}, user.name, user.groups)

    def _decide(self, spec: Object, user: str, groups: Iterable[str]) -> Object:
        wanted = spec.get("resourceAttributes")
        path = spec.get("nonResourceAttributes")
        if wanted is not None:
            attributes = Attributes(
                wanted.get("verb", ""),
                wanted.get("group", ""),
                wanted.get("resource", ""),
                wanted.get("subresource", ""),
                wanted.get("namespace", ""),
                wanted.get("name", ""),
            )
        elif path is not None:
            attributes = Attributes(path.get("verb", ""), path=path.get("path", ""))
        else:
            raise bad_request(
                "spec.resourceAttributes: exactly one of nonResourceAttributes or resourceAttributes must be specified"
            )
        why = allowed(self.objects, user, groups, attributes)
        if why is None:
            return {"allowed": False}
        return {"allowed": True} | ({"reason": why} if why else {})

    def _rules(self, obj: Object, info: RequestInfo, user: Any) -> Object:
        if "system:masters" in user.groups:
            resources = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
            paths = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
            return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}
        namespace = (obj.get("spec") or {}).get("namespace", "")
        rules = [rule for rule, _ in rules_of(self.objects, user.name, user.groups, namespace)]
        resources = [rule for rule in rules if rule.get("resources")]
        paths = [rule for rule in rules if rule.get("nonResourceURLs")]
        return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}

    def _who(self, obj: Object, info: RequestInfo, user: Any) -> Object:
        who: Object = {"username": user.name, "groups": list(user.groups)}
        if user.uid:
            who["uid"] = user.uid
        if user.extra:
            who["extra"] = {key: list(values) for key, values in user.extra.items()}
        return {"userInfo": who}
