"""The Deployment controller: woken by Deployments, their ReplicaSets and (for Recreate) the Pods of those."""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.kube.clock import Clock
from sandlane.kube.errors import AlreadyExists
from sandlane.kube.resource import DEPLOYMENTS, PODS, REPLICA_SETS, Key, Object
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access
from sandlane.local.controllers.deployment.plan import Plan, make_plan
from sandlane.local.controllers.deployment.revision import REVISION, bare_template, find_new
from sandlane.local.controllers.objects import (
    controller_reference,
    controller_uid,
    deleting,
    labels_of,
    selects,
    without_owner,
)
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.recorder import EventRecorder
from sandlane.runtime.result import Request, Result


class DeploymentController:
    """Drives each Deployment's ReplicaSets to its template and size."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        self._clock: Clock = manager.clock
        self._recorder: EventRecorder = manager.recorder
        (
            Controller.managed_by(manager)
            .for_(DEPLOYMENTS, Unstructured)
            .owns(REPLICA_SETS)
            .watches(PODS, to_requests=self._waiting_for_pod)
            .complete(self)
        )

    def _waiting_for_pod(self, pod: Unstructured) -> Iterable[Key]:
        """The Deployment that may wait for this Pod to end before it makes new ones."""
        owner = pod.metadata.controller
        if owner is None or owner.kind != REPLICA_SETS.kind:
            return
        namespace = pod.metadata.namespace
        replica_set = self._access.store(REPLICA_SETS).get(Key(namespace, owner.name))
        if replica_set is None or replica_set.metadata.controller is None:
            return
        key = Key(namespace, replica_set.metadata.controller.name)
        deployment = self._access.store(DEPLOYMENTS).get(key)
        if deployment is not None and b'"Recreate"' in deployment.raw:
            yield key

    async def reconcile(self, request: Request) -> Result:
        """One step of one Deployment."""
        deployment = self._access.get(DEPLOYMENTS, request)
        if deployment is None:
            return Result.done()
        mine = await self._claim(deployment)
        collisions = int((deployment.get("status") or {}).get("collisionCount") or 0)
        plan = self._plan(deployment, mine, collisions)
        if plan.create is not None and not await self._create(deployment, plan.create, mine):
            plan = self._plan(deployment, mine, collisions + 1)  # another template has that name
            await self._access.write_status(DEPLOYMENTS, deployment, plan.status)
            return Result.requeue()
        await self._write(deployment, mine, plan)
        return Result.done() if plan.again_after is None else Result.requeue_after(plan.again_after)

    def _plan(self, deployment: Object, mine: list[Object], collisions: int) -> Plan:
        return make_plan(
            deployment,
            mine,
            running_old_pods=self._old_pods_run(deployment, mine),
            collisions=collisions,
            now=self._clock.now(),
        )

    def _old_pods_run(self, deployment: Object, mine: list[Object]) -> bool:
        if (deployment["spec"].get("strategy") or {}).get("type") != "Recreate":
            return False
        new = find_new(deployment, mine)
        old = {rs["metadata"]["uid"] for rs in mine if rs is not new}
        for record in self._access.store(PODS).list(deployment["metadata"]["namespace"]):
            owner = record.metadata.controller
            if owner is not None and owner.uid in old:
                phase = (record.object().get("status") or {}).get("phase")
                if phase not in ("Succeeded", "Failed"):
                    return True
        return False

    async def _claim(self, deployment: Object) -> list[Object]:
        """The ReplicaSets that the Deployment controls, after adopting and releasing by its selector."""
        uid, selector = deployment["metadata"]["uid"], deployment["spec"]["selector"]
        mine = []
        for rs in self._access.candidates(REPLICA_SETS, deployment["metadata"]["namespace"], uid):
            owned, matches = controller_uid(rs) == uid, selects(selector, labels_of(rs))
            if owned and not matches and not deleting(deployment):
                await self._access.patch(REPLICA_SETS, rs, {"metadata": {"ownerReferences": without_owner(rs, uid)}})
            elif owned:
                mine.append(rs)
            elif matches and not deleting(rs) and not deleting(deployment):
                owners = [*without_owner(rs, uid), controller_reference(deployment, DEPLOYMENTS)]
                mine.append(await self._access.patch(REPLICA_SETS, rs, {"metadata": {"ownerReferences": owners}}))
        return mine

    async def _create(self, deployment: Object, replica_set: Object, mine: list[Object]) -> bool:
        """Create the new ReplicaSet; False when its name belongs to another template."""
        try:
            await self._access.create(REPLICA_SETS, replica_set)
        except AlreadyExists:
            name, namespace = replica_set["metadata"]["name"], replica_set["metadata"]["namespace"]
            found = await self._access.client.get(REPLICA_SETS, name, namespace)
            self._access.cache.observe(REPLICA_SETS, found)
            same = bare_template(found["spec"]["template"]) == bare_template(replica_set["spec"]["template"])
            return same and controller_uid(found) == deployment["metadata"]["uid"]
        self._say(deployment, replica_set["metadata"]["name"], 0, replica_set["spec"]["replicas"])
        return True

    async def _write(self, deployment: Object, mine: list[Object], plan: Plan) -> None:
        by_name = {rs["metadata"]["name"]: rs for rs in mine}
        for name, body in plan.patches.items():
            await self._access.patch(REPLICA_SETS, by_name[name], body)
            wanted = (body.get("spec") or {}).get("replicas")
            if wanted is not None:
                self._say(deployment, name, by_name[name]["spec"].get("replicas", 1), wanted)
        for name in plan.delete:
            await self._access.delete(REPLICA_SETS, by_name[name])
        if plan.revision is not None:
            body = {"metadata": {"annotations": {REVISION: plan.revision}}}
            changed = await self._access.patch(DEPLOYMENTS, deployment, body, subresource="status")  # no new generation
            deployment["metadata"]["resourceVersion"] = changed["metadata"]["resourceVersion"]
        await self._access.write_status(DEPLOYMENTS, deployment, plan.status)

    def _say(self, deployment: Object, name: str, before: int, after: int) -> None:
        if before == after:
            return
        record = self._access.store(DEPLOYMENTS).get(
            Key(deployment["metadata"]["namespace"], deployment["metadata"]["name"])
        )
        if record is not None:
            way = "up" if after > before else "down"
            text = f"Scaled {way} replica set {name} from {before} to {after}"
            self._recorder.event(DEPLOYMENTS, record.metadata, "ScalingReplicaSet", text)
