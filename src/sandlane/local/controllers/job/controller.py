"""The Job controller: woken by Jobs and their Pods."""

from __future__ import annotations

from sandlane.kube.clock import Clock
from sandlane.kube.errors import Forbidden, Invalid
from sandlane.kube.resource import PODS, Key, Object
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access, terminating
from sandlane.local.controllers.job.plan import JOBS, finished, make_plan, make_pod
from sandlane.local.controllers.objects import controller_uid
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.recorder import WARNING, EventRecorder
from sandlane.runtime.result import Request, Result


class JobController:
    """Runs each Job's Pods."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        self._clock: Clock = manager.clock
        self._recorder: EventRecorder = manager.recorder
        Controller.managed_by(manager).for_(JOBS, Unstructured).owns(PODS).complete(self)

    async def reconcile(self, request: Request) -> Result:
        """One step of one Job."""
        job = self._access.get(JOBS, request)
        if job is None:
            return Result.done()
        uid = job["metadata"]["uid"]
        pods = [pod for pod in self._access.candidates(PODS, request.namespace, uid) if controller_uid(pod) == uid]
        plan = make_plan(job, pods, self._clock.now())
        if plan.expired:
            await self._access.delete(JOBS, job)
            return Result.done()
        for pod in plan.delete:
            await self._access.delete(PODS, pod)
        refused = await self._create(job, plan.create)
        status = plan.status
        if refused and "active" in status:
            status = {**status, "active": max(status["active"] - refused, 0)}
        await self._access.write_status(JOBS, job, status)
        if finished({**job, "status": status}) and not finished(job):
            last = status["conditions"][-1]
            self._say(request, last["reason"], last["message"], last["type"] == "Failed")
        if refused:
            return Result.requeue()
        return Result.done() if plan.again_after is None else Result.requeue_after(max(plan.again_after, 0) + 0.1)

    async def _create(self, job: Object, indexes: tuple[int | None, ...]) -> int:
        """Create Pods; how many could not be made."""
        key = Key(job["metadata"]["namespace"], job["metadata"]["name"])
        for done, index in enumerate(indexes):
            try:
                made = await self._access.create(PODS, make_pod(job, index))
            except (Forbidden, Invalid) as error:
                if terminating(error):
                    return 0
                self._say(key, "FailedCreate", f"Error creating: {error.message}", True)
                return len(indexes) - done
            self._say(key, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}", False)
        return 0

    def _say(self, key: Key, reason: str, message: str, bad: bool) -> None:
        record = self._access.store(JOBS).get(key)
        if record is not None:
            self._recorder.event(JOBS, record.metadata, reason, message, kind=WARNING if bad else "Normal")
