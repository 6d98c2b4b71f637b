"""Deleting: preconditions, grace, propagation policies and finalizers decide whether an object goes or is only marked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sandlane.kube.clock import timestamp
from sandlane.kube.patch.values import copy_json
from sandlane.kube.resource import Key, Object
from sandlane.local.apiserver.crd.definition_status import mark_terminating
from sandlane.local.apiserver.crd.definitions import STORAGE as DEFINITIONS
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.request_info import is_true
from sandlane.local.apiserver.status import MODIFIED, bad_request, conflict, forbidden, invalid, not_found, success
from sandlane.local.apiserver.store.objects import StaleVersion
from sandlane.local.apiserver.writer import ATTEMPTS, Write, Writer

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
PROTECTED = ("default", "kube-system", "kube-public")
_RETURNED = {("", "pods"), ("", "services"), ("", "serviceaccounts"), ("", "persistentvolumeclaims"),
             ("", "persistentvolumes"), ("", "podtemplates"), ("", "resourcequotas"), ("", "replicationcontrollers"),
             ("storage.k8s.io", "storageclasses"), ("storage.k8s.io", "csidrivers"), ("storage.k8s.io", "csinodes"),
             ("storage.k8s.io", "volumeattachments")}  # fmt: skip
_POLICIES = ("Background", "Foreground", "Orphan")


def delete_options(body: Any, query: dict[str, str]) -> Object:
    """`DeleteOptions` from the body and the query. Raises `StatusError` 400 and 422."""
    options: Object = dict(body) if isinstance(body, dict) else {}
    if (kind := options.get("kind") or "DeleteOptions") != "DeleteOptions":
        version = options.get("apiVersion") or ""
        scheme = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27"
        raise bad_request(f'no kind "{kind}" is registered for version "{version}" in scheme "{scheme}"')
    if "gracePeriodSeconds" in query:
        try:
            options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
        except ValueError:
            why = f'strconv.ParseInt: parsing "{query["gracePeriodSeconds"]}": invalid syntax'
            raise bad_request(why) from None
    for name in ("propagationPolicy", "dryRun"):
        if name in query:
            options[name] = [query[name]] if name == "dryRun" else query[name]
    if "orphanDependents" in query:
        options["orphanDependents"] = is_true(query["orphanDependents"])
    errors: list[FieldError] = []
    policy = options.get("propagationPolicy")
    if policy is not None and options.get("orphanDependents") is not None:
        detail = "orphanDependents and deletionPropagation cannot be both set"
        errors.append(FieldError("FieldValueInvalid", "propagationPolicy", policy, detail))
    if policy is not None and policy not in _POLICIES:
        detail = 'supported values: "Foreground", "Background", "Orphan", "nil"'
        errors.append(FieldError("FieldValueNotSupported", "propagationPolicy", policy, detail))
    if any(each not in ("All", "") for each in options.get("dryRun") or ()):
        detail = 'supported values: "All"'
        errors.append(FieldError("FieldValueNotSupported", "dryRun", options["dryRun"], detail))
    if errors:
        raise invalid("meta.k8s.io", "DeleteOptions", "", errors)
    return options


class Deleter:
    """Deletes objects."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._store = writer.store

    async def delete(self, write: Write, options: Object) -> tuple[Object, bool]:
        """Delete an object: the answer, and whether the object is gone already. Raises `StatusError`."""
        type_ = write.type_
        resource = type_.resource
        key = Key(write.namespace, write.name)
        for _ in range(ATTEMPTS):
            stored = await self._store.settled(type_.storage_key, key)
            if stored is None:
                raise not_found(resource.group, resource.plural, write.name)
            old = await self.writer.decode(type_, stored)
            self._check(write, old, options)
            write.options = self._told(write, old, options)
            await self.writer.admission.mutate(write, "DELETE", None, old)
            await self.writer.admission.validate(write, "DELETE", None, old)
            new = self._marked(write, copy_json(old), options)
            try:
                if new is None:
                    last = self._ended(write, await self.writer._remove(write, key, copy_json(old), stored.version))
                    answer = (
                        last
                        if type_.storage_key in _RETURNED
                        else success(resource.group, resource.plural, write.name, old["metadata"]["uid"])
                    )
                    return answer, True
                if new == old:
                    return old, False
                return await self.writer._put(write, key, new, stored.version), False
            except StaleVersion:
                continue
        raise conflict(resource.group, resource.plural, write.name, MODIFIED)

    def _told(self, write: Write, old: Object, options: Object) -> Object:
        """The options as admission sees them: with the time that a Pod gets, and with which Namespace is meant."""
        told = {
            key: value
            for key, value in options.items()
            if key in ("preconditions", "propagationPolicy", "orphanDependents")
        }
        if write.type_.storage_key == ("", "pods"):
            told["gracePeriodSeconds"] = self._grace(write, old, options)
        if write.type_.storage_key == ("", "namespaces"):
            told["preconditions"] = {"uid": old["metadata"]["uid"]} | (told.get("preconditions") or {})
        return told

    def _check(self, write: Write, old: Object, options: Object) -> None:
        resource, metadata = write.type_.resource, old["metadata"]
        preconditions = options.get("preconditions") or {}
        uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
        if uid and uid != metadata["uid"]:
            why = f"the UID in the precondition ({uid}) does not match the UID in record ({metadata['uid']}). The object might have been deleted and then recreated"
            raise conflict(resource.group, resource.kind, write.name, why)
        if version and version != metadata["resourceVersion"]:
            why = f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({metadata['resourceVersion']}). The object might have been modified"
            raise conflict(resource.group, resource.kind, write.name, why)
        if write.type_.storage_key == ("", "namespaces") and write.name in PROTECTED:
            raise forbidden("", "namespaces", write.name, "this namespace may not be deleted")

    def _marked(self, write: Write, obj: Object, options: Object) -> Object | None:
        """The object marked as going, or None when it goes at once."""
        metadata = obj["metadata"]
        if write.type_.storage_key == DEFINITIONS and not metadata.get("deletionTimestamp"):
            mark_terminating(obj, timestamp(self.writer.clock.now()))
        grace = self._grace(write, obj, options)
        finalizers = self._finalizers(metadata.get("finalizers") or [], options)
        namespace = write.type_.storage_key == ("", "namespaces")
        held = bool(finalizers) or (namespace and bool((obj.get("spec") or {}).get("finalizers")))
        if not held and not grace:
            return None
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        now = self.writer.clock.now()
        if metadata.get("deletionTimestamp"):
            before = metadata.get("deletionGracePeriodSeconds") or 0
            if grace < before:
                metadata["deletionGracePeriodSeconds"] = grace
                metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
            return obj
        metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
        if not namespace and write.type_.storage_key != DEFINITIONS:
            metadata["deletionGracePeriodSeconds"] = grace
        if metadata.get("generation") and write.type_.storage_key != DEFINITIONS:
            metadata["generation"] += 1
        if namespace:
            obj.setdefault("status", {})["phase"] = "Terminating"
        return obj

    def _ended(self, write: Write, obj: Object) -> Object:
        """The last state of an object that goes at once: a Pod shows when."""
        if write.type_.storage_key == ("", "pods"):
            first = "deletionTimestamp" not in obj["metadata"]
            obj["metadata"].setdefault("deletionTimestamp", timestamp(self.writer.clock.now()))
            obj["metadata"]["deletionGracePeriodSeconds"] = 0
            if first and obj["metadata"].get("generation"):
                obj["metadata"]["generation"] += 1
        return obj

    @staticmethod
    def _grace(write: Write, obj: Object, options: Object) -> int:
        """Seconds that a Pod gets to end; nothing else waits."""
        if write.type_.storage_key != ("", "pods"):
            return 0
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in ("Failed", "Succeeded"):
            return 0
        grace = options.get("gracePeriodSeconds")
        if grace is None:
            grace = spec.get("terminationGracePeriodSeconds", 30)
        return max(0, int(grace)) if grace != 0 else 0

    @staticmethod
    def _finalizers(finalizers: list[str], options: Object) -> list[str]:
        policy = options.get("propagationPolicy")
        if policy is None and options.get("orphanDependents") is not None:
            policy = "Orphan" if options["orphanDependents"] else "Background"
        if policy is None:
            return finalizers
        kept = [each for each in finalizers if each not in (FOREGROUND, ORPHAN)]
        return kept + {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(policy, [])
