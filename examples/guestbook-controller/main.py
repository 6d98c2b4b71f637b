"""Runs the guestbook controller: `python main.py --help` tells its flags; each is a field of the `--config` file too."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from guestbook import GuestbookController

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import ConfigError, load_config
from sandlane.kube.http import HttpTransport
from sandlane.runtime.logging import set_up_logging
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions, OptionsError, parse_options

DEFAULTS = ManagerOptions(
    leader_elect=True,
    leader_election_id="guestbook",
    metrics_bind_address=":8080",
    health_probe_bind_address=":8081",
)


async def main(options: ManagerOptions) -> None:
    """Until a signal."""
    set_up_logging(options.log_format, options.log_level)
    config, clock, rng = (
        load_config(Path(options.kubeconfig) if options.kubeconfig else None),
        SystemClock(),
        random.SystemRandom(),
    )
    transport = HttpTransport(config)
    client = Client(transport, clock=clock, rng=rng, qps=options.kube_api_qps, burst=options.kube_api_burst)
    try:
        manager = Manager(client, clock=clock, rng=rng, options=options, name="guestbook", namespace=config.namespace)
        GuestbookController(manager)
        await manager.run(handle_signals=True)
    finally:
        await client.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(parse_options(sys.argv[1:], DEFAULTS, prog="guestbook")))
    except (OptionsError, ConfigError) as error:
        sys.exit(str(error))
