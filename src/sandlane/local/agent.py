"""`python -m sandlane.local.agent`: built-in controllers, the process node and the Service proxy's xDS server.

One process with one shared cache. The manager's TaskGroup owns all tasks; SIGTERM ends them in good order, Pods first.
"""

from __future__ import annotations

import sandlane.slim  # isort: skip  # noqa: F401 - before structlog

import argparse
import asyncio
import random  # noqa: TID251 - the composition root
import sys
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from aiohttp import web

from sandlane.kube.cache import Informer
from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import ConfigError, load_config
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import NODES, Key
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.aggregation import AggregationController
from sandlane.local.controllers.apiserver_endpoint import ApiServerEndpointController
from sandlane.local.controllers.daemonset.controller import DaemonSetController
from sandlane.local.controllers.defaults import NamespaceDefaultsController
from sandlane.local.controllers.deployment.controller import DeploymentController
from sandlane.local.controllers.disruption import DisruptionController
from sandlane.local.controllers.endpointslice.controller import EndpointSliceController
from sandlane.local.controllers.garbage.controller import GarbageController
from sandlane.local.controllers.inventory import Inventory
from sandlane.local.controllers.job.controller import JobController
from sandlane.local.controllers.namespace import NamespaceController
from sandlane.local.controllers.quota import QuotaController
from sandlane.local.controllers.replicaset.controller import ReplicaSetController
from sandlane.local.controllers.statefulset.controller import StatefulSetController
from sandlane.local.controllers.volume.controller import VolumeController
from sandlane.local.node.images import ImageMap, ImageMapError
from sandlane.local.node.node import ProcessNode
from sandlane.local.node.registration import NodeOptions
from sandlane.local.node.server import node_app
from sandlane.local.proxy.bootstrap import NODE as PROXY
from sandlane.local.proxy.ports import first_bindable_port
from sandlane.local.proxy.proxy import ServiceProxy
from sandlane.local.restarts import RestartReporter
from sandlane.local.settings import NODE_NAME, DataDir, DataDirError, Settings, kubeconfig_written
from sandlane.routing.envoy.server import XdsServer
from sandlane.runtime.health import health_app, serve
from sandlane.runtime.logging import set_up_logging
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions

log = structlog.get_logger(__name__)

_PAUSE = 0.02


def main() -> int:
    """Run until a signal; the exit code."""
    parser = argparse.ArgumentParser(prog="sandlane.local.agent")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    set_up_logging("json", "info")
    data = DataDir(options.data_dir)
    try:
        settings = data.settings()
        if settings is None:
            raise DataDirError(f"{data.root} has no cluster: `sandlane up` makes one")
        asyncio.run(run(data, settings, options.images))
    except (DataDirError, ConfigError, ImageMapError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def run(data: DataDir, settings: Settings, images: Path | None) -> None:
    """Build everything on one manager and run it."""
    clock, rng = SystemClock(), random.Random()
    while not kubeconfig_written(data, settings):  # the API server is starting, too
        await clock.sleep(_PAUSE)
    config = load_config(data.kubeconfig)
    client = Client(HttpTransport(config), clock=clock, rng=rng)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        manager = Manager(client, clock=clock, rng=rng, options=ManagerOptions(), name="sandlane-local")
        inventory = Inventory(client, manager.cache, clock, rng)
        set_up_controllers(manager, inventory, (config.ca or b"").decode(), data.root / "volumes")
        ApiServerEndpointController("127.0.0.1", settings.api_port).setup_with_manager(manager)
        restarts = RestartReporter(data.status, manager.cache.informer(NODES), manager.recorder, clock)
        manager.add_runnable(restarts.run, needs_leader=True)

        xds = XdsServer()
        proxy = ServiceProxy(manager.cache, lambda resources: xds.publish(PROXY, resources), first_bindable_port())
        manager.add_runnable(proxy.run)

        def proxy_problems() -> list[str]:
            if not xds.clients(PROXY):
                return ["Envoy is not connected"]
            return ["Envoy does not serve the latest Services yet"] if xds.behind(PROXY) else []

        node = ProcessNode(
            client, manager.cache, clock, _node_options(data, settings), _image_map(images), manager.recorder
        )
        manager.add_runnable(node.run, needs_leader=True)
        nodes: Informer[Unstructured] = manager.cache.informer(NODES)

        def not_ready() -> Iterable[str]:
            yield from manager.not_ready()
            if nodes.store.get(Key("", NODE_NAME)) is None:
                yield "the node is not registered yet"

        await stack.enter_async_context(xds.listen(_join(settings.agent_xds)))
        await serve(stack, node_app(node, config.token, clock), _join(settings.node))
        await serve(stack, _health(manager, not_ready, proxy_problems), _join(settings.agent_health))
        await _server_listens(settings, clock)
        await manager.run(handle_signals=True)


def _node_options(data: DataDir, settings: Settings) -> NodeOptions:
    folder = data.root / "node"
    folder.mkdir(mode=0o700, exist_ok=True)
    host, port = settings.node
    return NodeOptions(NODE_NAME, host, settings.pod_cidr, folder, port)


def _image_map(path: Path | None) -> ImageMap:
    return ImageMap.load(path) if path is not None else ImageMap()


def set_up_controllers(manager: Manager, inventory: Inventory, authority: str, volumes: Path) -> None:
    """The built-in controllers, and the inventory that two of them need. `volumes` is the folder of claims' folders."""
    for controller in (
        DeploymentController(),
        ReplicaSetController(),
        StatefulSetController(),
        DaemonSetController(),
        JobController(),
        EndpointSliceController(),
        NamespaceController(inventory),
        NamespaceDefaultsController(authority),
        GarbageController(inventory),
        QuotaController(inventory),
        DisruptionController(),
        AggregationController(),
        VolumeController(volumes),
    ):
        controller.setup_with_manager(manager)
    inventory.prepare()
    manager.add_runnable(inventory.run)


def _health(
    manager: Manager, ready: Callable[[], Iterable[str]], proxy: Callable[[], Iterable[str]]
) -> web.Application:
    app = health_app(manager.problems, ready)

    async def proxyz(request: web.Request) -> web.Response:
        problems = list(proxy())
        return web.Response(text="\n".join(problems) or "ok", status=500 if problems else 200)

    app.router.add_get("/proxyz", proxyz)
    return app


def _join(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


async def _server_listens(settings: Settings, clock: SystemClock) -> None:
    """Wait for the API server's port: the first lists then succeed at once, without any back-off."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", settings.api_port)
        except OSError:
            await clock.sleep(_PAUSE)
            continue
        writer.close()
        return


if __name__ == "__main__":
    sys.exit(main())
