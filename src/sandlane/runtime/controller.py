"""A controller: watches feed its queue, workers take keys and reconcile them, outcomes decide when a key comes again.

    Controller.managed_by(manager).for_(SANDBOXES, Sandbox).owns(DEPLOYMENTS, Deployment).complete(self)

`Controller.run` owns the workers, in a TaskGroup; a reconcile that fails harms no other key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from structlog.contextvars import bind_contextvars

from sandlane.kube.errors import Conflict, KubeError, NotFound
from sandlane.kube.informer import Informer
from sandlane.runtime.queue import Priority, ShutDown, WorkQueue
from sandlane.runtime.recorder import WARNING
from sandlane.runtime.result import PermanentError, Request, Result, TransientError

if TYPE_CHECKING:
    from sandlane.runtime.builder import Builder
    from sandlane.runtime.manager import Manager

log = structlog.get_logger(__name__)

DEADLINE = 120.0
"""Seconds that one reconcile may take."""
STUCK = 30.0
"""Seconds past its deadline after which a worker counts as stuck."""


class Reconciler(Protocol):
    """What a controller runs."""

    async def reconcile(self, request: Request) -> Result:
        """Drive one object towards its spec, whatever happened to it."""


class Controller:
    """One kind's reconciler with its queue and its watches. Made by the builder, `Controller.managed_by`."""

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        manager: Manager,
        *,
        workers: int,
        deadline: float = DEADLINE,
        queue: WorkQueue | None = None,
        primary: Informer[Any] | None = None,
    ) -> None:
        self.name = name
        self.workers = workers
        self.queue = queue or WorkQueue(manager.clock)
        self._reconciler = reconciler
        self._manager = manager
        self._clock = manager.clock
        self._metrics = manager.metrics
        self._deadline = deadline
        self._primary = primary
        self._count = 0

    @staticmethod
    def managed_by(manager: Manager) -> Builder:
        """Begin to describe a controller."""
        from sandlane.runtime.builder import Builder  # the builder makes controllers; this is only its front door

        return Builder(manager)

    def enqueue(self, key: Request, priority: int = Priority.CHANGE) -> None:
        """Ask for a reconcile from outside of the watches."""
        self.queue.add(key, priority)

    def enqueue_all(self, keys: Iterable[Request] = (), priority: int = Priority.BACKGROUND) -> None:
        """Ask for a reconcile of many keys; by default of all objects of the controller's kind."""
        for key in list(keys) or (list(self._primary.store.keys()) if self._primary else []):
            self.queue.add(key, priority)

    def stuck(self) -> list[str]:
        """Workers past their deadline, in words (for the health check)."""
        now = self._clock.monotonic()
        late = [now - since for since in self.queue.active.values() if now - since > self._deadline + STUCK]
        return [f"{self.name}: a reconcile has been running for {seconds:.0f} s" for seconds in late]

    async def run(self) -> None:
        """Reconcile until cancelled, or until the queue is closed and the running reconciles have ended."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.queue.keep_time(), name=f"{self.name} clock")
                resync = tasks.create_task(self._resync(), name=f"{self.name} resync")
                workers = [
                    tasks.create_task(self._work(), name=f"{self.name} worker {worker}")
                    for worker in range(self.workers)
                ]
                await asyncio.wait(workers)
                resync.cancel()
        finally:
            self.queue.close()

    async def _resync(self) -> None:
        """Look at everything again from time to time, whatever the watches said."""
        every = self._manager.options.resync_seconds
        while every > 0:
            await self._clock.sleep(every * (0.9 + 0.2 * self._manager.rng.random()))
            self.enqueue_all()

    async def _work(self) -> None:
        while True:
            try:
                key, waited = await self.queue.get()
            except ShutDown:
                return
            self._metrics.latencies.add(waited, self.name)
            started = self._clock.monotonic()
            outcome = "error"
            try:
                outcome = await self._reconcile(key)
            finally:
                self.queue.done(key)
                self._metrics.reconciled(self.name, outcome, self._clock.monotonic() - started)
            await asyncio.sleep(0)  # a reconcile that waits for nothing must not keep watches and the Lease waiting

    async def _reconcile(self, key: Request) -> str:
        """Reconcile one key and queue it again as its outcome asks; the outcome's name."""
        self._count += 1
        # Never unbound: a worker's task has a context of its own.
        bind_contextvars(controller=self.name, key=str(key), reconcile=self._count)
        try:
            result = await self._attempt(key)
        except PermanentError as error:
            log.warning("reconcile_refused", reason=error.reason, error=error.message)
            self._tell(key, error)
            self._metrics.terminal.add(self.name)
            self.queue.forget(key)
            return "error"
        except NotFound as error:
            if self._primary is not None and self._primary.store.get(key) is None:
                self.queue.forget(key)  # the object itself is gone: nothing is left to do
                return "success"
            log.info("reconcile_retried", error=str(error))
            self.queue.add_rate_limited(key)
            return "error"
        except (Conflict, TransientError) as error:  # the world has moved on; look again
            log.info("reconcile_retried", error=str(error))
            self.queue.add_rate_limited(key)
            return "error"
        except KubeError as error:
            log.warning("reconcile_failed", error=str(error), failures=self.queue.failures(key))
            self.queue.add_rate_limited(key)
            return "error"
        except Exception as error:  # the boundary: one key's crash harms no other
            log.error("reconcile_crashed", error=repr(error), failures=self.queue.failures(key), exc_info=error)
            self._metrics.panics.add(self.name)
            self.queue.add_rate_limited(key)
            return "error"
        if result.again:
            self.queue.add_rate_limited(key)
            return "requeue"
        self.queue.forget(key)
        if result.after is not None:
            self.queue.add_after(key, result.after)
            return "requeue_after"
        return "success"

    def _tell(self, key: Request, error: PermanentError) -> None:
        """An Event about the object, so that its owner hears of what waits for a change."""
        record = self._primary.store.get(key) if self._primary is not None else None
        if self._primary is not None and record is not None:
            self._manager.recorder.event(
                self._primary.resource, record.metadata, error.reason, error.message, kind=WARNING
            )

    async def _attempt(self, key: Request) -> Result:
        """One call of the reconciler, with its deadline and its trace. Raises what it raises."""
        limit = asyncio.timeout(self._deadline)
        try:
            async with limit:
                if self._manager.tracer is None:
                    return await self._reconciler.reconcile(key)
                with self._manager.tracer.span("reconcile", controller=self.name, key=str(key)):
                    return await self._reconciler.reconcile(key)
        except TimeoutError as error:
            if not limit.expired():
                raise
            self._metrics.timeouts.add(self.name)
            raise TransientError(f"not done within {self._deadline:g} s") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise TransientError("something that the reconcile waited for was cancelled") from error
