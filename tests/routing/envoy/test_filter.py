"""A real router and Python find the same routing key in the same request."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from sandlane.routing.envoy.listeners import DoorOptions
from sandlane.routing.envoy.routes import DEBUG_HEADER, SERVED_BY
from sandlane.routing.key import KeySources, routing_key
from support.router import router, sandbox, service
from support.service_proxy import until

SOURCES = KeySources(("sandlane-routing-key", "sd-routing-key"), ("X-Key", "x-other-key"), "key")
KEYS = ("a", "b-1", "c" * 40, "0")
REQUESTS = int(os.environ.get("SANDLANE_FUZZ", "300"))
Headers = list[tuple[str, str]]


def some_text(rng: random.Random) -> str:
    """A key as it may be written, or something like one."""
    key = rng.choice([*KEYS, "nobody", "A", "a b", "c" * 41, "ä", "a|b", "", "a=b", '"a"'])
    kind = rng.randrange(6)
    if kind == 0:
        return "".join(f"%{ord(each):02x}" if rng.random() < 0.5 else each for each in key)
    return key + rng.choice(["%", "%4", "%zz", "+", "%00"]) if kind == 1 else key


def some_member(rng: random.Random) -> str:
    """A list member: the key's, one whose name ends or begins alike, or another."""
    names = ["sandlane-routing-key", "sd-routing-key", "sandlane-routing-ke", "x-sd-routing-key", "sd-routing-key-2"]
    name = rng.choice([*names, *names[:2], "x", "", "SD-Routing-Key", "%73d-routing-key"])
    space = [rng.choice(["", "", " ", "\t", " \t "]) for _ in range(4)]
    equals = rng.choice(["=", "=", "=", "=", "", "=="])
    properties = rng.choice(["", "", ";p", " ; p=1;q=sandlane-routing-key=a", ";"])
    return f"{space[0]}{name}{space[1]}{equals}{space[2]}{some_text(rng)}{properties}{space[3]}"


def some_request(rng: random.Random) -> tuple[str, Headers]:
    """A path and headers, with keys in any of the places where they may be, repeated or not."""
    headers: Headers = []
    for _ in range(rng.randrange(4)):
        name = rng.choice(["baggage", "Baggage", "tracestate", "X-Key", "x-key", "X-Other-Key", "x-keys", "y"])
        if name.lower() in ("baggage", "tracestate"):
            headers.append((name, ",".join(some_member(rng) for _ in range(rng.randrange(4)))))
        else:
            headers.append((name, rng.choice(["", " ", "\t"]) + some_text(rng)))
    pairs = [
        f"{rng.choice(['key', 'key', 'xkey', 'Key', 'k'])}{rng.choice(['=', '=', ''])}{some_text(rng)}"
        for _ in range(2)
    ]
    query = "&".join(pair.replace(" ", "+").replace('"', "") for pair in pairs if pair.isascii())
    return rng.choice(["/", f"/?{query}", f"/a/b?{query}", "/?"]), headers


@pytest.mark.parametrize("sources", [SOURCES, KeySources()], ids=["everywhere", "usual"])
async def test_the_router_finds_the_key_that_python_finds(tmp_path: Path, sources: KeySources) -> None:
    """Whatever a request carries wherever: it is served by the fork of the key that `routing_key` gives, or by the baseline.

    Who does not ask is not told who served. The router's log has a line for those that forks served, and none for the baseline's, as
    it was asked to.
    """
    rng = random.Random(os.environ.get("SANDLANE_SEED", "keys"))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 204 No Content\r\nfrom: %d\r\n\r\n" % writer.get_extra_info("sockname")[1])
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async with (
        await asyncio.start_server(talk, "127.0.0.1", 0) as server,
        await asyncio.start_server(talk, "127.0.0.1", 0) as fork,
        router(tmp_path, DoorOptions(sources, "overrides")) as made,
    ):
        at = server.sockets[0].getsockname()
        objects = service("app", 20001, at)
        for number, key in enumerate(KEYS):
            objects += sandbox(f"s{number}", "app", fork.sockets[0].getsockname(), key=key)
        await made.serve(objects)
        reader, writer = await asyncio.open_connection(made.host, 20001)
        found = set()
        ports = {False: at[1], True: fork.sockets[0].getsockname()[1]}
        for number in range(REQUESTS):
            path, headers = some_request(rng)
            asking = [f"{DEBUG_HEADER}: 1"] if number % 3 else []
            lines = [f"GET {path} HTTP/1.1", "Host: x", *asking, *(f"{n}: {v}" for n, v in headers), "", ""]
            writer.write("\r\n".join(lines).encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            key = routing_key(headers, path, sources)
            name = f"s{KEYS.index(key)}/app-s{KEYS.index(key)}" if key in KEYS else "baseline"
            assert f"from: {ports[key in KEYS]}\r\n" in answer, (path, headers, key, answer)
            assert (f"{SERVED_BY}: {name}\r\n" in answer) == bool(asking), (path, headers, key, answer)
            found.add(name)
        writer.close()
        await writer.wait_closed()
        assert len(found) == len(KEYS) + 1
        for name in found - {"baseline"}:
            await until(lambda name=name: f"door=n/app:80 served-by={name} to=127.0.0.1" in made.log.read_text(), name)
        assert "served-by=baseline" not in made.log.read_text()
