"""Describes a controller in one sentence: what it is for, what it owns, what else it watches.

Controller.managed_by(manager).for_(SANDBOXES, Sandbox).owns(DEPLOYMENTS, Deployment).complete(self)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
import structlog

from sandlane.kube.informer import Change
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Key, Resource
from sandlane.kube.store import Record
from sandlane.kube.unstructured import Unstructured
from sandlane.runtime.controller import DEADLINE, Controller, Reconciler
from sandlane.runtime.queue import RETRIES_PER_SECOND, RETRY_BURST, Priority, WorkQueue
from sandlane.runtime.result import Request

if TYPE_CHECKING:
    from sandlane.runtime.manager import Manager

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=Record)
ToRequests: TypeAlias = Callable[[Any], Iterable[Request]]
Predicate: TypeAlias = Callable[[Change[Any]], bool]


class _Watch(msgspec.Struct, frozen=True):
    resource: Resource
    record_type: type[Any]
    to_requests: ToRequests
    when: Predicate | None
    label_selector: str
    field_selector: str


class Builder:
    """What a controller will be; `complete` makes it."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._for: _Watch | None = None
        self._name = ""
        self._workers = 0
        self._deadline = DEADLINE
        self._retries = (RETRIES_PER_SECOND, RETRY_BURST)
        self._filter: Predicate | None = None
        self._watches: list[_Watch] = []

    def for_(
        self,
        resource: Resource,
        record_type: type[R] = Unstructured,  # type: ignore[assignment]
        *,
        when: Predicate | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Builder:
        """Reconcile objects of this kind (those that the selectors choose)."""
        self._for = _Watch(
            resource, record_type, lambda record: (record.metadata.key,), when, label_selector, field_selector
        )
        self._watches.append(self._for)
        return self

    def owns(
        self,
        resource: Resource,
        record_type: type[Any] = Unstructured,
        *,
        when: Predicate | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Builder:
        """Reconcile the controller of an object of this kind, when it is of the kind given to `for_`."""
        if self._for is None:
            raise ValueError("owns() needs for_() before it")
        owner = self._for.resource
        return self.watches(
            resource,
            record_type,
            to_requests=lambda record: _owner(owner, record.metadata),
            when=when,
            label_selector=label_selector,
            field_selector=field_selector,
        )

    def watches(
        self,
        resource: Resource,
        record_type: type[Any] = Unstructured,
        *,
        to_requests: ToRequests,
        when: Predicate | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Builder:
        """Reconcile what `to_requests` gives for an object of this kind (old and new state are both asked)."""
        self._watches.append(_Watch(resource, record_type, to_requests, when, label_selector, field_selector))
        return self

    def with_event_filter(self, when: Predicate) -> Builder:
        """Only changes for which `when` holds count, whatever the kind."""
        self._filter = when
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

    def with_retry_rate(self, per_second: float, burst: float) -> Builder:
        """How many failed keys are tried again per second, all together."""
        self._retries = (per_second, burst)
        return self

    def complete(self, reconciler: Reconciler) -> Controller:
        """Make the controller and give it to the manager. Raises `ValueError` when it has no name."""
        name = self._name or (self._for.resource.kind.lower() if self._for else "")
        if not name:
            raise ValueError("a controller needs for_() or named()")
        manager = self._manager
        controller = Controller(
            name,
            reconciler,
            manager,
            workers=self._workers or manager.options.concurrent_reconciles,
            deadline=self._deadline,
            queue=WorkQueue(manager.clock, retries_per_second=self._retries[0], retry_burst=self._retries[1]),
            primary=self._informer(self._for) if self._for else None,
        )
        for watch in self._watches:
            self._informer(watch).add_handler(_handler(controller, watch, self._filter))
        manager.add_controller(controller)
        return controller

    def _informer(self, watch: _Watch) -> Any:
        return self._manager.cache.informer(
            watch.resource,
            watch.record_type,
            label_selector=watch.label_selector,
            field_selector=watch.field_selector,
        )


def _handler(controller: Controller, watch: _Watch, also: Predicate | None) -> Callable[[Change[Any]], None]:
    when, to_requests = watch.when, watch.to_requests

    def handle(change: Change[Any]) -> None:
        priority = Priority.BACKGROUND if change.initial else Priority.CHANGE
        try:
            if (when is not None and not when(change)) or (also is not None and not also(change)):
                return
            keys = list(to_requests(change.new)) if change.new is not None else []
            if change.old is not None:
                keys += [key for key in to_requests(change.old) if key not in keys]
        except Exception as error:  # the boundary to a controller's code: the watch must go on for all others
            log.error(
                "watch_handler_failed", controller=controller.name, resource=watch.resource.plural, exc_info=error
            )
            return
        for key in keys:
            controller.queue.add(key, priority)

    return handle


def _owner(kind: Resource, metadata: ObjectMeta) -> list[Key]:
    owner = metadata.controller
    if owner is None or owner.kind != kind.kind or owner.api_version.rpartition("/")[0] != kind.group:
        return []
    return [Key(metadata.namespace if kind.namespaced else "", owner.name)]
