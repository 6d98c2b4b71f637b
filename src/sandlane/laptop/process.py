"""An Envoy of this laptop as a child process: it ends with us, however we end, and is started again when it ends by itself.

`Envoy.run` owns the process and the task that reads its access log; both end with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import structlog

from sandlane.kube.clock import Clock
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.pieces import Config
from sandlane.local.up.guard import die_with_parent
from sandlane.routing.envoy.binary import envoy_binary

log = structlog.get_logger(__name__)

FIRST_DELAY, LAST_DELAY = 0.05, 2.0
HEALTHY_AFTER = 5.0
ATTEMPTS = 5
"""Ends in a row, each soon after the start, after which it is given up."""
FLUSH_MS = 200
_FLAGS = ("--disable-hot-restart", "--concurrency", "1", "-l", "error", "--file-flush-interval-msec", str(FLUSH_MS))
_CHUNK = 1 << 16


class Envoy:
    """One Envoy. `on_log` gets what it writes on standard output, as it comes (its access log). Its configuration, which is too
    long for a command line, and what it complains about are in files beside its admin socket."""

    def __init__(self, config: Config, clock: Clock, on_log: Callable[[bytes], None] = lambda chunk: None) -> None:
        self._binary = envoy_binary()
        self._config = config
        self._admin = Path(config["admin"]["address"]["pipe"]["path"])
        self._errors_file = self._admin.with_suffix(".log")
        self._clock = clock
        self._on_log = on_log
        self._replaced = False
        self.pid = 0

    async def ready(self, seconds: float = 30.0) -> None:
        """Return when it takes requests on its admin socket. Raises `ConnectError` when it does not in time."""
        end = self._clock.monotonic() + seconds
        while self._clock.monotonic() < end:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._admin))
                writer.write(b"GET /ready HTTP/1.1\r\nhost: admin\r\n\r\n")
                answer = await reader.read(64)
                writer.close()
                if b" 200 " in answer:
                    return
            except OSError:
                pass
            await self._clock.sleep(0.02)
        raise ConnectError(f"the local Envoy was not ready within {seconds:.0f} s")

    def configure(self, config: Config) -> None:
        """Start it again with another configuration; tunnels wait for it."""
        self._config = config
        if self.pid:
            self._replaced = True
            os.kill(self.pid, signal.SIGKILL)

    async def run(self) -> None:
        """Keep it running until cancelled. Raises `ConnectError` when it does not stay alive."""
        delay, failures = FIRST_DELAY, 0
        while True:
            started = self._clock.monotonic()
            code = await self._live()
            if self._replaced:
                self._replaced = False
                continue
            if self._clock.monotonic() - started > HEALTHY_AFTER:
                delay, failures = FIRST_DELAY, 0
            failures += 1
            if failures >= ATTEMPTS:
                words = self._errors_file.read_text(errors="replace").strip()[-1000:]
                raise ConnectError(f"the local Envoy ended {failures} times in a row, at last with {code}: {words}")
            log.warning("envoy_ended", code=code, again_in=delay)
            await self._clock.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)

    async def _live(self) -> int:
        file = self._admin.with_suffix(".json")
        file.write_bytes(msgspec.json.encode(self._config))
        with self._errors_file.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *(str(self._binary), "-c", str(file), *_FLAGS),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # a Ctrl-C is for us alone: routes go out before the tunnel
                preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGKILL),
            )
        self.pid = process.pid
        assert process.stdout is not None
        try:
            while chunk := await process.stdout.read(_CHUNK):
                self._on_log(chunk)
            return await process.wait()
        finally:
            self.pid = 0
            if process.returncode is None:
                process.kill()  # requests have been drained, or nobody waits for them
                await process.wait()
