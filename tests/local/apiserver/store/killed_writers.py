"""`python killed_writers.py FOLDER ROUNDS SEED`: eight writers are killed again and again; every acknowledged write is looked for.

Prints the number of acknowledged writes; exits with a message when one is lost.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sys
from pathlib import Path

from sandlane.kube.resource import Key
from sandlane.local.apiserver.store.journal import Journal
from sandlane.local.apiserver.store.objects import ObjectStore

CONFIGS = ("", "configmaps")
WRITERS, KEYS = 8, 5


async def write(store: ObjectStore, writer: int, rng: random.Random, out: int) -> None:
    """Write and delete this writer's objects for ever; say each write that was acknowledged."""
    while True:
        name = f"{writer}-{rng.randrange(KEYS)}"
        key = Key("d", name)
        old = store.get(CONFIGS, key)
        if old is not None and rng.random() < 0.2:
            gone = await store.remove(CONFIGS, key, lambda version: b"", old.version)
            os.write(out, f"{name} {gone.version} -\n".encode())
            continue
        body = rng.randbytes(rng.randrange(10, 3000)).hex()
        made = await store.put(CONFIGS, key, lambda v, body=body: f"{v} {body}".encode(), old.version if old else None)
        os.write(out, f"{name} {made.version} +\n".encode())


async def run(path: Path, seed: int, out: int) -> None:
    """All writers on one store."""
    store = ObjectStore(Journal(path))
    async with asyncio.TaskGroup() as tasks:
        for writer in range(WRITERS):
            tasks.create_task(write(store, writer, random.Random(seed * 100 + writer), out))


def killed_round(path: Path, seed: int, rng: random.Random) -> list[str]:
    """Let writers run in a process of their own, kill it at any moment; what it said."""
    said, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(said)
        try:
            asyncio.run(run(path, seed, out))
        finally:
            os._exit(1)
    os.close(out)
    ready, _, _ = select.select([said], [], [], 20)
    if not ready:
        sys.exit("nothing was acknowledged within 20 s")
    select.select([], [], [], rng.random() * 0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(said, "rb") as pipe:
        return pipe.read().decode().splitlines()


def main() -> None:
    """Rounds of killing and looking."""
    path, rounds, rng = Path(sys.argv[1]) / "state.db", int(sys.argv[2]), random.Random(int(sys.argv[3]))
    there: dict[str, int] = {}
    count = 0
    for number in range(rounds):
        expected, highest = dict(there), 0
        for line in killed_round(path, number, rng):
            name, version, sign = line.split()
            expected.pop(name, None)
            if sign == "+":
                expected[name] = int(version)
            highest = max(highest, int(version))
            count += 1
        journal = Journal(path)
        there = {row.name: int((row.data or b"").split()[0]) for row in journal.load()}
        if journal.last_version() < highest:
            sys.exit(f"round {number}: the file ends at version {journal.last_version()}, {highest} was acknowledged")
        journal.close()
        others = [name for name in expected.keys() | there.keys() if expected.get(name) != there.get(name)]
        for name in others:
            if name in expected and name in there and there[name] < expected[name]:
                sys.exit(f"round {number}: {name} at {expected[name]} was acknowledged, {there[name]} is there")
        writers = [name.partition("-")[0] for name in others]
        if len(writers) != len(set(writers)):  # each had at most one write that was not acknowledged yet
            sys.exit(f"round {number}: acknowledged {expected}, found {there}")
    print(count)


if __name__ == "__main__":
    main()
