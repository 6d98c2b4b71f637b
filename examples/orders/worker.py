"""A consumer of messages: takes orders from NATS and answers with a price, if they are meant for it.

The baseline and each sandbox's fork read the same subject, each with a queue group of its own, so that every message reaches
one process of each; `sandlane.consumer` says which of them is to process it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal

import nats
from nats.aio.msg import Msg

from sandlane.consumer import Consumer

PRICE = {"1": 100, "2": 80}[os.environ.get("ORDERS_VERSION", "1")]
SUBJECT = "orders"


def nats_url() -> str:
    """`$NATS_URL`, else the Service's variables."""
    env = os.environ
    return env.get("NATS_URL") or f"nats://{env['NATS_SERVICE_HOST']}:{env['NATS_SERVICE_PORT']}"


async def main() -> None:
    """Read until SIGTERM."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    consumer = Consumer()
    who = consumer.sandbox or "baseline"

    async def handle(message: Msg) -> None:
        if not await consumer.should_process_async(message.headers):
            return
        order = json.loads(message.data)
        print(f"{who}: order {order['number']}", flush=True)
        await message.respond(json.dumps({"by": who, "price": PRICE * order["count"]}).encode())

    broker = await nats.connect(nats_url(), max_reconnect_attempts=-1)
    await broker.subscribe(SUBJECT, queue=consumer.group("workers"), cb=handle)
    await broker.flush()
    print(f"{who}: ready", flush=True)
    await over.wait()
    await broker.drain()
    consumer.close()


if __name__ == "__main__":
    asyncio.run(main())
