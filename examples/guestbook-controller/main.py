"""Runs the guestbook controller: `python main.py` (as $KUBECONFIG, or the Pod's own account, says)."""

from __future__ import annotations

import asyncio
import random

from guestbook import GuestbookController

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.http import HttpTransport
from sandlane.runtime.logging import set_up_logging
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions

OPTIONS = ManagerOptions(
    leader_elect=True,
    leader_election_id="guestbook",
    metrics_bind_address=":8080",
    health_probe_bind_address=":8081",
)


async def main() -> None:
    """Until a signal."""
    set_up_logging("json", "info")
    config, clock, rng = load_config(), SystemClock(), random.SystemRandom()
    client = Client(HttpTransport(config), clock=clock, rng=rng, user_agent="guestbook")
    try:
        manager = Manager(client, clock=clock, rng=rng, options=OPTIONS, name="guestbook", namespace=config.namespace)
        GuestbookController(manager)
        await manager.run(handle_signals=True)
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
