"""A Pod that answers who it is: HTTP/1.1, HTTP/2 and gRPC on one port. Told to end, it goes on for a moment, as a good Pod does."""

from __future__ import annotations

import asyncio
import os
import signal

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError

NAME = f"{os.environ.get('SANDLANE_SANDBOX') or 'baseline'}/{os.environ['WORKLOAD']}"
LINGER = float(os.environ.get("LINGER", "3"))
PREFACE = b"PRI * HTTP/2.0"
ending = False


class Server(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is known yet."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""
        self.h2: H2Connection | None = None
        self.grpc: set[int] = set()

    def data_received(self, data: bytes) -> None:
        """Which protocol it is, then whole requests."""
        if self.h2 is not None:
            self._http2(data)
            return
        self.buffer += data
        if PREFACE.startswith(self.buffer[: len(PREFACE)]):
            if len(self.buffer) >= len(PREFACE):
                self.h2 = H2Connection(H2Configuration(client_side=False, validate_inbound_headers=False))
                self.h2.initiate_connection()
                self._http2(self.buffer)
            return
        while b"\r\n\r\n" in self.buffer:  # requests have no bodies
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            close = ending or b"connection: close" in head.lower()
            body = NAME.encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n%s"
                % (len(body), b"connection: close\r\n" if close else b"", body)
            )
            if close:
                self.transport.close()
                return

    def _http2(self, data: bytes) -> None:
        assert self.h2 is not None
        try:
            events = self.h2.receive_data(data)
        except ProtocolError:
            self.transport.close()
            return
        for event in events:
            if isinstance(event, RequestReceived):
                if dict(event.headers).get(b"content-type", b"").startswith(b"application/grpc"):
                    self.grpc.add(event.stream_id)
            elif isinstance(event, DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self._answer(event.stream_id)
        if ending:
            self.h2.close_connection()
        self.transport.write(self.h2.data_to_send())

    def _answer(self, stream: int) -> None:
        assert self.h2 is not None
        body = NAME.encode()
        if stream in self.grpc:
            self.grpc.discard(stream)
            self.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            self.h2.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body)
            self.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        else:
            self.h2.send_headers(stream, [(":status", "200"), ("content-length", str(len(body)))])
            self.h2.send_data(stream, body, end_stream=True)


async def main() -> None:
    """Serve until told to end, and a moment longer."""
    global ending
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    await loop.create_server(Server, os.environ["POD_IP"], 8080)
    await over.wait()
    ending = True
    await asyncio.sleep(LINGER)


asyncio.run(main())
