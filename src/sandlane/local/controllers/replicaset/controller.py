"""The ReplicaSet controller: woken by ReplicaSets and Pods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sandlane.kube.cache import Change
from sandlane.kube.clock import Clock
from sandlane.kube.errors import ApiError, Conflict, Forbidden, Invalid, NotFound
from sandlane.kube.resource import PODS, REPLICA_SETS, Key, Object
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access, terminating
from sandlane.local.controllers.objects import controller_reference, deleting, selects, without_owner
from sandlane.local.controllers.replicaset.plan import make_plan, make_pod, make_status
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.recorder import WARNING, EventRecorder
from sandlane.runtime.result import Request, Result

BURST = 500
"""Most Pods made or deleted in one pass."""


class ReplicaSetController:
    """Keeps each ReplicaSet at its number of Pods."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        self._clock: Clock = manager.clock
        self._recorder: EventRecorder = manager.recorder
        self._asked: set[str] = set()  # uids of Pods whose deletion we asked for and have not seen yet
        self._access.cache.informer(PODS).add_handler(self._seen)
        (
            Controller.managed_by(manager)
            .for_(REPLICA_SETS, Unstructured)
            .owns(PODS)
            .watches(PODS, to_requests=self._adopters)
            .complete(self)
        )

    def _seen(self, change: Change[Unstructured]) -> None:
        if change.old is not None and (change.new is None or change.new.metadata.deleting):
            self._asked.discard(change.old.metadata.uid)

    def _adopters(self, pod: Unstructured) -> Iterable[Key]:
        """ReplicaSets that might adopt a Pod without a controller."""
        if pod.metadata.controller is not None or pod.metadata.deleting or not pod.metadata.labels:
            return
        for record in self._access.store(REPLICA_SETS).list(pod.metadata.namespace):
            if selects(record.object()["spec"]["selector"], pod.metadata.labels):
                yield record.metadata.key

    async def reconcile(self, request: Request) -> Result:
        """Adopt, release, create and delete Pods, then report."""
        replica_set = self._access.get(REPLICA_SETS, request)
        if replica_set is None:
            return Result.done()
        plan = make_plan(replica_set, self._pods(replica_set))
        owned = list(plan.owned)
        for pod in plan.adopt:
            owners = [*without_owner(pod, ""), controller_reference(replica_set, REPLICA_SETS)]
            await self._access.patch(PODS, pod, {"metadata": {"ownerReferences": owners}})
        for pod in plan.release:
            owners = without_owner(pod, replica_set["metadata"]["uid"])
            await self._access.patch(PODS, pod, {"metadata": {"ownerReferences": owners}})
        failure = await self._create(replica_set, plan.create, owned)
        failure = await self._delete(replica_set, plan.delete, owned) or failure
        status, again_after = make_status(replica_set, owned, failure, self._clock.now())
        await self._access.write_status(REPLICA_SETS, replica_set, status)
        if failure:
            return Result.requeue()
        return Result.done() if again_after is None else Result.requeue_after(again_after)

    def _pods(self, replica_set: Object) -> list[Object]:
        metadata = replica_set["metadata"]
        pods = self._access.candidates(PODS, metadata["namespace"], metadata["uid"])
        for pod in pods:
            if pod["metadata"]["uid"] in self._asked and not deleting(pod):  # we know more than the cache
                pod["metadata"]["deletionTimestamp"] = pod["metadata"].get("creationTimestamp", "")
        return pods

    async def _create(self, replica_set: Object, count: int, owned: list[Object]) -> tuple[str, str] | None:
        """Create Pods one after the other; the first refusal ends the pass, so that a quota is not hammered."""
        for _ in range(min(count, BURST)):
            try:
                pod = await self._access.create(PODS, make_pod(replica_set))
            except (Forbidden, Invalid) as error:
                if terminating(error):
                    return None
                self._say(replica_set, "FailedCreate", f"Error creating: {error.message}", WARNING)
                return "FailedCreate", error.message
            except NotFound as error:  # the namespace is going
                return "FailedCreate", error.message
            owned.append(pod)
            self._say(replica_set, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        return None

    async def _delete(self, replica_set: Object, pods: Sequence[Object], owned: list[Object]) -> tuple[str, str] | None:
        for pod in pods[:BURST]:
            uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
            self._asked.add(uid)
            try:
                await self._access.delete(PODS, pod)
            except Conflict:
                pass  # another Pod of that name: ours is gone
            except ApiError as error:
                self._asked.discard(uid)
                self._say(replica_set, "FailedDelete", f"Error deleting: {error.message}", WARNING)
                return "FailedDelete", error.message
            owned.remove(pod)
            self._say(replica_set, "SuccessfulDelete", f"Deleted pod: {name}")
        return None

    def _say(self, replica_set: Object, reason: str, message: str, kind: str = "Normal") -> None:
        metadata = replica_set["metadata"]
        record = self._access.store(REPLICA_SETS).get(Key(metadata["namespace"], metadata["name"]))
        if record is not None:
            self._recorder.event(REPLICA_SETS, record.metadata, reason, message, kind=kind)
