"""The laptop's side of LocalWorkloads: their certificates, the local Envoy, a dialler for each, and what is known of them.

`Connection.run` owns all tasks and the Envoy; they end with it. One LocalWorkload that is lost for good (deleted, taken
over) does not end the others. The API server is not needed while tunnels run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from sandlane.api import reasons
from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock
from sandlane.kube.errors import Forbidden, KubeError, NotFound
from sandlane.kube.resource import LOCAL_WORKLOADS, Object
from sandlane.laptop.checks import Right, forbidden
from sandlane.laptop.credentials import Credentials
from sandlane.laptop.dialler import Connect, Dialler, Refused, TunnelState
from sandlane.laptop.directory import find_directory
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.inbound import Inbound, LocalTarget, Seen, inbound_bootstrap
from sandlane.laptop.listening import listens
from sandlane.laptop.pieces import Config
from sandlane.laptop.plan import Joined, followed, targets_of
from sandlane.laptop.process import Envoy
from sandlane.laptop.requests import RequestLog
from sandlane.laptop.splice import SpliceEnd
from sandlane.laptop.state import Held, State
from sandlane.laptop.transports import Transport, Ways

log = structlog.get_logger(__name__)

LOOK_EVERY = 1.0
"""Seconds between looks at what listens on this laptop."""
ASK_AGAIN = 5.0
"""Seconds after which the API server is asked again when a watch is not to be had."""
WATCH_SECONDS = 300
FIRST_RETRY, LAST_RETRY = 0.2, 5.0
FINAL = {"taken-over": "another laptop of yours has taken it over"}
"""Reasons of the tunnel servers after which a LocalWorkload is not dialled again."""


class Lost(Exception):
    """A LocalWorkload is not to be held from here any more; the message says why."""


class TakenOver(Lost):
    """Another client holds it now."""


class Connection:
    """Holds LocalWorkloads. `on_change` is called after each change of `state`, `on_request` with the newest requests;
    while `leaving`, LocalWorkloads that go are not lost: their tunnels stay until `run` is cancelled."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        rng: Random,
        workloads: Sequence[Joined],
        folder: Path,
        *,
        transport: Transport = Transport.AUTO,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.on_request: Callable[[list[Seen]], None] = lambda seen: None
        self.on_taken_over: Callable[[Joined], None] = lambda joined: None
        self.leaving = False
        self.state = State([Held.of(each) for each in workloads])
        self.requests = RequestLog()
        self._client = client
        self._clock = clock
        self._rng = rng
        self._workloads = workloads
        self._folder = folder
        self._transport = transport
        self._ways: Ways | None = None
        self._envoy: Envoy | None = None
        self._specs: dict[str, tuple[LocalTarget, ...]] = {}
        """Uid -> the mappings as the LocalWorkload's spec has them."""

    async def run(self) -> None:
        """Hold everything until cancelled. Raises `ConnectError` when nothing is left to hold."""
        envoy = self._envoy = Envoy(self._config(), self._clock, self._log)
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(envoy.run(), name="envoy"),
                tasks.create_task(self._look(), name="listening"),
            ]
            directory = await find_directory(self._client, self._clock)
            self._ways = Ways(self._client, self._clock, directory, self._transport, tasks)
            if self._ways.order() == [Transport.PORT_FORWARD]:
                await self._may_forward(directory.namespace)
            holding = [
                tasks.create_task(
                    self._hold(joined, held, directory.ca, directory.replicas, self._socket(number), envoy),
                    name=str(joined),
                )
                for number, (joined, held) in enumerate(zip(self._workloads, self.state.workloads, strict=True))
            ]
            await asyncio.wait(holding)
            for each in others:
                each.cancel()
        raise ConnectError("\n".join(f"{held.title}: {held.over}" for held in self.state.workloads))

    def _socket(self, number: int) -> str:
        return str(self._folder / f"tunnel-{number}.sock")

    def _config(self) -> Config:
        held = enumerate(self.state.workloads)
        inbound = [Inbound(each.title, self._socket(number), each.mappings) for number, each in held]
        return inbound_bootstrap(inbound, str(self._folder / "admin.sock"))

    async def _may_forward(self, namespace: str) -> None:
        """Raises `ConnectError` when the only way to the tunnel servers is one that the user may not go."""
        wanted = [
            Right("list", "pods", "", namespace),
            Right("get", "pods", "", namespace, subresource="portforward"),
        ]
        if problems := await forbidden(self._client, wanted):
            raise ConnectError("\n".join(["the tunnel servers are reached by port-forward only:", *problems]))

    async def _hold(self, joined: Joined, held: Held, ca: str, replicas: int, socket: str, envoy: Envoy) -> None:
        """One LocalWorkload, until it is lost."""
        credentials = Credentials(self._client, self._clock, self._rng, joined.uid, ca)
        try:
            await self._first_certificate(held, credentials)
            await envoy.ready()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(credentials.keep())
                tasks.create_task(self._follow(joined, held, credentials.session))
                tasks.create_task(self._dial(joined, held, credentials, replicas, socket))
        except* Lost as group:
            held.over = str(_first(group))
            if group.subgroup(TakenOver) is not None:
                self.on_taken_over(joined)
            held.tunnels, held.error = {}, ""
            self._changed()

    async def _first_certificate(self, held: Held, credentials: Credentials) -> None:
        """Raises `Lost` when the cluster denies it."""
        try:
            await credentials.fresh()
        except ConnectError as error:
            raise Lost(str(error)) from error

    async def _dial(self, joined: Joined, held: Held, credentials: Credentials, replicas: int, socket: str) -> None:
        assert self._ways is not None
        ways = self._ways

        def told(state: TunnelState) -> None:
            held.tunnels, held.error = dict(state.tunnels), state.error
            if not self.leaving:
                self._changed()

        connect = _with_certificate(ways.connect(lambda: credentials.context), credentials)
        delay = FIRST_RETRY
        while True:
            dialler = Dialler(connect, socket, self._clock, self._rng.random, replicas=replicas, on_change=told)
            started = self._clock.monotonic()
            try:
                await dialler.run()
            except Refused as refused:
                if self.leaving:
                    return
                if refused.reason in FINAL:
                    raise TakenOver(refused.detail or FINAL[refused.reason]) from refused
                await self._still_there(joined)
                held.tunnels, held.error = {}, str(refused)
                self._changed()
                credentials.forget()
            if self._clock.monotonic() - started > LAST_RETRY:
                delay = FIRST_RETRY
            await self._clock.sleep(delay * (0.5 + self._rng.random()))
            delay = min(delay * 2, LAST_RETRY)

    async def _still_there(self, joined: Joined) -> None:
        """Raises `Lost` when the LocalWorkload is not the one that was joined any more."""
        try:
            self._check(joined, await self._client.get(LOCAL_WORKLOADS, joined.name, joined.namespace))
        except NotFound as error:
            raise Lost("the LocalWorkload was deleted") from error
        except KubeError as error:
            log.info("local_workload_not_read", error=str(error))

    def _check(self, joined: Joined, obj: Object) -> None:
        if self.leaving:
            return
        if obj["metadata"].get("deletionTimestamp"):
            raise Lost("the LocalWorkload is being deleted")
        if obj["metadata"]["uid"] != joined.uid:
            raise Lost("the LocalWorkload was deleted and made again: connect again")

    async def _follow(self, joined: Joined, held: Held, session: str) -> None:
        """Keep up with what the cluster says of a LocalWorkload. Raises `Lost`."""
        while True:
            try:
                obj = await self._client.get(LOCAL_WORKLOADS, joined.name, joined.namespace)
                self._told(joined, held, session, obj)
                async with self._client.watch(
                    LOCAL_WORKLOADS,
                    joined.namespace,
                    resource_version=obj["metadata"]["resourceVersion"],
                    field_selector=f"metadata.name={joined.name}",
                    timeout_seconds=WATCH_SECONDS,
                ) as lines:
                    async for line in lines:
                        event: dict[str, Any] = msgspec.json.decode(line)
                        if self.leaving:
                            return
                        if event["type"] == "DELETED":
                            raise Lost("the LocalWorkload was deleted")
                        if event["type"] in ("ADDED", "MODIFIED"):
                            self._told(joined, held, session, event["object"])
            except NotFound as error:
                if self.leaving:
                    return
                raise Lost("the LocalWorkload was deleted") from error
            except Forbidden:
                pass  # watching is not allowed: ask from time to time
            except KubeError as error:
                held.cluster = f"the API server does not answer ({error}); tunnels run on"
                self._changed()
            await self._clock.sleep(ASK_AGAIN * (0.5 + self._rng.random()))

    def _told(self, joined: Joined, held: Held, session: str, obj: Object) -> None:
        self._check(joined, obj)
        connection = (obj.get("status") or {}).get("connection") or {}
        if connection.get("session", session) != session:
            raise TakenOver(f"another client of {connection.get('client')} has taken it over")
        conditions = {each["type"]: each for each in (obj.get("status") or {}).get("conditions") or ()}
        ready = conditions.get("Ready") or {}
        held.ready = {"True": True, "False": False}.get(ready.get("status", ""))
        held.cluster = ready.get("message") or ready.get("reason") or ""
        if ready.get("reason") == reasons.NOT_CONNECTED:  # its message is for those who look from the cluster
            held.cluster = "the cluster does not see the tunnels yet"
        after = targets_of(obj)
        before = self._specs.setdefault(joined.uid, after)
        if after != before:
            self._specs[joined.uid] = after
            held.mappings = followed(held.mappings, before, after)
            if self._envoy is not None:
                self._envoy.configure(self._config())
        self._changed()

    async def _look(self) -> None:
        """Keep up with what listens on this laptop."""
        while True:
            for held in self.state.workloads:
                absent = [f"{each.to}" for each in held.mappings if not await listens(each.host, each.to_port)]
                if absent != held.not_listening:
                    held.not_listening = absent
                    self._changed()
            await self._clock.sleep(LOOK_EVERY)

    def _log(self, chunk: bytes) -> None:
        seen = self.requests.feed(chunk)
        self.state.requests = self.requests.count
        self.state.last = list(self.requests.last)
        self.on_request(seen)
        self._changed()

    def _changed(self) -> None:
        if self._ways is not None:
            self.state.transport = str(self._ways.used)
        self.on_change()


def _with_certificate(connect: Connect, credentials: Credentials) -> Connect:
    """A dial with a certificate that has not ended, also when the laptop slept while it did."""

    async def dial() -> SpliceEnd:
        try:
            await credentials.fresh()
        except (KubeError, ConnectError) as error:
            raise ConnectionError(f"no certificate: {error}") from error
        return await connect()

    return dial


def _first(group: BaseExceptionGroup[Lost]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
