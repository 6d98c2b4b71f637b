"""Runs one Pod: init containers one after the other, then all its containers, until it is stopped or done.

`PodWorker.run` owns all tasks of the Pod. The status is handed over whenever it may have changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.errors import KubeError
from sandlane.kube.resource import Object
from sandlane.local.node.container import Container
from sandlane.local.node.logs import ContainerLogs
from sandlane.local.node.payload import VolumeMissing, VolumeUnsupported
from sandlane.local.node.podvolumes import PodVolumes
from sandlane.local.node.state import ContainerState, pod_status
from sandlane.local.node.view import View

log = structlog.get_logger(__name__)


class Prepared(msgspec.Struct):
    """How to start a container."""

    argv: list[str]
    env: dict[str, str]
    folder: str = ""
    view: View | None = None
    cpu_group: str = ""


Prepare = Callable[["PodWorker", Object], Awaitable[Prepared]]
"""(worker, container) -> how to start it. Raises `NotMapped` and `ConfigMissing`."""
Warn = Callable[[Object, str, str], None]
"""(pod, reason, message): a Warning Event."""
VOLUME_RETRY = 2.0


class PodWorker:
    """The processes of one Pod."""

    def __init__(
        self,
        pod: Object,
        address: str,
        host: str,
        folder: Path,
        clock: Clock,
        volumes: PodVolumes,
        prepare: Prepare,
        changed: Callable[[], None],
        warn: Warn,
    ) -> None:
        self.pod = pod
        self.address = address
        self.folder = folder
        self.volumes = volumes
        self.finished = False
        self.unmounted = True
        """Whether it still waits for its volumes."""
        self._warn = warn
        self._host = host
        self._clock = clock
        self._changed = changed
        self._stop = asyncio.Event()
        self._grace = 30.0
        statuses = {
            status["name"]: status
            for field in ("initContainerStatuses", "containerStatuses")
            for status in (pod.get("status") or {}).get(field) or ()
        }

        def make(spec: Object) -> Container:
            state = _state(spec, statuses.get(spec["name"]), timestamp(clock.now()))
            logs = ContainerLogs(folder / spec["name"])
            return Container(pod, spec, state, logs, lambda c: prepare(self, c), address, clock, changed)

        self.init = [make(spec) for spec in pod["spec"].get("initContainers") or ()]
        self.main = [make(spec) for spec in pod["spec"]["containers"]]
        self._sidecars = {
            c["name"] for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"
        }

    @property
    def containers(self) -> list[Container]:
        """All of them."""
        return [*self.init, *self.main]

    def container(self, name: str) -> Container | None:
        """One of them."""
        return next((each for each in self.containers if each.state.name == name), None)

    def status(self) -> Object:
        """The Pod's status now."""
        return pod_status(
            self.pod,
            [each.state for each in self.init],
            [each.state for each in self.main],
            self._sidecars,
            timestamp(self._clock.now()),
            (self._host, self.address),
        )

    def stop(self, grace: float) -> None:
        """End all containers within a grace (seconds)."""
        self._grace = min(self._grace, grace) if self._stop.is_set() else grace
        self._stop.set()

    async def run(self) -> None:
        """Run the Pod to its end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                life = tasks.create_task(self._live())
                stopping = tasks.create_task(self._stop.wait())
                await asyncio.wait({life, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if self._stop.is_set():
                    await self._end_all()
                    life.cancel()
                stopping.cancel()
        finally:
            self.finished = True
            self._changed()

    async def _end_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for each in self.main:
                tasks.create_task(each.stop(self._grace))
        for each in reversed(self.init):
            await each.stop(self._grace)

    async def _live(self) -> None:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        await self._mount()
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self.volumes.keep(lambda: self.pod))
            sidecars = []
            for each in self.init:
                if each.state.name in self._sidecars:
                    sidecars.append(tasks.create_task(each.run(lambda code: True)))
                    while not each.state.started:
                        await self._clock.sleep(0.05)
                    continue
                if await each.run(lambda code: code != 0 and policy != "Never"):
                    for task in (keeping, *sidecars):
                        task.cancel()
                    return
            again = {"Always": lambda code: True, "OnFailure": lambda code: code != 0, "Never": lambda code: False}[
                policy
            ]
            mains = [tasks.create_task(each.run(again)) for each in self.main]
            await asyncio.wait(mains)
            for each in reversed(self.init):
                await each.stop(self._grace)
            for task in (keeping, *sidecars):
                task.cancel()

    async def _mount(self) -> None:
        """Make the volumes; wait while something that they need is not there, and say so."""
        told = ""
        while self.unmounted:
            self.volumes.changed.clear()
            try:
                await self.volumes.prepare(self.pod)
                self.unmounted = False
                return
            except VolumeUnsupported as error:
                reason, message = "VolumeNotSupported", str(error)
            except (VolumeMissing, KubeError) as error:
                reason, message = "ContainerCreating", str(error)
            if message != told:
                told = message
                self._warn(self.pod, "FailedMount", message)
                for each in self.containers:
                    each.wait_for(reason, message)
            async with asyncio.TaskGroup() as tasks:
                waits = [
                    tasks.create_task(self._clock.sleep(VOLUME_RETRY)),
                    tasks.create_task(self.volumes.changed.wait()),
                ]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()


def _state(spec: Object, before: Object | None, now: str) -> ContainerState:
    """The first state; after a restart of this node the earlier runs count."""
    state = ContainerState(spec["name"], spec.get("image", ""))
    if before is not None and before.get("containerID"):
        state.restarts = before.get("restartCount", 0) + 1
        running = (before.get("state") or {}).get("running")
        ended = (before.get("state") or {}).get("terminated")
        state.last = ended or {
            "exitCode": 137,
            "reason": "NodeRestarted",
            "message": "the node that ran it has ended",
            "startedAt": (running or {}).get("startedAt", now),
            "finishedAt": now,
        }
    return state
