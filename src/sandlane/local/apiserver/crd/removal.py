"""The end of a CustomResourceDefinition: its objects are deleted, it goes with the last of them, and others may have its names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.crd.definition_status import CLEANUP
from sandlane.local.apiserver.crd.definitions import STORAGE, Definitions
from sandlane.local.apiserver.deleter import Deleter
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.status import StatusError
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.writer import Compute, Write


class Removal:
    """Sees definitions off."""

    def __init__(self, store: ObjectStore, registry: Registry, definitions: Definitions, deleter: Deleter) -> None:
        self._store = store
        self._registry = registry
        self._definitions = definitions
        self._deleter = deleter

    async def delete_objects(self, definition: Object, user: Any) -> None:
        """The objects of a definition that is going, then the definition itself."""
        spec = definition.get("spec")
        type_ = self._registry.by_storage((spec["group"], spec["names"]["plural"])) if spec else None
        if type_ is not None:  # as they lie there: a webhook that is gone already must not keep them
            type_ = replace(type_, conversion=None, from_storage=None, to_storage=None)
        for key in self._definitions.objects(definition) if type_ is not None else ():
            assert type_ is not None
            write = Write(type_, key.namespace, key.name, verb="delete", user=user)
            try:
                await self._deleter.delete(write, {})
            except StatusError as error:
                if error.reason != "NotFound":
                    raise
        await self._finish(definition["metadata"]["name"])

    async def finish_all(self) -> None:
        """Let go of the definitions that wait and have no objects left."""
        for storage, name in list(self._definitions.terminating.items()):
            if not self._store.count(storage):
                await self._finish(name)

    async def pass_names_on(self) -> None:
        """Accept the definitions that waited for names that nobody has any more."""
        for name in sorted(self._definitions.unaccepted):

            async def accepted(old: Object) -> Object:
                if self._definitions.may_have_its_names(old):
                    self._definitions.accept(old)
                return old

            await self._modify(name, "status", accepted)

    async def _finish(self, name: str) -> None:
        """Take the finalizer off a definition that is going and has no objects left."""

        async def finished(old: Object) -> Object:
            if old["metadata"].get("deletionTimestamp") and not self._definitions.objects(old):
                kept = [each for each in old["metadata"].get("finalizers") or () if each != CLEANUP]
                old["metadata"]["finalizers"] = kept
            return old

        await self._modify(name, "", finished)

    async def _modify(self, name: str, subresource: str, compute: Compute) -> None:
        """Change a definition; gone already is fine."""
        definitions = self._registry.get(STORAGE[0], "v1", STORAGE[1])
        assert definitions is not None
        write = Write(definitions, "", name, subresource, "update", "kube-apiserver")
        try:
            await self._deleter.writer.modify(write, compute)
        except StatusError as error:
            if error.reason != "NotFound":
                raise
