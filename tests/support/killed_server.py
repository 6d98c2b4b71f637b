"""`python -m support.killed_server [KILLS [SEED]]`: kills the API server process again and again while eight clients write.

After each kill the server is started anew and has to hold every write that it had acknowledged, each deleted object
has to be gone, and versions must never go back. `Lost` says what is missing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

WRITERS, NAMES = 8, 5
DEADLINE = 60.0
MOST_WRITES = 150
"""Most writes between two kills."""
CONFIGS = "/api/v1/namespaces/default/configmaps"
MERGE = {"content-type": "application/merge-patch+json"}
BROKEN = (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError)


class Lost(Exception):
    """The server broke its promise."""


@dataclass(frozen=True)
class State:
    """An object as its writer knows it: `value` is None when there is none. `version` is 0 where no answer told it."""

    value: str | None
    version: int = 0


@dataclass
class Ledger:
    """What was acknowledged of each object, and the one write of it that may be under way."""

    known: dict[str, State] = field(default_factory=dict)
    under_way: dict[str, State] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    """The shared object: the latest number of each writer that was acknowledged."""
    highest: int = 0
    acknowledged: Counter[str] = field(default_factory=Counter)
    left: int = 0
    """How many writes are still to be acknowledged before `enough` is set."""
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    def expect(self, writes: int) -> None:
        """Set `enough` after so many more writes."""
        self.left = writes
        self.enough.clear()

    def heard(self, verb: str, version: int) -> None:
        """A write was acknowledged."""
        self.acknowledged[verb] += 1
        self.left -= 1
        if self.left <= 0:
            self.enough.set()
        self.highest = max(self.highest, version)


@dataclass
class Outcome:
    """What happened in all rounds."""

    kills: int
    while_starting: int
    acknowledged: Counter[str]
    unanswered: int
    kept: int
    """How many of the writes without an answer were found done."""
    starts: list[float]


class Server:
    """The process, and requests to it. `python -m support.forked_server` starts it again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starter: asyncio.subprocess.Process | None = None
        self._pid = 0
        self._session: aiohttp.ClientSession | None = None
        self._url = ""

    async def _order(self, text: str, answer: str) -> str:
        """Tell the starter something; what follows `answer` on the line that begins with it."""
        assert self._starter is not None
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        if text:
            self._starter.stdin.write(f"{text}\n".encode())
        async with asyncio.timeout(DEADLINE):
            while line := (await self._starter.stdout.readline()).decode():
                if line.startswith(answer):
                    return line.removeprefix(answer).strip()
        raise Lost(f"no {answer!r} from the server or its starter")

    async def spawn(self) -> None:
        """Start the process."""
        if self._starter is None:
            command = (sys.executable, "-m", "support.forked_server")
            path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
            pipe = asyncio.subprocess.PIPE
            self._starter = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=path)
        order = f"start --data-dir {self._folder} --listen 127.0.0.1:0"
        self._pid = int(await self._order(order, "pid "))

    async def start(self) -> float:
        """Start the process and wait until it serves; the seconds that took."""
        begin = time.perf_counter()
        await self.spawn()
        self._url = await self._order("", "serving at ")
        took = time.perf_counter() - begin
        token = json.loads((self._folder / "kubeconfig").read_text())["users"][0]["user"]["token"]
        context = ssl.create_default_context(cafile=str(self._folder / "pki" / "ca.crt"))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            headers={"authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(DEADLINE),
        )
        return took

    async def kill(self) -> None:
        """kill -9, unless it was."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._pid = 0
            await self._order("reap", "reaped")

    async def close(self) -> None:
        """End everything."""
        await self.forget()
        await self.kill()
        if self._starter is not None:
            assert self._starter.stdin is not None
            self._starter.stdin.close()
            await self._starter.wait()

    async def forget(self) -> None:
        """Close our side of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The answer to a request. Raises one of `BROKEN` when the connection breaks, `Lost` when it is no success."""
        assert self._session is not None
        async with self._session.request(method, self._url + path, json=body, headers=headers) as answer:
            found = await answer.json()
            if answer.status not in (200, 201):
                raise Lost(f"{method} {path}: {answer.status} {found}")
            return found


async def write(server: Server, ledger: Ledger, number: int, rng: random.Random) -> None:
    """One writer: its own objects in turn, and now and then the shared one. Ends when the connection breaks."""
    while True:
        if rng.random() < 0.2:
            wanted = ledger.counters.get(f"w{number}", 0) + 1
            patch = {"data": {f"w{number}": str(wanted)}}
            found = await server.ask("PATCH", f"{CONFIGS}/shared", patch, MERGE)
            ledger.counters[f"w{number}"] = wanted
            ledger.heard("patch", int(found["metadata"]["resourceVersion"]))
            continue
        name = f"c{number}-{rng.randrange(NAMES)}"
        await write_own(server, ledger, name, rng)


async def write_own(server: Server, ledger: Ledger, name: str, rng: random.Random) -> None:
    """Create, replace, patch or delete an object that nobody else writes."""
    known = ledger.known.get(name, State(None))
    value = rng.randbytes(rng.choice((5, 50, 3000))).hex()
    body: dict[str, Any] = {"metadata": {"name": name}, "data": {"value": value}}
    if known.value is None:
        verb, method, path, headers = "create", "POST", CONFIGS, {}
    else:
        verb = rng.choice(("update", "patch", "patch", "delete"))
        method = {"update": "PUT", "patch": "PATCH", "delete": "DELETE"}[verb]
        path, headers = f"{CONFIGS}/{name}", MERGE if verb == "patch" else {}
        if verb == "update" and known.version:
            body["metadata"]["resourceVersion"] = str(known.version)
        if verb == "delete":
            body, value = {}, None  # type: ignore[assignment]
    ledger.under_way[name] = State(value)
    found = await server.ask(method, path, body or None, headers)
    version = int(found["metadata"].get("resourceVersion") or 0)
    del ledger.under_way[name]
    ledger.known[name] = State(value, version)
    ledger.heard(verb, version)


async def verify(server: Server, ledger: Ledger) -> int:
    """Compare what the server has with what it acknowledged; how many unanswered writes were done. Raises `Lost`."""
    listed = await server.ask("GET", CONFIGS)
    if int(listed["metadata"]["resourceVersion"]) < ledger.highest:
        raise Lost(f"the list is at {listed['metadata']['resourceVersion']}, {ledger.highest} was acknowledged")
    there = {item["metadata"]["name"]: item for item in listed["items"]}
    done = 0
    for number in range(WRITERS):
        name = f"w{number}"
        count = int((there["shared"].get("data") or {}).get(name, 0))
        if count - ledger.counters.get(name, 0) not in (0, 1):
            raise Lost(f"shared: {name} is {count}, {ledger.counters.get(name, 0)} was acknowledged")
        done += count - ledger.counters.get(name, 0)
        ledger.counters[name] = count
    for name in sorted(ledger.known.keys() | ledger.under_way.keys()):
        known, item = ledger.known.get(name, State(None)), there.pop(name, None)
        value = None if item is None else item["data"]["value"]
        version = 0 if item is None else int(item["metadata"]["resourceVersion"])
        wanted = ledger.under_way.get(name)
        if value == known.value and version >= known.version:
            if version != known.version and known.version:
                raise Lost(f"{name} was acknowledged at {known.version} and is at {version}")
        elif wanted is None or value != wanted.value or (item is not None and version <= known.version):
            raise Lost(f"{name}: acknowledged {known}, under way {wanted}, found {value!r} at {version}")
        else:
            done += 1
        ledger.known[name] = State(value, version)
        ledger.highest = max(ledger.highest, version)
    if others := there.keys() - {"shared", "kube-root-ca.crt"}:
        raise Lost(f"nobody made {sorted(others)}")
    ledger.under_way.clear()
    return done


async def round_of_writes(server: Server, ledger: Ledger, rng: random.Random, writes: int) -> int:
    """Let all write, kill the server some milliseconds after so many acknowledged writes; how many writes had no
    answer then. Raises `Lost`."""

    async def writer(number: int) -> None:
        with suppress(*BROKEN):
            await write(server, ledger, number, random.Random(rng.getrandbits(64)))
            return
        if not killed:
            raise Lost("the server broke a connection before it was killed")

    killed = False
    ledger.expect(writes)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        for number in range(WRITERS):
            tasks.create_task(writer(number))
        await ledger.enough.wait()
        await asyncio.sleep(rng.random() * 0.01)
        killed = True
        await server.kill()
    return len(ledger.under_way)


async def torment(folder: Path, kills: int, seed: int) -> Outcome:
    """All rounds. A tenth of the kills hit the server while it starts. Raises `Lost`."""
    rng, server, ledger = random.Random(seed), Server(folder), Ledger()
    outcome = Outcome(0, 0, ledger.acknowledged, 0, 0, [])
    try:
        while True:
            outcome.starts.append(await server.start())
            if outcome.kills == 0:
                await server.ask("POST", CONFIGS, {"metadata": {"name": "shared"}})
            outcome.kept += await verify(server, ledger)
            if outcome.kills >= kills:
                return outcome
            outcome.unanswered += await round_of_writes(server, ledger, rng, int(rng.random() ** 2 * MOST_WRITES))
            outcome.kills += 1
            await server.forget()
            if rng.random() < 0.1 and outcome.kills < kills:
                await server.spawn()
                await asyncio.sleep(rng.random() * 0.3)
                await server.kill()
                outcome.kills += 1
                outcome.while_starting += 1
    finally:
        await server.close()


def main() -> None:
    """Run as a program."""
    kills, seed = ([int(text) for text in sys.argv[1:]] + [200, 1][len(sys.argv) - 1 :])[:2]
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(torment(Path(folder), kills, seed)))


if __name__ == "__main__":
    main()
