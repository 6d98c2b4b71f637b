"""A controller: watches feed its queue, workers take keys and reconcile them, outcomes decide when a key comes again.

    Controller.managed_by(manager).for_(SANDBOXES, Sandbox).owns(DEPLOYMENTS, Deployment).complete(self)

`Controller.run` owns the workers, in a TaskGroup; a reconcile that fails harms no other key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog

from sandlane.kube.cache import Change
from sandlane.kube.errors import Conflict, NotFound
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Key, Resource
from sandlane.kube.store import Record
from sandlane.kube.unstructured import Unstructured
from sandlane.runtime.queue import Priority, ShutDown, WorkQueue
from sandlane.runtime.result import PermanentError, Request, Result, TransientError

if TYPE_CHECKING:
    from sandlane.runtime.manager import Manager

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=Record)
ToRequests = Callable[[Any], Iterable[Request]]
Predicate = Callable[[Change[Any]], bool]

DEADLINE = 120.0
"""Seconds that one reconcile may take."""


class Reconciler(Protocol):
    """What a controller runs."""

    async def reconcile(self, request: Request) -> Result:
        """Drive one object towards its spec, whatever happened to it."""


class Controller:
    """One kind's reconciler with its queue and its watches. Made by the builder, `Controller.managed_by`."""

    def __init__(self, name: str, reconciler: Reconciler, manager: Manager, *, workers: int, deadline: float) -> None:
        self.name = name
        self.queue = WorkQueue(manager.clock)
        self._reconciler = reconciler
        self._manager = manager
        self._workers = workers
        self._deadline = deadline
        self.started: dict[int, float] = {}  # worker -> when its reconcile began, for the health check

    @staticmethod
    def managed_by(manager: Manager) -> Builder:
        """Begin to describe a controller."""
        return Builder(manager)

    def enqueue(self, key: Request, priority: int = Priority.CHANGE) -> None:
        """Ask for a reconcile from outside of the watches."""
        self.queue.add(key, priority)

    def stuck(self) -> list[str]:
        """Workers past their deadline, in words (for the health check)."""
        now = self._manager.clock.monotonic()
        return [
            f"{self.name}: worker {worker} has been busy for {now - since:.0f} s"
            for worker, since in self.started.items()
            if now - since > self._deadline + 30
        ]

    async def run(self) -> None:
        """Reconcile until cancelled, or until the queue is closed and the running reconciles have ended."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for worker in range(self._workers):
                    tasks.create_task(self._work(worker), name=f"{self.name} worker {worker}")
        finally:
            self.queue.close()

    async def _work(self, worker: int) -> None:
        while True:
            try:
                key, waited = await self.queue.get()
            except ShutDown:
                return
            self._manager.metrics.waited(self.name, waited)
            self.started[worker] = started = self._manager.clock.monotonic()
            outcome = "error"
            try:
                outcome = await self._reconcile(key)
            finally:
                del self.started[worker]
                self.queue.done(key)
                self._manager.metrics.reconciled(self.name, outcome, self._manager.clock.monotonic() - started)

    async def _reconcile(self, key: Request) -> str:
        """Reconcile one key and queue it again as its outcome asks; the outcome's name."""
        try:
            async with asyncio.timeout(self._deadline):
                result = await self._reconciler.reconcile(key)
        except PermanentError as error:
            log.warning(
                "reconcile_refused", controller=self.name, key=str(key), reason=error.reason, error=error.message
            )
            self.queue.forget(key)
            return "permanent_error"
        except (Conflict, NotFound, TransientError) as error:  # the world has moved on; look again
            log.info("reconcile_retried", controller=self.name, key=str(key), error=str(error))
            self.queue.add_rate_limited(key)
            return "retried"
        except Exception as error:  # the boundary: one key's crash harms no other
            log.error("reconcile_failed", controller=self.name, key=str(key), error=repr(error), exc_info=error)
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


class Builder:
    """Describes a controller in one sentence; `complete` makes it."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._kind = ""
        self._name = ""
        self._workers = 0
        self._deadline = DEADLINE
        self._watches: list[tuple[Resource, type[Any], ToRequests, Predicate | None]] = []

    def for_(self, resource: Resource, record_type: type[R], *, when: Predicate | None = None) -> Builder:
        """Reconcile objects of this kind."""
        self._kind = resource.kind
        self._watches.append((resource, record_type, lambda record: [record.metadata.key], when))
        return self

    def owns(
        self,
        resource: Resource,
        record_type: type[Any] = Unstructured,
        *,
        when: Predicate | None = None,
    ) -> Builder:
        """Reconcile the controller of an object of this kind, when it is of the kind given to `for_`."""
        kind = self._kind
        self._watches.append((resource, record_type, lambda record: _owner(kind, record.metadata), when))
        return self

    def watches(
        self,
        resource: Resource,
        record_type: type[Any] = Unstructured,
        *,
        to_requests: ToRequests,
        when: Predicate | None = None,
    ) -> Builder:
        """Reconcile what `to_requests` gives for an object of this kind (old and new state are both asked)."""
        self._watches.append((resource, record_type, to_requests, when))
        return self

    def named(self, name: str) -> Builder:
        """The controller's name in metrics and logs; by default the kind in lower case."""
        self._name = name
        return self

    def with_workers(self, count: int) -> Builder:
        """How many keys are reconciled at the same time (`MaxConcurrentReconciles`)."""
        self._workers = count
        return self

    def with_deadline(self, seconds: float) -> Builder:
        """How long one reconcile may take."""
        self._deadline = seconds
        return self

    def complete(self, reconciler: Reconciler) -> Controller:
        """Make the controller and give it to the manager."""
        name = self._name or self._kind.lower()
        workers = self._workers or self._manager.options.concurrent_reconciles
        controller = Controller(name, reconciler, self._manager, workers=workers, deadline=self._deadline)
        for resource, record_type, to_requests, when in self._watches:
            informer = self._manager.cache.informer(resource, record_type)
            informer.add_handler(_handler(controller, to_requests, when))
        self._manager.add_controller(controller)
        return controller


def _handler(controller: Controller, to_requests: ToRequests, when: Predicate | None) -> Callable[[Change[Any]], None]:
    def handle(change: Change[Any]) -> None:
        if when is not None and not when(change):
            return
        priority = Priority.BACKGROUND if change.initial else Priority.CHANGE
        for record in (change.old, change.new):
            if record is not None:
                for key in to_requests(record):
                    controller.enqueue(key, priority)

    return handle


def _owner(kind: str, metadata: ObjectMeta) -> list[Key]:
    owner = metadata.controller
    return [Key(metadata.namespace, owner.name)] if owner is not None and owner.kind == kind else []
