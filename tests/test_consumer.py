"""Consumers of messages: who processes what, before the routes are known, and while the manager is away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sandlane.consumer import Consumer, NotSynced
from support.feed import feeding
from support.routed import sandbox
from support.workloads import DEADLINE

ETA = "n/Deployment/eta"
KEY_A = {"baggage": "x=y,sandlane-routing-key=key-a"}


class Script:
    """An HTTP server that sends what it is told, line by line."""

    def __init__(self, *lines: str) -> None:
        script = self
        self.lines, self.queries, self.tokens = list(lines), list[str](), list[str | None]()
        self.more, self.over = threading.Condition(), False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script.queries.append(self.path)
                script.tokens.append(self.headers.get("authorization"))
                self.send_response(200)
                self.end_headers()
                sent = 0
                while not script.over:
                    for line in script.after(sent):
                        self.wfile.write(line.encode() + b"\n")
                        sent += 1

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def after(self, count: int) -> list[str]:
        """The lines after the first `count`, once there are some."""
        with self.more:
            self.more.wait_for(lambda: len(self.lines) > count or self.over, DEADLINE)
            return self.lines[count:]

    def say(self, line: str) -> None:
        """One more line."""
        with self.more:
            self.lines.append(line)
            self.more.notify_all()

    def end(self) -> None:
        """Close everything."""
        with self.more:
            self.over = True
            self.more.notify_all()
        self.server.shutdown()
        self.server.server_close()


def rule(op: str, key: str, sandbox: str) -> str:
    """A line about a rule."""
    return f'{{"op":"{op}","digest":"","rule":{{"key":"{key}","sandbox":"{sandbox}"}}}}'


SYNCED = '{"op":"SYNCED","digest":""}'


@pytest.fixture
def script() -> Iterator[Script]:
    """A server that knows one rule."""
    made = Script(rule("ADD", "key-a", "a"), SYNCED)
    yield made
    made.end()


def until(check: Any, what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("own", "headers", "processed"),
    [
        ("", {}, True),
        ("", None, True),
        ("", KEY_A, False),
        ("", {"baggage": "sandlane-routing-key=unknown"}, True),
        ("a", {}, False),
        ("a", KEY_A, True),
        ("a", {"baggage": "sandlane-routing-key=unknown"}, False),
        ("b", KEY_A, False),
        ("a", [("Baggage", b"sandlane-routing-key=key-a")], True),
        ("a", {"baggage": ["x=y", "sandlane-routing-key=key-a"]}, True),
        ("", {"tracestate": "sandlane-routing-key=key-a"}, False),
    ],
)
def test_who_processes_what(script: Script, own: str, headers: Any, processed: bool) -> None:
    """The baseline takes what no fork of it stands in for, a fork its keys and nothing else."""
    with Consumer(sandbox=own, baseline=ETA, url=script.url) as consumer:
        assert consumer.should_process(headers) is processed
        assert asyncio.run(consumer.should_process_async(headers)) is processed


def test_it_asks_for_its_own_rules(script: Script, tmp_path: Any) -> None:
    """The watch is about one workload, with the token of the file."""
    (tmp_path / "token").write_text("secret\n")
    with Consumer(baseline=ETA, url=f"{script.url}/", token_file=str(tmp_path / "token")) as consumer:
        assert consumer.wait_synced(DEADLINE)
    assert script.queries[0] == "/v1/rules?namespace=n&kind=Deployment&name=eta&watch=true"
    assert script.tokens[0] == "Bearer secret"
    assert consumer.group("orders") == "orders"
    assert Consumer(sandbox="a", baseline="").group("orders") == "orders-a"


def test_changes(script: Script) -> None:
    """A rule that comes or goes counts at once."""
    with Consumer(sandbox="", baseline=ETA, url=script.url) as consumer:
        assert not consumer.should_process(KEY_A)
        script.say(rule("REMOVE", "key-a", "a"))
        until(lambda: consumer.should_process(KEY_A), "the rule is gone")
        script.say(rule("ADD", "key-b", "b"))
        until(lambda: not consumer.should_process({"baggage": "sandlane-routing-key=key-b"}), "the rule is there")


def test_the_manager_goes_away(script: Script) -> None:
    """The last rules count while nobody answers; a new list replaces them only when it is complete."""
    with Consumer(sandbox="a", baseline=ETA, url=script.url) as consumer:
        assert consumer.wait_synced(DEADLINE)
        script.end()
        until(lambda: consumer._socket is None or not script.thread.is_alive(), "the server has ended")
        assert consumer.should_process(KEY_A)
        other = Script(rule("ADD", "key-c", "a"))
        try:
            consumer._url = other.url
            until(lambda: other.queries, "it connects again")
            assert consumer.should_process(KEY_A)
            other.say(SYNCED)
            until(lambda: not consumer.should_process(KEY_A), "the new rules count")
            assert consumer.should_process({"baggage": "sandlane-routing-key=key-c"})
        finally:
            other.end()


def test_before_the_routes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key the answer is at once; with one it waits, then is as without the manager, or an error."""
    monkeypatch.setenv("SANDLANE_ROUTING_KEY", "key-a")
    nobody = "http://127.0.0.1:9"
    with Consumer(sandbox="", baseline=ETA, url=nobody, patience=60) as consumer:
        assert consumer.should_process({})
        assert not consumer.synced
    for own, key, processed in (("", "key-a", True), ("a", "key-a", True), ("a", "key-b", False)):
        with Consumer(sandbox=own, baseline=ETA, url=nobody, patience=0.01) as consumer:
            assert consumer.should_process({"baggage": f"sandlane-routing-key={key}"}) is processed
    with Consumer(sandbox="", baseline=ETA, url=nobody, patience=0.01, strict=True) as consumer:
        assert consumer.should_process({})
        with pytest.raises(NotSynced, match="do not acknowledge"):
            consumer.should_process(KEY_A)


def test_who_am_i() -> None:
    """Without a baseline everything is processed; a baseline or URL that is none is an error."""
    assert Consumer(sandbox="", baseline="").should_process(KEY_A)
    with pytest.raises(ValueError, match="must be NAMESPACE/KIND/NAME"):
        Consumer(baseline="eta")
    with pytest.raises(ValueError, match="http or https"):
        Consumer(baseline=ETA, url="sandlane-routes:7778")


async def test_with_the_real_server() -> None:
    """The routes API and its consumer understand each other."""
    from contextlib import AsyncExitStack

    from sandlane.routesapi.http_server import routes_app
    from sandlane.runtime.health import serve

    async with feeding(*sandbox("a")) as fed, AsyncExitStack() as stack:
        host, port = await serve(stack, routes_app(fed.feed), "127.0.0.1:0")
        with Consumer(sandbox="a", baseline=ETA, url=f"http://{host}:{port}") as consumer:
            assert await consumer.should_process_async(KEY_A)
            await fed.delete("Sandbox", "a")
            async with asyncio.timeout(DEADLINE):
                while await consumer.should_process_async(KEY_A):
                    await asyncio.sleep(0.01)


def test_it_is_light() -> None:
    """A consumer needs nothing but the standard library and msgspec."""
    code = (
        "import sys, sandlane.consumer\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'aiohttp', 'grpc', 'google', 'structlog', 'yaml'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
