"""`sandlane run`: a program of this machine that sees the cluster as the baseline's container does. `env` and `files`: what it sees."""

from __future__ import annotations

import asyncio
import os
import random  # noqa: TID251 - the composition root
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from sandlane.api.keys import routing_key
from sandlane.cli.connect import Wanted, explained, hold_while, say
from sandlane.cli.reading import client_of, config_of
from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import Config
from sandlane.kube.errors import NotFound
from sandlane.kube.resource import LOCAL_WORKLOADS, SANDBOXES
from sandlane.laptop.connection import Connection
from sandlane.laptop.container import Sight, for_this_machine, read_container, see
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.plan import chosen
from sandlane.laptop.reaching import Reaching, list_services
from sandlane.laptop.registry import Entry, own_folder
from sandlane.laptop.screen import Lines
from sandlane.laptop.services import variables
from sandlane.local.up.guard import die_with_parent

Fail = Callable[[object], NoReturn]
FILES_DIR = "SANDLANE_FILES_DIR"
"""Variable of a program under `run`: where the files of its container are."""
NOT_FOUND = 127
PATIENCE = 5.0
"""Seconds for a program to end after a signal before it is killed."""


class Seen(msgspec.Struct, frozen=True):
    """Whose eyes: a workload's container, for a sandbox (both may be empty for `run`)."""

    sandbox: str = ""
    workload: str = ""
    container: str = ""
    namespace: str = ""
    reach: tuple[str, ...] = ()


def run(
    command: Sequence[str],
    seen: Seen,
    kubeconfig: Path | None,
    data_dir: Path | None,
    *,
    inject_key: bool,
    connect: Wanted | None,
    fail: Fail,
) -> int:
    """Run a program to its end; its exit code."""
    if not command:
        fail("say what to run, after --: for example `sandlane run --workload eta -- python app.py`")
    if inject_key and not seen.sandbox:
        fail("--inject-key needs to know whose key: name the sandbox with --sandbox")
    with explained(fail):
        return asyncio.run(_run(command, seen, config_of(kubeconfig, data_dir), inject_key, connect))
    raise AssertionError("unreachable")


def show_env(seen: Seen, kubeconfig: Path | None, data_dir: Path | None, output: str, *, fail: Fail) -> None:
    """Print the variables of a container."""
    if output not in ("export", "dotenv", "json"):
        fail(f"--output {output}: it must be export, dotenv or json")
    with explained(fail):
        sight = asyncio.run(_see(seen, config_of(kubeconfig, data_dir)))
        print(written(sight.env, output))


def write_files(seen: Seen, kubeconfig: Path | None, data_dir: Path | None, folder: Path | None, *, fail: Fail) -> None:
    """Write the files of a container under a folder; without one, print their paths and sizes."""
    with explained(fail):
        sight = asyncio.run(_see(seen, config_of(kubeconfig, data_dir)))
        if folder is None:
            for path, file in sorted(sight.files.items()):
                print(f"{len(file.content):8} {path}")
            return
        place(sight, folder)
        say(f"{len(sight.files)} files in {folder}")


def written(env: Mapping[str, str], output: str) -> str:
    """Variables as a shell, a dotenv file or JSON take them."""
    if output == "json":
        return msgspec.json.format(msgspec.json.encode(dict(sorted(env.items()))), indent=2).decode()
    head = "export " if output == "export" else ""
    return "\n".join(f"{head}{name}={shlex.quote(value)}" for name, value in sorted(env.items()))


def place(sight: Sight, folder: Path) -> None:
    """Write files under a folder, as if it were the root; they are the user's alone, for they may be secret."""
    for path, file in sight.files.items():
        target = folder / path.lstrip("/")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        opened = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, file.mode & 0o700 | 0o400)
        with os.fdopen(opened, "wb") as out:
            out.write(file.content)


async def _see(seen: Seen, config: Config) -> Sight:
    async with client_of(config) as client:
        namespace = seen.namespace or config.namespace
        workload = await _workload(client, namespace, seen)
        if not workload:
            raise ConnectError("say whose container: --workload NAME, or --sandbox NAME with a local workload")
        sight = see(await read_container(client, namespace, workload, seen.container))
        for problem in sight.problems:
            say(f"note: {problem}")
        return sight


async def _workload(client: Client, namespace: str, seen: Seen) -> str:
    """The workload that is named, or the only one that the sandbox has on laptops; empty when neither says. Raises `ConnectError`."""
    if seen.workload or not seen.sandbox:
        return seen.workload
    known = chosen((await client.list(LOCAL_WORKLOADS, namespace)).items, seen.sandbox, "")
    names = [obj["spec"]["from"]["name"] for obj in known]
    if len(names) > 1:
        raise ConnectError(
            f"sandbox {seen.sandbox} has several local workloads ({', '.join(names)}): say which with --workload"
        )
    return names[0] if names else ""


async def _run(command: Sequence[str], seen: Seen, config: Config, inject_key: bool, connect: Wanted | None) -> int:
    clock, rng = SystemClock(), random.Random()
    namespace = seen.namespace or config.namespace
    code = 0
    async with client_of(config) as client:
        services, note = await list_services(client, namespace, seen.reach)
        workload = await _workload(client, namespace, seen)
        key = await _key(client, namespace, seen.sandbox) if seen.sandbox else ""
        container = await read_container(client, namespace, workload, seen.container) if workload else None
        sight = see(container) if container else Sight()
        for problem in [*([note] if note else []), *sight.problems]:
            say(f"note: {problem}")
        with own_folder("run-") as folder:
            files = folder / "files"
            place(sight, files)
            reaching = Reaching(client, clock, rng, namespace, services, folder, key if inject_key else "")
            reaching.on_failure = lambda text: say(f"not reached: {text}")

            async def program() -> None:
                nonlocal code
                local = variables(services, namespace, reaching.local)
                env = see(container, local).env if container else local  # `$(VAR)` may name a Service's variable
                env = for_this_machine(env) | reaching.proxies() | {FILES_DIR: str(files)}
                if seen.sandbox:
                    env |= {"SANDLANE_SANDBOX": seen.sandbox, "SANDLANE_ROUTING_KEY": key}
                if workload:
                    env["SANDLANE_BASELINE"] = f"{namespace}/Deployment/{workload}"
                code = await _program(command, os.environ | env)

            async with asyncio.TaskGroup() as tasks:
                out = tasks.create_task(reaching.run())
                starting = tasks.create_task(reaching.started.wait())
                await asyncio.wait({out, starting}, return_when=asyncio.FIRST_COMPLETED)
                if connect is None:
                    await program()
                else:
                    await hold_while(client, clock, rng, connect, config, partial(_beside, program))
                out.cancel()
    return code


async def _beside(program: Callable[[], Coroutine[Any, Any, None]], connection: Connection, mine: Entry) -> None:
    """The program, while its tunnel is held: what changes is said on standard error."""
    lines = Lines(connection.state, sys.stderr)

    def changed() -> None:
        lines.changed()
        mine.write(connection.state)

    connection.on_change = changed
    await program()


async def _key(client: Client, namespace: str, sandbox: str) -> str:
    try:
        obj = await client.get(SANDBOXES, sandbox, namespace)
    except NotFound:
        raise ConnectError(f"there is no Sandbox {sandbox} in namespace {namespace}") from None
    return routing_key(obj["metadata"]["uid"], obj["spec"].get("routingKey") or "")


async def _program(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run to the end, in the foreground; its exit code as a shell gives it."""
    parent, loop = os.getpid(), asyncio.get_running_loop()
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=env, preexec_fn=lambda: die_with_parent(parent, signal.SIGTERM)
        )
    except (FileNotFoundError, PermissionError) as error:
        say(f"{command[0]}: {error.strerror}")
        return NOT_FOUND

    def pass_on(number: signal.Signals) -> None:
        if process.returncode is None:
            process.send_signal(number)

    loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal sends it to the program, too
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, pass_on, number)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(PATIENCE):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
    return code if code >= 0 else 128 - code
