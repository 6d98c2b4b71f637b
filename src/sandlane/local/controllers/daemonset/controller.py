"""The DaemonSet controller: woken by DaemonSets, their Pods and nodes."""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.kube.errors import Forbidden, Invalid
from sandlane.kube.resource import NODES, PODS, Key
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access, terminating
from sandlane.local.controllers.daemonset.plan import DAEMON_SETS, make_plan, make_pod
from sandlane.local.controllers.revisions import CONTROLLER_REVISIONS
from sandlane.local.controllers.statefulset.controller import sync_revisions
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.recorder import WARNING, EventRecorder
from sandlane.runtime.result import Request, Result


class DaemonSetController:
    """Keeps one Pod of each DaemonSet on each node."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        self._recorder: EventRecorder = manager.recorder
        (
            Controller.managed_by(manager)
            .for_(DAEMON_SETS, Unstructured)
            .owns(PODS)
            .owns(CONTROLLER_REVISIONS)
            .watches(NODES, to_requests=self._all, when=lambda change: change.old is None or change.new is None)
            .complete(self)
        )

    def _all(self, node: Unstructured) -> Iterable[Key]:
        return list(self._access.store(DAEMON_SETS).keys())

    async def reconcile(self, request: Request) -> Result:
        """One step of one DaemonSet."""
        daemon_set = self._access.get(DAEMON_SETS, request)
        if daemon_set is None:
            return Result.done()
        pods = await sync_revisions(self._access, daemon_set, DAEMON_SETS)
        plan = make_plan(daemon_set, pods, self._access.all(NODES, ""))
        for pod in plan.delete:
            await self._access.delete(PODS, pod)
        try:
            for node in plan.create:
                await self._access.create(PODS, make_pod(daemon_set, node))
        except (Forbidden, Invalid) as error:
            if terminating(error):
                return Result.done()
            record = self._access.store(DAEMON_SETS).get(request)
            if record is not None:
                text = f"Error creating: {error.message}"
                self._recorder.event(DAEMON_SETS, record.metadata, "FailedCreate", text, kind=WARNING)
            return Result.requeue()
        await self._access.write_status(DAEMON_SETS, daemon_set, plan.status)
        return Result.done()
