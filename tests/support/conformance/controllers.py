"""`python -m support.conformance.controllers KUBECONFIG`: the controllers that scenarios need, and a kubelet that only
pretends; it leaves alone Pods that ask for the scheduler `nobody`. Ends on SIGTERM."""

from __future__ import annotations

import rich.console  # isort: skip  # noqa: F401 - before `sandlane.slim`, which stands in for it

import asyncio
import random
import sys
from pathlib import Path
from types import SimpleNamespace

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.http import HttpTransport
from sandlane.local.agent import set_up_controllers
from sandlane.local.controllers.inventory import Inventory
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.runtime.result import Request, Result
from support.workloads import PretendKubelet


class ScheduledKubelet(PretendKubelet):
    """A kubelet for the Pods that a scheduler would have placed."""

    async def reconcile(self, request: Request) -> Result:
        record = self._store.get(request)
        if record is not None and record.object()["spec"].get("schedulerName") == "nobody":
            return Result.done()
        return await super().reconcile(request)


async def run(kubeconfig: Path) -> None:
    """Run the controllers until a signal."""
    clock, rng = SystemClock(), random.Random()
    config = load_config(kubeconfig)
    client = Client(HttpTransport(config), clock=clock, rng=rng)
    manager = Manager(client, clock=clock, rng=rng, options=ManagerOptions(), name="conformance")
    inventory = Inventory(client, manager.cache, clock, rng)
    set_up_controllers(manager, inventory, (config.ca or b"").decode(), kubeconfig.parent / "volumes")
    ScheduledKubelet(SimpleNamespace(client=client)).setup_with_manager(manager)  # type: ignore[arg-type]
    try:
        await manager.run(handle_signals=True)
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
