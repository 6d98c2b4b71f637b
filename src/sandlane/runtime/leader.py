"""Leader election by a Lease: one manager writes, the others wait with warm caches.

A Lease does not fence. So the leader stops writing `renew_deadline` after its last renewal, before the Lease can be
another's: `LeaderElector.guard` is asked before each send and bounds how long the request may take. On a clean exit the
Lease is released; standbys watch it, so that one takes over at once. The clock is monotonic and our own: neither a jump of the
time of day nor another machine's clock matters.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog

from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock, micro_timestamp, within
from sandlane.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from sandlane.kube.resource import LEASES, Object
from sandlane.kube.transport import Request

log = structlog.get_logger(__name__)

T = TypeVar("T")

READS = ("GET", "HEAD")
REVIEWS = ("/subjectaccessreviews", "/tokenreviews", "/selfsubjectaccessreviews")
"""Questions that are asked by POST."""
WATCH_SECONDS = 300
"""How long a standby watches the Lease before it begins anew."""


class LeaseOptions(msgspec.Struct, frozen=True):
    """Which Lease, and client-go's times in seconds: how long it holds, when to give up, how often to try."""

    name: str
    namespace: str
    identity: str
    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > self.retry_period > 0:
            raise ValueError("a Lease's duration must exceed its renew deadline, and that its retry period")


class _Spec(msgspec.Struct, frozen=True):
    holder: str | None = msgspec.field(name="holderIdentity", default=None)


class _Lease(msgspec.Struct, frozen=True):
    spec: _Spec = _Spec()


class _Notice(msgspec.Struct, frozen=True):
    type: str
    object: _Lease = _Lease()


_notice = msgspec.json.Decoder(_Notice).decode


class NotLeading(KubeError):
    """A write was stopped because this process is not, or no longer, the leader."""


class LeaderElector:
    """Acquires and renews the Lease. `run` returns when leadership is lost after it had been won."""

    def __init__(self, client: Client, options: LeaseOptions, clock: Clock, rng: Random) -> None:
        self._client = client.unguarded(unlimited=True)
        self._options = options
        self._clock = clock
        self._rng = rng
        self._renewed: float | None = None
        self._seen: tuple[str, float] | None = None  # the Lease's last state, and when it was first seen
        self._lease: Object | None = None
        self._free = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether this process may write now."""
        return self._renewed is not None and self._clock.monotonic() < self._renewed + self._options.renew_deadline

    def guard(self, request: Request) -> float | None:
        """Stop a write that is not allowed (now); reads and reviews pass. Raises `NotLeading`.

        Gives the seconds until the Lease can be another's: a write that takes longer is given up.
        """
        if request.method in READS or request.path.endswith(REVIEWS):
            return None
        if self._renewed is None or not self.leading:
            raise NotLeading(f"{request.method} {request.path}: this manager is not the leader")
        return self._renewed + self._options.duration - self._clock.monotonic()

    async def run(self, on_lead: Callable[[], None]) -> None:
        """Compete until won, call `on_lead`, renew until lost. Cancel it to stop; then call `release`."""
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(), name="lease watch")
            while True:
                self._free.clear()
                if await self._attempt():
                    break
                try:
                    await within(self._clock, self._pause(), self._free.wait())
                except TimeoutError:
                    pass  # look again: a holder that has died sends no notice
            watching.cancel()
        log.info("leading", lease=self._options.name, identity=self._options.identity)
        on_lead()
        while self.leading:
            await self._clock.sleep(self._options.retry_period)
            await self._attempt()
        log.error("leadership_lost", lease=self._options.name, identity=self._options.identity)

    async def release(self) -> None:
        """Give the Lease up, if it is ours, also past its deadline. Nothing may be written after this."""
        if self._renewed is None or self._lease is None:
            return
        self._renewed = None
        try:
            await within(self._clock, self._options.renew_deadline, self._give_up(self._lease))
        except (KubeError, TimeoutError) as error:
            log.warning("lease_not_released", error=str(error))

    async def _give_up(self, lease: Object) -> None:
        """Write the Lease as nobody's, if it is still ours."""
        while (lease.get("spec") or {}).get("holderIdentity") == self._options.identity:
            try:
                await self._client.replace(LEASES, self._nobodys(lease))
            except Conflict:  # perhaps our own: a renewal that was cut short may have reached the server
                lease = await self._client.get(LEASES, self._options.name, self._options.namespace)
            else:
                return

    def _nobodys(self, lease: Object) -> Object:
        spec = {name: value for name, value in lease["spec"].items() if name != "holderIdentity"}
        now = micro_timestamp(self._clock.now())
        return lease | {"spec": spec | {"leaseDurationSeconds": 1, "renewTime": now}}

    async def _watch(self) -> None:
        """Notice at once that the Lease is released. Only a hint: whoever cannot watch it finds out by trying."""
        options = self._options
        while True:
            try:
                async with self._client.watch(
                    LEASES,
                    options.namespace,
                    field_selector=f"metadata.name={options.name}",
                    timeout_seconds=WATCH_SECONDS,
                ) as lines:
                    async for line in lines:
                        event = _notice(line)
                        if event.type == "DELETED" or (event.type == "MODIFIED" and not event.object.spec.holder):
                            self._free.set()
            except (KubeError, msgspec.DecodeError) as error:
                log.info("lease_not_watched", error=str(error))
            await self._clock.sleep(self._pause())

    def _pause(self) -> float:
        return self._options.retry_period * (0.8 + 0.4 * self._rng.random())

    async def _attempt(self) -> bool:
        """Try to take or to renew the Lease once; whether we lead."""
        started = self._clock.monotonic()
        try:
            written = await self._bounded(self._take())
        except (AlreadyExists, Conflict) as error:
            log.info("lease_contended", error=str(error))
            return self.leading
        except (KubeError, TimeoutError) as error:
            log.warning("lease_unreachable", error=str(error))
            return self.leading
        if written is None:
            self._renewed = None
            return False
        # The time before the request counts: the server may have taken it at any moment since.
        self._renewed, self._lease = started, written
        return self.leading

    async def _take(self) -> Object | None:
        """Write the Lease as ours; None when it is another's."""
        try:
            lease = await self._client.get(LEASES, self._options.name, self._options.namespace)
        except NotFound:
            return await self._client.create(LEASES, self._mine(None))
        if not self._may_take(lease):
            return None
        return await self._client.replace(LEASES, self._mine(lease))

    async def _bounded(self, work: Awaitable[T]) -> T:
        return await within(self._clock, self._options.renew_deadline / 2, work)

    def _may_take(self, lease: Object) -> bool:
        """Ours, released, or not renewed by its holder for its whole duration as seen by *our* clock."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._options.identity):
            return True
        state = f"{holder} {spec.get('renewTime')} {lease['metadata'].get('resourceVersion')}"
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != state:
            self._seen = (state, now)
        return now > self._seen[1] + float(spec.get("leaseDurationSeconds") or self._options.duration)

    def _mine(self, lease: Object | None) -> Object:
        """The Lease as we want to write it."""
        options, now = self._options, micro_timestamp(self._clock.now())
        old = (lease or {}).get("spec") or {}
        mine = old.get("holderIdentity") == options.identity
        spec = {
            "holderIdentity": options.identity,
            "leaseDurationSeconds": math.ceil(options.duration),
            "renewTime": now,
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if mine or lease is None else 1),
        }
        metadata = (lease or {}).get("metadata") or {"name": options.name, "namespace": options.namespace}
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
