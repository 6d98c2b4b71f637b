"""Runs one container of a Pod: start, probes, restarts with back-off, and its end. Its tasks belong to the Pod's group."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object
from sandlane.local.node.console import Console
from sandlane.local.node.environment import ConfigMissing
from sandlane.local.node.logs import ContainerLogs
from sandlane.local.node.logtimes import note_times
from sandlane.local.node.probes import Verdict, attempt
from sandlane.local.node.process import ContainerProcess, StartFailed, join, start
from sandlane.local.node.state import ContainerState
from sandlane.local.node.view import View

log = structlog.get_logger(__name__)

FIRST_BACK_OFF, LAST_BACK_OFF = 10.0, 300.0
HEALTHY_AFTER = 600.0
"""Seconds of life after which the back-off starts afresh, as the kubelet's."""
CONFIG_RETRY = 2.0
EAGER = 0.1
"""Seconds between probes until the first success; the kubelet's period counts from then on."""
EAGER_ATTEMPTS = 100
LAST_GRACE = 1.0
"""Seconds that a process has to end by itself when the node ends."""
_IN_USE = re.compile(r"address already in use|EADDRINUSE|Cannot assign requested address", re.IGNORECASE)


class Recipe(Protocol):
    """What is needed to start a container."""

    @property
    def argv(self) -> list[str]:
        """The command line."""

    @property
    def env(self) -> Mapping[str, str]:
        """The environment."""

    @property
    def folder(self) -> str:
        """The working directory."""

    @property
    def view(self) -> View | None:
        """Its mount view."""

    @property
    def cpu_group(self) -> str:
        """The file by which it enters the group that bounds its CPU time; empty: none."""


class NotMapped(Exception):
    """The image map has no program for an image, and the container has no command."""


class Container:
    """One container and its state; `changed` is called whenever the state did."""

    def __init__(
        self,
        pod: Object,
        spec: Object,
        state: ContainerState,
        logs: ContainerLogs,
        prepare: Callable[[Object], Awaitable[Recipe]],
        address: str,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.state = state
        self.logs = logs
        self.process: ContainerProcess | None = None
        self.console = Console(spec)
        self.stopping = False
        self._pod = pod
        self._prepare = prepare
        self._address = address
        self._clock = clock
        self._changed = changed
        self._env: Mapping[str, str] = {}
        self._folder = ""
        self._verdict_lost = ""
        self._ports = {p["name"]: p["containerPort"] for p in spec.get("ports") or () if p.get("name")}

    async def run(self, restart: Callable[[int], bool]) -> int:
        """Run until it ends for good; `restart` says whether it is started again after an exit code. The last one."""
        delay = FIRST_BACK_OFF
        while True:
            began = self._clock.monotonic()
            code = await self._once()
            if self.stopping or not restart(code):
                return code
            if self._clock.monotonic() - began > HEALTHY_AFTER:
                delay = FIRST_BACK_OFF
            first = self.state.restarts == 0
            self.state.last = self.state.terminated()
            if not first:
                lines = self.logs.last_lines(self.state.restarts)
                why = f"back-off {delay:.0f}s restarting failed container={self.state.name}"
                self.wait_for("CrashLoopBackOff", f"{why}; it ended with {code}{': ' + lines if lines else ''}")
                await self._clock.sleep(delay)
                delay = min(delay * 2, LAST_BACK_OFF)
                if self.stopping:
                    return code
            self.state.restarts += 1

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.running

    @property
    def surroundings(self) -> tuple[Mapping[str, str], str]:
        """Environment and working directory of the process that runs, or ran last."""
        return self._env, self._folder

    async def stop(self, grace: float) -> None:
        """End it: the preStop hook, SIGTERM, and SIGKILL after the grace."""
        self.stopping = True
        process = self.process
        if process is None or not process.running:
            return
        self.state.ready = False
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and "sleep" in hook:
            await self._clock.sleep(min(float(hook["sleep"].get("seconds") or 0), grace))
        elif hook:
            problem = await self._attempt({**hook, "timeoutSeconds": max(1, int(grace))})
            if problem:
                log.warning("pre_stop_failed", container=self.state.name, error=problem)
        await process.end(grace)

    async def _once(self) -> int:
        """One run, from preparing it to its exit code."""
        while True:
            try:
                recipe = await self._prepare(self.spec)
                break
            except NotMapped as error:
                self.state.mapped = False
                self.wait_for("ImageNotMapped", str(error))
            except ConfigMissing as error:
                self.wait_for("CreateContainerConfigError", str(error))
            await self._clock.sleep(CONFIG_RETRY)
            if self.stopping:
                return 137
        self._env, self._folder = recipe.env, recipe.folder
        path = self.logs.prepare(self.state.restarts)
        path.write_bytes(b"")
        self.console = Console(self.spec)
        try:
            self.process = process = await self._start(recipe, path, self.console)
        except StartFailed as error:
            path.write_bytes(f"{error}\n".encode())
            return self._ended(128, "StartError", str(error))
        state = self.state
        state.waiting, state.exit_code, state.message, state.reason = False, None, "", ""
        state.started_at = timestamp(self._clock.now())
        state.container_id = f"process://{process.pid}"
        state.started = not self.spec.get("startupProbe")
        state.ready = state.started and not self.spec.get("readinessProbe")
        self._verdict_lost = ""
        self._changed()
        try:
            code = await self._attend(process, path)
        finally:
            if process.running:  # cancelled: the node ends
                await process.end(LAST_GRACE)
            self.console.close()
        reason = "Completed" if code == 0 else "Error"
        lines = self.logs.last_lines(state.restarts) if code else ""
        if self._verdict_lost:
            lines = self._verdict_lost
        elif _IN_USE.search(lines):
            ports = ", ".join(str(p["containerPort"]) for p in self.spec.get("ports") or ()) or "a port"
            lines = f"address in use: containers share the host's network, so bind status.podIP ({self._address}) instead of all addresses for {ports}: {lines}"
        elif code == 137 and self._memory_limit() is not None and not self.stopping:
            reason = "OOMKilled"
        return self._ended(code, reason, lines)

    async def _start(self, recipe: Recipe, path: Path, console: Console) -> ContainerProcess:
        process = None
        env = {"TERM": "xterm", **recipe.env} if console.tty else recipe.env
        limit = self._memory_limit()
        try:
            with path.open("ab") as log_file:
                streams = console.stdio(log_file)
                process = await start(
                    recipe.argv, env, recipe.folder, streams, limit, recipe.view, recipe.cpu_group, tty=console.tty
                )
            return process
        finally:
            console.started(process)

    async def _attend(self, process: ContainerProcess, log_path: Path) -> int:
        """Probe a running process until it ends; its exit code."""
        async with asyncio.TaskGroup() as tasks:
            probing = tasks.create_task(self._probe())
            noting = tasks.create_task(note_times(log_path, self._clock))
            keeping = tasks.create_task(self.console.keep(log_path))
            hook = (self.spec.get("lifecycle") or {}).get("postStart")
            if hook:
                problem = await self._attempt({**hook, "timeoutSeconds": 60})
                if problem:
                    log.warning("post_start_failed", container=self.state.name, error=problem)
                    process.signal(signal.SIGTERM)
            code = await process.wait()
            probing.cancel()
            with contextlib.suppress(TimeoutError):  # what it started and nobody could end may have the terminal, too
                async with asyncio.timeout(LAST_GRACE):
                    await keeping
            noting.cancel()
        return code

    def _memory_limit(self) -> int | None:
        limit = ((self.spec.get("resources") or {}).get("limits") or {}).get("memory")
        return int(parse_quantity(limit)) if limit else None

    def _ended(self, code: int, reason: str, message: str) -> int:
        state = self.state
        state.waiting, state.exit_code, state.reason, state.message = False, code, reason, message[-1000:]
        state.finished_at = timestamp(self._clock.now())
        state.started_at = state.started_at or state.finished_at
        state.ready = state.started = False
        self._changed()
        return code

    def wait_for(self, reason: str, message: str) -> None:
        """It waits, and this is why."""
        state = self.state
        if (state.waiting, state.reason, state.message) == (True, reason, message):
            return
        state.waiting, state.reason, state.message, state.exit_code = True, reason, message, None
        state.ready = state.started = False
        self._changed()

    # -- probes -----------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        startup = self.spec.get("startupProbe")
        if startup and not await self._starts(startup):
            return
        async with asyncio.TaskGroup() as tasks:
            if probe := self.spec.get("readinessProbe"):
                tasks.create_task(self._readiness(probe))
            if probe := self.spec.get("livenessProbe"):
                tasks.create_task(self._liveness(probe))

    async def _starts(self, probe: Object) -> bool:
        verdict = Verdict.of(probe)
        await self._clock.sleep(probe.get("initialDelaySeconds") or 0)
        while True:
            problem = await self._attempt(probe)
            if verdict.count(not problem) and verdict.passing is not None:
                if verdict.passing:
                    self.state.started = True
                    self.state.ready = not self.spec.get("readinessProbe")
                    self._changed()
                    return True
                await self._kill(f"startup probe failed: {problem}", probe)
                return False
            await self._clock.sleep(probe.get("periodSeconds") or 10)

    async def _readiness(self, probe: Object) -> None:
        verdict = Verdict.of(probe)
        period = probe.get("periodSeconds") or 10
        await self._clock.sleep(probe.get("initialDelaySeconds") or 0)
        eager = EAGER_ATTEMPTS
        while True:
            problem = await self._attempt(probe)
            if problem and eager and verdict.passing is None:
                eager -= 1
                await self._clock.sleep(min(EAGER, period))
                continue
            if verdict.count(not problem):
                self.state.ready = bool(verdict.passing)
                self.state.message = "" if verdict.passing else f"readiness probe failed: {problem}"
                self._changed()
            await self._clock.sleep(period)

    async def _liveness(self, probe: Object) -> None:
        verdict = Verdict.of(probe)
        await self._clock.sleep(probe.get("initialDelaySeconds") or 0)
        while True:
            await self._clock.sleep(probe.get("periodSeconds") or 10)
            problem = await self._attempt(probe)
            if verdict.count(not problem) and verdict.passing is False:
                await self._kill(f"liveness probe failed: {problem}", probe)
                return

    async def _attempt(self, probe: Object) -> str:
        return await attempt(probe, self._address, self._ports, self._command)

    async def _command(self, command: list[str]) -> str:
        """Run a command beside the container; the empty text when it ends well, else what it said."""
        if self.process is None or not self.process.running:
            return "the container does not run"
        streams = (subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT)
        try:
            process = await join(self.process.pid, command, self._env, self._folder, streams)
        except StartFailed as error:
            return str(error)
        try:
            out, _ = await process.streams.communicate()
        finally:
            code = await process.end(0) if process.running else process.streams.returncode
        return "" if code == 0 else out[-500:].decode(errors="replace").strip() or f"exit {code}"

    async def _kill(self, why: str, probe: Object) -> None:
        self._verdict_lost = why
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is None:
            grace = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
        if self.process is not None:
            await self.process.end(float(grace))
