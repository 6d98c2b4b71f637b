"""The embedded API server: durable creates, a long list, a fan-out to many watches, memory, start."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.report import Table
from sandlane.kube.clock import SystemClock
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.answers import StreamResponse
from sandlane.local.apiserver.server import ApiServer
from sandlane.local.apiserver.store.journal import Journal
from sandlane.local.apiserver.store.objects import ObjectStore

OBJECTS, WRITERS, WATCHES, STARTS = 10_000, 64, 1_000, 5
PATH = "/api/v1/namespaces/default/configmaps"
JSON = {"content-type": "application/json"}


def body(index: int) -> bytes:
    """A small ConfigMap."""
    return msgspec.json.encode(
        {"metadata": {"name": f"c-{index:05}", "labels": {"app": "bench"}}, "data": {"key": "value", "n": str(index)}}
    )


def run() -> list[Table]:
    """All figures."""
    rows = asyncio.run(_in_process())
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as url:
        rows += asyncio.run(_over_https(Path(folder), url))
    rows.append(_start())
    return [
        Table(
            "apiserver",
            "The embedded API server",
            ("figure", "measured", "limit"),
            tuple(rows),
            f"{OBJECTS:,} small ConfigMaps, {WRITERS} writers at a time, each write acknowledged after its commit "
            "(SQLite, synchronous=FULL). Over HTTPS the client shares the machine's cores with the server.",
        )
    ]


async def _in_process() -> list[tuple[str, str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(Journal(Path(folder) / "state.db"))
        server = ApiServer(store, clock=SystemClock(), rng=random.SystemRandom())
        await server.prepare()
        seconds = await _create(server)
        listing = statistics.median([await _list(server) for _ in range(5)])
        fan_out = statistics.median([await _fan_out(server, index) for index in range(5)])
        store.close()
        memory = _memory(Path(folder) / "state.db")
    return [
        ("durable creates, server side", f"{OBJECTS / seconds:,.0f} /s", "2,000 /s"),
        (f"LIST of {OBJECTS:,}, server side", f"{listing:.2f} s", "0.5 s"),
        (f"one change to {WATCHES:,} watches, server side", f"{fan_out * 1000:.0f} ms", "200 ms"),
        ("memory of a stored object beyond its JSON", f"{memory / 1024:.2f} KB", "6 KB"),
    ]


async def _create(server: ApiServer) -> float:
    numbers = iter(range(OBJECTS))

    async def writer() -> None:
        for index in numbers:
            answer = await server.handle(Request("POST", PATH, (), JSON, body(index)))
            assert answer.status == 201, answer

    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(writer())
    return time.perf_counter() - start


async def _list(server: ApiServer) -> float:
    start = time.perf_counter()
    answer = await server.handle(Request("GET", PATH))
    took = time.perf_counter() - start
    assert isinstance(answer, Response)
    assert len(json.loads(answer.body)["items"]) >= OBJECTS
    return took


async def _fan_out(server: ApiServer, number: int) -> float:
    query = (("watch", "true"), ("resourceVersion", str(server.store.version)))
    streams = [await server.handle(Request("GET", PATH, query)) for _ in range(WATCHES)]

    async def first(stream: Any) -> float:
        assert isinstance(stream, StreamResponse)
        async for _ in stream.lines:
            took = time.perf_counter()
            await stream.lines.aclose()  # type: ignore[attr-defined]
            return took
        raise AssertionError("the watch ended")

    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(first(stream)) for stream in streams]
        await asyncio.sleep(0.2)
        start = time.perf_counter()
        answer = await server.handle(Request("POST", PATH, (), JSON, body(OBJECTS + number)))
        assert answer.status == 201
    return max(task.result() for task in waiting) - start


def _memory(path: Path) -> float:
    """Bytes of memory that the objects take in a store that reads them from its file, beyond their JSON, for each."""
    gc.collect()
    tracemalloc.start()
    store = ObjectStore(Journal(path))
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    kept = store.list(("", "configmaps"))
    size = sum(len(stored.data) for _, stored in kept)
    store.close()
    return (taken - size) / len(kept)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """A server as a process of its own; its URL."""
    options = [sys.executable, "-m", "sandlane.local.apiserver", "--data-dir", str(folder), "--listen", "127.0.0.1:0"]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(options, stdout=subprocess.PIPE, text=True, env=kept) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


async def _over_https(folder: Path, url: str) -> list[tuple[str, str, str]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    token = json.loads((folder / "kubeconfig").read_text())["users"][0]["user"]["token"]
    context = ssl.create_default_context(cafile=str(folder / "pki" / "ca.crt"))
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    numbers = iter(range(OBJECTS // 2))
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {token}"}) as session:

        async def writer() -> None:
            for index in numbers:
                async with session.post(url + PATH, data=body(index), headers=JSON) as answer:
                    assert answer.status == 201

        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(writer())
        creates = OBJECTS // 2 / (time.perf_counter() - start)
        fan_out = await _https_fan_out(session, url)
    return [
        ("durable creates over HTTPS", f"{creates:,.0f} /s", ""),
        (f"one change to {WATCHES:,} watches over HTTPS, last one heard", f"{fan_out * 1000:.0f} ms", ""),
    ]


async def _https_fan_out(session: aiohttp.ClientSession, url: str) -> float:
    async with session.get(url + PATH + "?limit=1") as answer:
        version = (await answer.json())["metadata"]["resourceVersion"]
    heard: list[float] = []
    opened = asyncio.Semaphore(0)

    async def watch() -> None:
        query = {"watch": "true", "resourceVersion": version}
        async with session.get(url + PATH, params=query, timeout=aiohttp.ClientTimeout(120)) as answer:
            opened.release()
            await answer.content.readline()
            heard.append(time.perf_counter())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WATCHES):
            tasks.create_task(watch())
        for _ in range(WATCHES):
            await opened.acquire()
        start = time.perf_counter()
        async with session.post(url + PATH, data=body(OBJECTS * 2), headers=JSON) as answer:
            assert answer.status == 201
    return max(heard) - start


def _start() -> tuple[str, str, str]:
    """With compiled modules, as an installed package has them: the process before this one has compiled them."""
    times = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            with _served(Path(folder)):
                times.append(time.perf_counter() - start)
    return ("start to serving, new data directory", f"{statistics.median(times):.2f} s", "0.7 s")
