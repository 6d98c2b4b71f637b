"""Mutating and validating admission webhooks.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/. Mutating ones run one after the other,
in order of name, and once more where they ask for it; validating ones run at the same time, in a TaskGroup of the write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import structlog

from sandlane.kube.patch.errors import PatchError
from sandlane.kube.patch.json_patch import json_patch
from sandlane.kube.patch.values import equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.admission.attributes import EXEMPT_GROUP, Attributes, Matcher, user_info
from sandlane.local.apiserver.admission.expressions import ExpressionFailed, conditions_hold, scope_of
from sandlane.local.apiserver.admission.review import decoded_patch, review
from sandlane.local.apiserver.auth.rbac import Rbac
from sandlane.local.apiserver.metadata import new_uid
from sandlane.local.apiserver.resource_type import ResourceType, StorageKey
from sandlane.local.apiserver.status import StatusError, bad_request, forbidden, internal
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.stored_form import translate
from sandlane.local.apiserver.webhook_calls import Caller, CallFailed

log = structlog.get_logger(__name__)

MUTATING: StorageKey = (EXEMPT_GROUP, "mutatingwebhookconfigurations")
VALIDATING: StorageKey = (EXEMPT_GROUP, "validatingwebhookconfigurations")


class Call(NamedTuple):
    """A webhook that a write concerns, and the version of the object that it wants to see."""

    hook: Object
    type_: ResourceType


class Webhooks:
    """Asks the webhooks that are configured in the store."""

    def __init__(self, store: ObjectStore, matcher: Matcher, caller: Caller, rng: Any, rbac: Rbac) -> None:
        self._store = store
        self._matcher = matcher
        self._caller = caller
        self._rng = rng
        self._rbac = rbac

    def any_mutating(self) -> bool:
        """Whether there are mutating webhooks."""
        return bool(self._store.count(MUTATING))

    def any_validating(self) -> bool:
        """Whether there are validating webhooks."""
        return bool(self._store.count(VALIDATING))

    async def mutate(self, at: Attributes) -> Object | None:
        """The object as the webhooks leave it: the same one when none changed it. Raises `StatusError`."""
        current = at
        again: list[tuple[Call, Object | None]] = []
        for call in self._calls(MUTATING, at):
            before = current.new
            current = await self._mutated(call, current)
            if call.hook.get("reinvocationPolicy") == "IfNeeded":
                again.append((call, current.new))
            if before is not current.new:
                log.debug("webhook_changed_object", webhook=call.hook["name"])
        for call, left in again:
            if left is not current.new and not equal_json(left, current.new):
                current = await self._mutated(call, current)
        return current.new

    async def validate(self, at: Attributes) -> None:
        """Raises `StatusError` when one refuses."""
        calls = list(self._calls(VALIDATING, at))
        if not calls:
            return
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._outcome(call, at)) for call in calls]
        for task in asked:
            error = task.result()
            if error is not None:
                raise error

    def _calls(self, storage: StorageKey, at: Attributes) -> Iterator[Call]:
        """The webhooks that a write concerns. Raises `StatusError` when that cannot be told."""
        if at.type_.resource.group == EXEMPT_GROUP:
            return
        for _, stored in self._store.list(storage):
            for hook in msgspec.json.decode(stored.data).get("webhooks") or ():
                type_ = self._matcher.served_as(at, hook.get("rules") or (), hook.get("matchPolicy", "Equivalent"))
                if type_ is None:
                    continue
                if not self._matcher.selected(at, hook.get("namespaceSelector"), hook.get("objectSelector")):
                    continue
                if self._condition_holds(hook, at):
                    yield Call(hook, type_)

    def _condition_holds(self, hook: Object, at: Attributes) -> bool:
        conditions = hook.get("matchConditions")
        if not conditions:
            return True
        try:
            return conditions_hold(conditions, scope_of(at, self._rbac))
        except ExpressionFailed as error:
            if hook.get("failurePolicy") == "Ignore":
                return False
            resource = at.type_.resource
            why = f'match condition of webhook "{hook["name"]}": {error}'
            raise forbidden(resource.group, resource.plural, at.name, why) from error

    async def _mutated(self, call: Call, at: Attributes) -> Attributes:
        response = await self._ask(call, at)
        if response is None:
            return at
        name = call.hook["name"]
        try:
            patch = decoded_patch(response)
        except CallFailed as error:
            self._failed(call, error)
            return at
        if not patch or at.new is None:
            return at
        wanted = at.type_ if at.write.seen else call.type_
        shown = await translate(at.new, at.type_, wanted)
        try:
            made = json_patch(shown, patch)
        except PatchError as error:
            log.info("webhook_patch_does_not_apply", webhook=name, error=str(error))
            raise internal(str(error)) from error
        if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
            raise internal(f'admission webhook "{name}": its patch leaves no object')
        if equal_json(made, shown):
            return at
        return replace(at, new=await translate(made, wanted, at.type_))

    async def _outcome(self, call: Call, at: Attributes) -> StatusError | None:
        try:
            await self._ask(call, at)
        except StatusError as error:
            return error
        return None

    async def _ask(self, call: Call, at: Attributes) -> Object | None:
        """The response of a webhook that allows; None when it could not be asked and that is to be ignored."""
        name = call.hook["name"]
        if at.write.dry_run and call.hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise bad_request(f'admission webhook "{name}" does not support dry run')
        try:
            response = await review(self._caller, call.hook, await self._request(call, at))
        except CallFailed as error:
            self._failed(call, error)
            return None
        at.write.warnings += [str(warning) for warning in response.get("warnings") or ()]
        if response.get("allowed") is not True:
            raise _denied(name, response.get("status") or {})
        return response

    @staticmethod
    def _failed(call: Call, error: CallFailed) -> None:
        """A webhook without a proper answer: refuse or pass over, as it is configured."""
        name = call.hook["name"]
        if call.hook.get("failurePolicy") == "Ignore":
            log.warning("webhook_ignored", webhook=name, error=str(error))
            return
        raise internal(f'failed calling webhook "{name}": {error}') from error

    async def _request(self, call: Call, at: Attributes) -> Object:
        resource, asked = call.type_.resource, at.type_.resource
        wanted = at.type_ if at.write.seen else call.type_
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        request: Object = {
            "uid": new_uid(self._rng),
            "kind": at.kind if at.write.seen else kind,
            "resource": {"group": resource.group, "version": resource.version, "resource": resource.plural},
            "requestKind": at.kind,
            "requestResource": {"group": asked.group, "version": asked.version, "resource": asked.plural},
            "name": at.name,
            "namespace": at.namespace,
            "operation": at.operation,
            "userInfo": user_info(at.write.user),
            "object": await translate(at.new, at.type_, wanted) if at.new is not None else None,
            "oldObject": await translate(at.old, at.type_, wanted) if at.old is not None else None,
            "dryRun": at.write.dry_run,
            "options": at.options(),
        }
        if at.write.subresource:
            request["subResource"] = request["requestSubResource"] = at.write.subresource
        return {key: value for key, value in request.items() if value != ""}


def _denied(name: str, status: Object) -> StatusError:
    denied = f'admission webhook "{name}" denied the request'
    why = status.get("message") or status.get("reason")
    code = status.get("code") or 0
    message = f"{denied}: {why}" if why else f"{denied} without explanation"
    return StatusError(code if code >= 400 else 400, status.get("reason") or "", message, status.get("details"))
