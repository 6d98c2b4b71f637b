"""When a laptop goes, the routes change first and its condition follows."""

from __future__ import annotations

from collections.abc import Callable

from sandlane.api.crd import definitions
from sandlane.kube.resource import LOCAL_WORKLOADS, Key, Object
from sandlane.localworkload.controller import ROUTES_FIRST, LocalWorkloadController
from sandlane.localworkload.status import Observed
from sandlane.runtime.result import Request
from sandlane.testing.clock import ManualClock
from sandlane.testing.cluster import FakeCluster
from sandlane.world.world import World
from support.sandboxes import NAMESPACE, PretendRoutes, Report, deployment, sandbox

LOCAL: Object = {
    "apiVersion": "sandlane.dev/v1alpha1",
    "kind": "LocalWorkload",
    "metadata": {"name": "laptop", "namespace": NAMESPACE, "finalizers": ["sandlane.dev/finalizer"]},
    "spec": {
        "sandbox": "new-eta",
        "from": {"kind": "Deployment", "name": "driver"},
        "mappings": [{"port": 8083, "to": "localhost:1"}],
    },
    "status": {"connection": {"client": "jane", "session": "5e55", "tunnels": 2}},
}


class Connections:
    """Tunnels, until a test takes them away."""

    seen = Observed(2, 2, "10.0.0.9")

    def observed(self, uid: str) -> Observed:
        return self.seen

    def close(self, uid: str) -> bool:
        return True

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """The test reconciles by hand."""


async def test_the_condition_waits_for_the_routes() -> None:
    """While a router does not yet serve what is to be done without the laptop, Connected stays, but not for long."""
    clock = ManualClock()
    async with FakeCluster.with_objects(*definitions(), sandbox(), deployment("driver"), clock=clock) as cluster:
        await cluster.add(LOCAL)
        manager = cluster.manager()
        routes, connections = PretendRoutes(), Connections()
        controller = LocalWorkloadController(manager, World.from_cache(manager.cache), routes, connections)
        sandbox_key = Key(NAMESPACE, "new-eta")

        async def connected() -> str:
            await controller.reconcile(Request(NAMESPACE, "laptop"))
            obj = await cluster.client.get(LOCAL_WORKLOADS, "laptop", NAMESPACE)
            return next(each["status"] for each in obj["status"]["conditions"] if each["type"] == "Connected")

        async with cluster.synced(manager):
            for patience in (0.0, ROUTES_FIRST):
                connections.seen = Observed(2, 2, "10.0.0.9")
                assert await connected() == "True"
                connections.seen = Observed()
                routes.say("Sandbox", sandbox_key, Report(False))
                assert await connected() == "True"
                routes.say("Sandbox", sandbox_key, Report(not patience))
                await clock.advance(patience)
                assert await connected() == "False"
