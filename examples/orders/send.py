"""Send one order and print who processed it: `python send.py [--key ROUTING_KEY] [--count N] NATS_URL`."""

from __future__ import annotations

import argparse
import asyncio
import json

import nats


async def send(url: str, key: str, count: int) -> dict[str, object]:
    """The answer to one order. Raises `nats.errors.Error` when nobody answers."""
    broker = await nats.connect(url, connect_timeout=5)
    try:
        # OpenTelemetry's propagators write this header for an application that uses them.
        headers = {"baggage": f"sandlane-routing-key={key}"} if key else None
        order = json.dumps({"number": 1, "count": count}).encode()
        answer = await broker.request("orders", order, timeout=5, headers=headers)
        told: dict[str, object] = json.loads(answer.data)
        return told
    finally:
        await broker.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="for example nats://127.16.32.5:4222")
    parser.add_argument("--key", default="", help="a sandbox's routing key")
    parser.add_argument("--count", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(send(options.url, options.key, options.count))))
