"""A controller in sixty lines: a Guestbook becomes a Deployment that it owns, and says how many Pods are ready."""

from __future__ import annotations

import msgspec

from sandlane.kube.apply import Applier
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import DEPLOYMENTS, Object, Resource
from sandlane.kube.unstructured import Unstructured
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.owners import controller_reference
from sandlane.runtime.result import Request, Result

GUESTBOOKS = Resource("example.com", "v1", "guestbooks", "Guestbook")


class Spec(msgspec.Struct, frozen=True):
    image: str = "guestbook:1"
    size: int = 1


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    ready: int = 0


class Guestbook(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: Spec = Spec()
    status: Status = Status()


class GuestbookController:
    def __init__(self, manager: Manager) -> None:
        self.client, self.cache, self.recorder = manager.client, manager.cache, manager.recorder
        self.applier = Applier(manager.client, manager.cache, field_manager="guestbook")
        self.guestbooks = manager.cache.informer(GUESTBOOKS, Guestbook).store
        self.deployments = manager.cache.informer(DEPLOYMENTS).store
        Controller.managed_by(manager).for_(GUESTBOOKS, Guestbook).owns(DEPLOYMENTS).complete(self)

    async def reconcile(self, request: Request) -> Result:
        book = self.guestbooks.get(request)
        if book is None or book.metadata.deleting:
            return Result.done()  # the Deployment goes with its owner
        applied = await self.applier.ensure(DEPLOYMENTS, deployment(book), owner=book.metadata)
        if applied.action.value == "created":
            self.recorder.event(GUESTBOOKS, book.metadata, "Created", f"Deployment {request.name}")
        status = Status(ready_pods(self.deployments.get(request)))
        if status != book.status:
            patch = {"metadata": {"uid": book.metadata.uid}, "status": {"ready": status.ready}}
            self.cache.observe(GUESTBOOKS, await self.client.patch_status(GUESTBOOKS, request, patch))
        return Result.done()


def deployment(book: Guestbook) -> Object:
    name, labels = book.metadata.name, {"guestbook": book.metadata.name}
    owners = [controller_reference(GUESTBOOKS, book.metadata)]
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": book.spec.image}]}}
    spec = {"replicas": book.spec.size, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name, "namespace": book.metadata.namespace, "ownerReferences": owners}, "spec": spec}


def ready_pods(record: Unstructured | None) -> int:
    return record.object().get("status", {}).get("readyReplicas", 0) if record is not None else 0
