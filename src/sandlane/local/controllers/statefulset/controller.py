"""The StatefulSet controller: woken by StatefulSets and their Pods."""

from __future__ import annotations

from sandlane.kube.errors import AlreadyExists, Forbidden, Invalid
from sandlane.kube.resource import PERSISTENT_VOLUME_CLAIMS, PODS, Object, Resource
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access, terminating
from sandlane.local.controllers.objects import controller_uid, labels_of
from sandlane.local.controllers.revisions import CONTROLLER_REVISIONS, HASH_LABEL, make_revision, outdated
from sandlane.local.controllers.statefulset.plan import STATEFUL_SETS, claims, make_plan, make_pod
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.recorder import WARNING, EventRecorder
from sandlane.runtime.result import Request, Result


class StatefulSetController:
    """Keeps each StatefulSet's numbered Pods."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        self._recorder: EventRecorder = manager.recorder
        (
            Controller.managed_by(manager)
            .for_(STATEFUL_SETS, Unstructured)
            .owns(PODS)
            .owns(CONTROLLER_REVISIONS)
            .complete(self)
        )

    async def reconcile(self, request: Request) -> Result:
        """One step of one StatefulSet."""
        stateful_set = self._access.get(STATEFUL_SETS, request)
        if stateful_set is None:
            return Result.done()
        pods = await sync_revisions(self._access, stateful_set, STATEFUL_SETS)
        plan = make_plan(stateful_set, pods)
        for pod in plan.delete:
            await self._access.delete(PODS, pod)
        try:
            for number in plan.create:
                for claim in claims(stateful_set, number):
                    await self._claim(claim)
                await self._access.create(PODS, make_pod(stateful_set, number))
        except (Forbidden, Invalid, AlreadyExists) as error:
            if terminating(error):
                return Result.done()
            record = self._access.store(STATEFUL_SETS).get(request)
            if record is not None:
                text = f"Error creating: {error.message}"
                self._recorder.event(STATEFUL_SETS, record.metadata, "FailedCreate", text, kind=WARNING)
            return Result.requeue()
        await self._access.write_status(STATEFUL_SETS, stateful_set, plan.status)
        return Result.done()

    async def _claim(self, claim: Object) -> None:
        try:
            await self._access.client.create(PERSISTENT_VOLUME_CLAIMS, claim)
        except AlreadyExists:
            return


async def sync_revisions(access: Access, owner: Object, resource: Resource) -> list[Object]:
    """Write the revision of the owner's template and drop old ones; the owner's Pods."""
    uid, namespace = owner["metadata"]["uid"], owner["metadata"]["namespace"]
    pods = [pod for pod in access.candidates(PODS, namespace, uid) if controller_uid(pod) == uid]
    known = [r for r in access.candidates(CONTROLLER_REVISIONS, namespace, uid) if controller_uid(r) == uid]
    create, patch = make_revision(owner, resource, known)
    if create is not None:
        await access.create(CONTROLLER_REVISIONS, create)
    if patch is not None:
        found = next(r for r in known if r["metadata"]["name"] == patch["metadata"]["name"])
        await access.patch(CONTROLLER_REVISIONS, found, {"revision": patch["revision"]})
    used = {labels_of(pod).get(HASH_LABEL, "").rpartition("-")[2] for pod in pods}
    for revision in outdated(owner, known, used):
        await access.delete(CONTROLLER_REVISIONS, revision)
    return pods
