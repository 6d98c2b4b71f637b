"""The local Envoy is there as long as its command is: started again when it ends, ended when we end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandlane.kube.clock import SystemClock
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.inbound import Inbound, inbound_bootstrap
from sandlane.laptop.process import ATTEMPTS, Envoy
from support.laptop import until

HOLD = """
import asyncio, sys
from sandlane.kube.clock import SystemClock
from sandlane.laptop.inbound import inbound_bootstrap
from sandlane.laptop.process import Envoy
async def main():
    envoy = Envoy(inbound_bootstrap([], sys.argv[1]), SystemClock())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(envoy.run())
        await envoy.ready()
        print(envoy.pid, flush=True)
asyncio.run(main())
"""


async def test_an_envoy_that_was_killed_is_started_again(tmp_path: Path) -> None:
    """And takes connections at the same sockets; so is one that gets another configuration."""
    config = inbound_bootstrap([Inbound("a", str(tmp_path / "a"), ())], str(tmp_path / "admin"))
    envoy = Envoy(config, SystemClock())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(envoy.run())
        await envoy.ready()
        first = envoy.pid
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(20):
            while envoy.pid in (0, first):
                await asyncio.sleep(0.01)
        await envoy.ready()
        _, writer = await asyncio.open_unix_connection(tmp_path / "a")
        writer.close()
        envoy.configure(inbound_bootstrap([Inbound("b", str(tmp_path / "b"), ())], str(tmp_path / "admin")))
        async with asyncio.timeout(20):
            while not os.path.exists(tmp_path / "b"):  # noqa: ASYNC240 - of the kernel
                await asyncio.sleep(0.01)
        running.cancel()
    assert not os.path.exists(f"/proc/{first}")  # noqa: ASYNC240 - of the kernel


async def test_an_envoy_that_does_not_start_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some attempts, with its own words."""
    broken = tmp_path / "envoy"
    broken.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('it is broken')\n")
    broken.chmod(0o755)
    monkeypatch.setenv("SANDLANE_ENVOY", str(broken))
    envoy = Envoy(inbound_bootstrap([], str(tmp_path / "admin")), SystemClock())
    with pytest.raises(ConnectError, match=f"ended {ATTEMPTS} times in a row(.|\n)*it is broken"):
        await envoy.run()


def test_an_envoy_ends_with_a_killed_command(tmp_path: Path) -> None:
    """Whatever ends the command."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "admin")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        envoy = int(process.stdout.readline())
        process.kill()
        process.wait()
    until(lambda: not alive(envoy), "the Envoy has ended, too")


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
