"""Garbage collection for tests: what no living owner holds is deleted, as in a cluster."""

from __future__ import annotations

from sandlane.local.controllers.garbage.controller import GarbageController
from sandlane.local.controllers.inventory import Inventory
from sandlane.runtime.manager import Manager


def garbage_collection(manager: Manager) -> None:
    """Give a manager the garbage collector: `Harness(..., environment=garbage_collection)`, or a manager of its own
    beside a `FakeCluster`.
    """
    inventory = Inventory(manager.client, manager.cache, manager.clock, manager.rng)
    GarbageController(inventory).setup_with_manager(manager)
    inventory.prepare()
    manager.add_runnable(inventory.run)
