"""`sandlane connect`: puts processes on this machine in the place of workloads, for one sandbox's key."""

from __future__ import annotations

import sandlane.slim  # isort: skip  # noqa: F401 - first

import asyncio
import contextlib
import os
import random  # noqa: TID251 - the composition root
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from sandlane.cli.detached import DETACHED
from sandlane.cli.reading import config_of
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock, SystemClock
from sandlane.kube.config import Config, ConfigError
from sandlane.kube.errors import ApiError, KubeError
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import LOCAL_WORKLOADS
from sandlane.laptop.checks import about_clock, clock_offset, silent, with_protocols
from sandlane.laptop.connection import Connection
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.joining import Joining
from sandlane.laptop.plan import Joined, parse_mapping, read_documents
from sandlane.laptop.registry import Entry, entry
from sandlane.laptop.screen import screen
from sandlane.laptop.transports import Transport
from sandlane.routing.envoy.binary import EnvoyMissing

Fail = Callable[[object], NoReturn]

ROUTES_OUT = 5.0
"""Seconds to wait for routers to let go of a LocalWorkload before its tunnels are closed."""
DETACH_AFTER = 30.0
"""Seconds after which a detached connection goes to the background even if it is not connected yet."""


class Wanted(msgspec.Struct, frozen=True):
    """What the command line says. Either `sandbox` or `file` is given."""

    sandbox: str = ""
    file: Path | None = None
    workload: str = ""
    ports: tuple[str, ...] = ()
    tcp: tuple[str, ...] = ()
    namespace: str = ""
    on_disconnect: str = "Fail"
    transport: Transport = Transport.AUTO
    keep: bool = False


def connect(wanted: Wanted, kubeconfig: Path | None, data_dir: Path | None, *, fail: Fail) -> None:
    """Connect until Ctrl-C; started by `start_detached`, it goes to the background when it is connected."""
    if bool(wanted.sandbox) == bool(wanted.file):
        fail("say which Sandbox, or give a file with -f: `sandlane connect SANDBOX` or `sandlane connect -f FILE`")
    if wanted.file and (wanted.workload or wanted.ports or wanted.tcp):
        fail("--workload and --port go with a Sandbox's name; with -f the file says it")
    with explained(fail):
        asyncio.run(_connect(wanted, config_of(kubeconfig, data_dir)))


class explained:
    """Errors that a user can do something about, as text."""

    def __init__(self, fail: Fail) -> None:
        self._fail = fail

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Say what is wrong and exit."""
        if isinstance(error, BaseExceptionGroup):
            error, others = error.split(_KNOWN)
            if others is not None:
                return  # a bug: as it is
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
        if isinstance(error, ApiError):
            self._fail(f"the cluster refused: {error}")
        if isinstance(error, _KNOWN):
            self._fail(error)


_KNOWN = (ConfigError, ConnectError, EnvoyMissing, KubeError, OSError)


async def _connect(wanted: Wanted, config: Config) -> None:
    clock, rng = SystemClock(), random.Random()
    client = Client(HttpTransport(config), clock=clock, rng=rng, user_agent="sandlane-connect")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def until_stopped(connection: Connection, mine: Entry) -> None:
        detaching, since = DETACHED in os.environ, clock.monotonic()
        with screen(connection.state) as shown:

            def changed() -> None:
                nonlocal detaching
                shown.changed()
                mine.write(connection.state)
                if detaching and (connection.state.ready or clock.monotonic() - since >= DETACH_AFTER):
                    detaching = False
                    _to_background(mine, ready=connection.state.ready)

            connection.on_change, connection.on_request = changed, shown.requests
            if detaching:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DETACH_AFTER):
                        await stop.wait()
                changed()
            await stop.wait()

    try:
        await hold_while(client, clock, rng, wanted, config, until_stopped)
    finally:
        await client.close()


async def hold_while(
    client: Client,
    clock: Clock,
    rng: random.Random,
    wanted: Wanted,
    config: Config,
    work: Callable[[Connection, Entry], Coroutine[Any, Any, None]],
) -> None:
    """Hold the LocalWorkloads that are wanted while `work` is done; then routes out first, and what was made removed.

    Raises `ConnectError` when nothing can be held, or not any more.
    """
    joining = Joining(client, clock, keep=wanted.keep)
    try:
        with entry(clock, wanted.namespace or config.namespace, wanted.sandbox) as mine:
            held = await _join(client, clock, joining, wanted, config)
            connection = Connection(client, clock, rng, held, mine.folder, transport=wanted.transport)
            connection.on_taken_over = joining.spare
            async with asyncio.TaskGroup() as tasks:
                holding = tasks.create_task(connection.run())
                working = tasks.create_task(work(connection, mine))
                await asyncio.wait({holding, working}, return_when=asyncio.FIRST_COMPLETED)
                if working.done() and not holding.done():
                    connection.leaving = True
                    for each, now in zip(held, connection.state.workloads, strict=True):
                        if now.tunnels:
                            joining.adopt(each)
                    await _leave(joining, wanted.keep)
                    await _routes_out(client, clock, () if wanted.keep else held)
                    mine.forget_log()  # it ends because it was told to
                working.cancel()
                holding.cancel()
    finally:
        await _leave(joining, wanted.keep)


def say(text: str) -> None:
    """Tell the user, whose program may use standard output for itself."""
    print(text, file=sys.stderr, flush=True)


async def _join(client: Client, clock: Clock, joining: Joining, wanted: Wanted, config: Config) -> list[Joined]:
    """Everything that can be said before connecting, and the LocalWorkloads. Raises `ConnectError`."""
    namespace = wanted.namespace or config.namespace
    note, hopeless = about_clock(await clock_offset(client, clock))
    if hopeless:
        raise ConnectError(note)
    notes = [note] if note else []
    if wanted.file is not None:
        text = sys.stdin.read() if str(wanted.file) == "-" else wanted.file.read_text()
        held = await joining.documents(read_documents(text, str(wanted.file), namespace))
    else:
        targets = [parse_mapping(text) for text in wanted.ports]
        targets += [parse_mapping(text, all_connections=True) for text in wanted.tcp]
        held = await joining.sandbox(namespace, wanted.sandbox, wanted.workload, targets, wanted.on_disconnect)
    held = [await with_protocols(client, joined) for joined in held]
    for joined in held:
        say(f"LocalWorkload {joined}: {joined.workload} for sandbox {joined.sandbox}")
        notes += await silent(joined.targets)
    for each in notes:
        say(f"note: {each}")
    return held


async def _leave(joining: Joining, keep: bool) -> None:
    if keep:
        return
    try:
        for name in await joining.leave():
            say(f"removed {name}")
    except KubeError as error:
        left = ", ".join(f"{resource.kind} {key}" for resource, key in joining.made)
        say(f"not removed: {left or 'what was made'}: {error}")


async def _routes_out(client: Client, clock: Clock, held: Iterable[Joined]) -> None:
    """Wait until what we have removed is gone: its finalizer goes when the routers have let go of it."""
    end = clock.monotonic() + ROUTES_OUT
    for joined in held:
        while clock.monotonic() < end:
            try:
                obj = await client.get(LOCAL_WORKLOADS, joined.name, joined.namespace)
            except KubeError:
                break
            if not obj["metadata"].get("deletionTimestamp"):
                break  # it was there before us, and stays
            await clock.sleep(0.05)


def _to_background(mine: Entry, *, ready: bool) -> None:
    """From now on everything that is printed goes to the log."""
    how = "runs" if ready else "is not ready yet and goes on trying"
    say(f"the connection {how} in the background: process {mine.record.pid}, log {mine.record.log}")
    log = os.open(mine.record.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
