"""Events (`events.k8s.io/v1`) about objects: what happened, for `kubectl describe`.

Recording never blocks and never fails a reconcile: events wait in a bounded line and are written by
`EventRecorder.run`. The same event about the same object becomes a series of the first one instead of a new object.
Each object has a budget (25 at once, then one in five minutes, as in client-go), so that no flapping object floods the
cluster with events.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable

import msgspec
import structlog

from sandlane.kube.bucket import Bucket
from sandlane.kube.client import Client, PatchType
from sandlane.kube.clock import Clock, micro_timestamp
from sandlane.kube.errors import AlreadyExists, KubeError, NotFound
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import EVENTS, Object, Resource

log = structlog.get_logger(__name__)

NORMAL = "Normal"
WARNING = "Warning"
WAITING = 1000
SERIES = 4096
SERIES_SECONDS = 360.0
BURST = 25
PER_SECOND = 1 / 300
NAME = 220
"""Characters of the object's name in that of its event: both may have 253."""


class _Recorded(msgspec.Struct):
    name: str
    count: int
    at: float


class EventRecorder:
    """Records events as one reporting controller."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        component: str,
        instance: str,
        *,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._component = component
        self._instance = instance
        self._waiting: deque[tuple[tuple[str, ...], Object, bool]] = deque()
        self._on_drop = dropped
        self._dropped = 0
        self._budgets: OrderedDict[str, Bucket] = OrderedDict()
        self._wake = asyncio.Event()
        self._known: OrderedDict[tuple[str, ...], _Recorded] = OrderedDict()
        self._sequence = 0

    def event(
        self,
        resource: Resource,
        about: ObjectMeta,
        reason: str,
        message: str,
        *,
        kind: str = NORMAL,
        action: str = "",
        once: str = "",
    ) -> None:
        """Record that something happened to an object. Dropped, and counted, when that object had too many already;
        the oldest waiting event is dropped when too many wait.

        `once` says what happens one time only: whoever records it again, after a restart too, finds the event there.
        """
        if not self._allowed(about):
            self._drop()
            return
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self._drop()
        regarding = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "name": about.name,
            "namespace": about.namespace,
            "uid": about.uid,
            "resourceVersion": about.resource_version,
        }
        now = micro_timestamp(self._clock.now())
        self._sequence += 1
        head = about.name[:NAME].rstrip(".-")
        unique = f"{int(self._clock.now().timestamp() * 1e6):x}{self._sequence:x}"
        if once:
            unique = hashlib.sha256(f"{about.uid}/{reason}/{once}".encode()).hexdigest()[:16]
        event = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {
                "name": f"{head}.{unique}",
                "namespace": about.namespace or "default",
            },
            "eventTime": now,
            "reportingController": self._component,
            "reportingInstance": self._instance[:128],
            "action": (action or reason)[:128],
            "reason": reason[:128],
            "note": message[:1024],
            "type": kind,
            "regarding": {key: value for key, value in regarding.items() if value},
        }
        self._waiting.append(((about.uid, kind, reason, message), event, bool(once)))
        self._wake.set()

    def _allowed(self, about: ObjectMeta) -> bool:
        budget = self._budgets.get(about.uid)
        if budget is None:
            budget = self._budgets[about.uid] = Bucket(self._clock, PER_SECOND, BURST)
            if len(self._budgets) > SERIES:
                self._budgets.popitem(last=False)
        return budget.try_take()

    def _drop(self) -> None:
        self._dropped += 1
        self._on_drop()

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            self._wake.clear()
            await self.flush()
            await self._wake.wait()

    async def flush(self) -> None:
        """Write what is waiting. An event that cannot be written is logged and forgotten."""
        while self._waiting:
            series, event, once = self._waiting.popleft()
            try:
                await self._write(series, event, once=once)
            except KubeError as error:
                log.warning("event_not_written", reason=event["reason"], note=event["note"], error=str(error))
        if self._dropped:
            log.warning("events_dropped", count=self._dropped)
            self._dropped = 0

    async def _write(self, series: tuple[str, ...], event: Object, *, once: bool) -> None:
        now = self._clock.monotonic()
        known = self._known.get(series)
        namespace = event["metadata"]["namespace"]
        if known is not None and now - known.at < SERIES_SECONDS:
            known.count += 1
            known.at = now
            body = {"series": {"count": known.count, "lastObservedTime": event["eventTime"]}}
            try:
                await self._client.patch(EVENTS, known.name, body, namespace=namespace, patch_type=PatchType.MERGE)
                return
            except NotFound:
                pass  # it has aged out: begin anew
        try:
            await self._client.create(EVENTS, event)
        except AlreadyExists:
            if not once:
                raise
            return
        self._known[series] = _Recorded(event["metadata"]["name"], 1, now)
        if len(self._known) > SERIES:
            self._known.popitem(last=False)
