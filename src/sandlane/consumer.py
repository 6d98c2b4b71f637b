"""For programs that read messages: whether a message with a routing key is meant for this process or for another one.

    consumer = Consumer()
    for message in queue:
        if consumer.should_process(message.headers):
            handle(message)

Who the process is comes from its environment: `SANDLANE_BASELINE` (`NAMESPACE/KIND/NAME`; in the baseline's manifest, every
fork gets it by itself) and `SANDLANE_SANDBOX` (forks only). The rules come from the routes API (`SANDLANE_ROUTES`, by default
the Service of the manager) by a watch in a daemon thread, which ends with `close`. Needs the standard library and msgspec only.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit

from sandlane.routing.key import KeySources, routing_key

log = logging.getLogger(__name__)

ROUTES = "http://sandlane-routes.sandlane-system.svc:7778"
SILENCE = 30.0
"""Seconds without a line after which a connection is taken for dead; the server speaks every ten."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0

Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None
"""As brokers' clients give them: a mapping or pairs; names and values as str or bytes, values also as lists of them."""


class NotSynced(RuntimeError):
    """The routes are not known yet, and the caller wants no guess."""


class Consumer:
    """Decides for one consumer of messages. Safe to use from several threads.

    `patience`: seconds from now for which answers about messages with a key wait for the first routes. Then, until the
    routes are there, the answer is what it would be without the manager: the baseline takes every message, a fork those with
    its sandbox's own key (so a message may be processed twice, but never by nobody). With `strict`, `NotSynced` is raised
    instead. Once the routes were known, the last ones count while the manager is away.
    """

    def __init__(
        self,
        *,
        sandbox: str | None = None,
        baseline: str | None = None,
        url: str = "",
        patience: float = 10.0,
        strict: bool = False,
        token_file: str = "",
        sources: KeySources | None = None,
    ) -> None:
        env = os.environ
        self.sandbox = env.get("SANDLANE_SANDBOX", "") if sandbox is None else sandbox
        self.baseline = env.get("SANDLANE_BASELINE", "") if baseline is None else baseline
        self._own_key = env.get("SANDLANE_ROUTING_KEY", "")
        self._url = url or env.get("SANDLANE_ROUTES", "") or ROUTES
        self._token_file = token_file or env.get("SANDLANE_ROUTES_TOKEN_FILE", "")
        self._sources = sources
        self._strict = strict
        self._deadline = time.monotonic() + patience
        self._rules: dict[str, str] = {}  # key -> sandbox
        self._synced = threading.Event()
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        if not self.baseline:
            log.warning("SANDLANE_BASELINE is not set: every message is processed here")
            return
        if self.baseline.count("/") != 2:
            raise ValueError(f"SANDLANE_BASELINE={self.baseline!r}: it must be NAMESPACE/KIND/NAME")
        if urlsplit(self._url).scheme not in ("http", "https"):
            raise ValueError(f"SANDLANE_ROUTES={self._url!r}: it must be a URL with http or https")
        threading.Thread(target=self._follow, name="sandlane-consumer", daemon=True).start()

    # -- answers ----------------------------------------------------------------------------------------

    def should_process(self, headers: Headers) -> bool:
        """Whether a message with these headers is meant for this process. Raises `NotSynced` (with `strict`)."""
        if not self.baseline:
            return True
        key = self.key(headers)
        if key is None:
            return not self.sandbox
        if not self._synced.wait(max(0.0, self._deadline - time.monotonic())):
            if self._strict:
                raise NotSynced(f"no routes from {self._url} yet: do not acknowledge the message")
            return key == self._own_key if self.sandbox else True
        sandbox = self._rules.get(key, "")
        return sandbox == self.sandbox

    async def should_process_async(self, headers: Headers) -> bool:
        """The same without blocking the event loop."""
        if self.synced or self.key(headers) is None:
            return self.should_process(headers)
        return await asyncio.to_thread(self.should_process, headers)

    def key(self, headers: Headers) -> str | None:
        """The routing key that a message carries."""
        return routing_key(_pairs(headers), sources=self._sources)

    def group(self, name: str) -> str:
        """A queue group, consumer group or subscription of one's own: a fork must get every message, too."""
        return f"{name}-{self.sandbox}" if self.sandbox else name

    @property
    def synced(self) -> bool:
        """Whether the routes are known (perhaps not the newest, while the manager is away)."""
        return self._synced.is_set()

    def wait_synced(self, timeout: float | None = None) -> bool:
        """Wait for the first routes; whether they are there."""
        return self._synced.wait(timeout)

    def close(self) -> None:
        """Stop watching. Answers go on from the last routes."""
        self._closed.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the watch --------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Watch, and watch again when the connection breaks, until closed."""
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            try:
                if self._watch():
                    pause = FIRST_PAUSE
                problem = "the connection was closed"
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = str(error) or type(error).__name__
            if self._closed.is_set():
                return
            log.warning("routes from %s: %s; again in about %.1f s", self._url, problem, pause)
            self._closed.wait(pause * (0.5 + os.urandom(1)[0] / 255))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _watch(self) -> bool:
        """One connection until it ends; whether it got as far as SYNCED. Raises `OSError`, `HTTPException`, `ValueError`."""
        place = urlsplit(self._url)
        assert place.hostname is not None
        secure = place.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(place.hostname, place.port, timeout=SILENCE)
        try:
            connection.connect()
            self._socket = connection.sock
            if self._closed.is_set():
                return False
            namespace, workload, name = self.baseline.split("/")
            wanted = {"namespace": namespace, "kind": workload, "name": name, "watch": "true"}
            headers = {"Accept": "application/x-ndjson"}
            if self._token_file:
                headers["Authorization"] = f"Bearer {Path(self._token_file).read_text().strip()}"
            connection.request("GET", f"{place.path.rstrip('/')}/v1/rules?{urlencode(wanted)}", headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                raise OSError(f"status {response.status}: {response.read(300).decode(errors='replace')}")
            return self._read(response)
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bool:
        """Take the lines in. The rules of before count until the new ones are complete."""
        rules: dict[str, str] = {}
        synced = False
        while line := response.readline():
            event = json.loads(line)
            op, rule = event["op"], event.get("rule") or {}
            if op in ("ADD", "REPLACE"):
                rules[rule["key"]] = rule["sandbox"]
            elif op == "REMOVE":
                rules.pop(rule["key"], None)
            elif op == "SYNCED":
                self._rules, synced = rules, True
                self._synced.set()
                log.info("routes from %s: %d keys", self._url, len(rules))
        return synced


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    given = headers.items() if isinstance(headers, Mapping) else headers or ()
    found = []
    for name, value in given:
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if each is not None:
                found.append((_text(name), _text(each)))
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


_default: Consumer | None = None
_making = threading.Lock()


def should_process(headers: Headers) -> bool:
    """Whether a message is meant for this process, asked of one `Consumer` that is made at the first call."""
    global _default
    with _making:
        if _default is None:
            _default = Consumer()
    return _default.should_process(headers)
