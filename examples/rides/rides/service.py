"""What the five services share: an HTTP server, calls to other services that pass the caller's context on,
and an answer that lists each hop's server.

Context (W3C `traceparent`, `tracestate`, `baggage`) is taken from the request and put on every call that is
made for it by OpenTelemetry's propagators. That is all that an application has to do for Sandlane.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opentelemetry import propagate
from opentelemetry.context import Context

Answer = dict[str, Any]
TIMEOUT = 5.0  # seconds for one call


class Call:
    """One request being served: its parameters, the caller's context, and the hops that served parts of it."""

    def __init__(self, name: str, params: dict[str, str], context: Context) -> None:
        self.params = params
        self.context = context
        self.hops: list[Answer] = [
            {
                "service": name,
                "version": os.environ.get("RIDES_VERSION", "1"),
                "sandbox": os.environ.get("SANDLANE_SANDBOX", ""),
                "pod": os.environ.get("POD_NAME", ""),
            }
        ]

    def get(self, service: str, path: str) -> Answer:
        """GET from another service (`$SERVICE_ADDR`, or its Service's variables) with the caller's context."""
        host, port = address_of(service)
        headers: dict[str, str] = {}
        propagate.inject(headers, context=self.context)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ConnectionError(f"{service} answered {response.status}: {body[:200].decode(errors='replace')}")
        answer: Answer = json.loads(body)
        self.hops += answer.pop("hops")
        return answer


def address_of(service: str) -> tuple[str, int]:
    """Host and port of a service: `$<SERVICE>_ADDR` (host:port), else Kubernetes' own Service variables."""
    name = service.upper().replace("-", "_")
    if address := os.environ.get(f"{name}_ADDR"):
        host, _, port = address.rpartition(":")
        return host, int(port)
    return os.environ[f"{name}_SERVICE_HOST"], int(os.environ[f"{name}_SERVICE_PORT"])


def serve(name: str, port: int, handle: Callable[[Call], Answer]) -> None:
    """Serve `GET /` by `handle` on `$POD_IP` (all addresses if unset), and `GET /healthz`, until SIGTERM."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/healthz":
                return self.answer(200, {"status": "ok"})
            carrier = {key.lower(): ",".join(self.headers.get_all(key, [])) for key in self.headers}
            params = {key: values[0] for key, values in parse_qs(url.query).items()}
            call = Call(name, params, propagate.extract(carrier))
            try:
                self.answer(200, handle(call) | {"hops": call.hops})
            except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
                self.answer(502, {"error": f"{name}: {error!r}", "hops": call.hops})

        def answer(self, status: int, body: Answer) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            if self.path != "/healthz":
                print(f"{name}: {format % args}", flush=True)

    address = (os.environ.get("POD_IP", ""), int(os.environ.get("PORT", port)))
    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as error:
        sys.exit(f"{name}: cannot listen on {address[0]}:{address[1]}: {error}")
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{name}: listening on {address[0]}:{address[1]}", flush=True)
    with server:
        server.serve_forever()
