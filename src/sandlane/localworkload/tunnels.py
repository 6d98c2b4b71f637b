"""The tunnel as a part of the manager: its servers when they are needed, what they serve, and who is connected to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sandlane.kube.apply import Applier
from sandlane.kube.clock import Clock
from sandlane.kube.resource import CONFIG_MAPS, DEPLOYMENTS, LOCAL_WORKLOADS, PODS, SERVICES, Key
from sandlane.routing.envoy.delta import SECRETS
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.identities import RENEWAL, Identities
from sandlane.routing.publisher import Publisher
from sandlane.routing.resources import RouterOptions
from sandlane.routing.tunnels import ROUTER_PAIR, TRUST
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result
from sandlane.runtime.signing import KeyPair
from sandlane.tunnel.authority import Authority, load_authority
from sandlane.tunnel.bootstrap import NODE_CLUSTER, ServerOptions
from sandlane.tunnel.publish import server_resources, tls_pair, trust
from sandlane.tunnel.resources import (
    LABELS,
    NAME,
    TUNNEL,
    XDS_SECRET,
    tunnel_deployment,
    tunnel_directory,
    tunnel_service,
)
from sandlane.tunnel.watch import TunnelWatch
from sandlane.world.records import LocalWorkload, Pod
from sandlane.world.world import SELECTORS, World

log = structlog.get_logger(__name__)


class Tunnels:
    """Serves the tunnel servers and watches them, on every replica; makes them, on the leader."""

    def __init__(
        self,
        manager: Manager,
        world: World,
        server: XdsServer,
        publisher: Publisher,
        options: RouterOptions,
        clients: Callable[[str], str],
        identities: Identities,
    ) -> None:
        self.authority: Authority | None = None
        self._manager = manager
        self._clock: Clock = manager.clock
        self._world = world
        self._server = server
        self._publisher = publisher
        self._options = options
        self._tunnel = ServerOptions()
        self._client_of = clients
        self._xds_identities = identities
        self._applier = Applier(manager.client, manager.cache)
        self._pair: KeyPair | None = None
        self._changed = asyncio.Event()
        self.watch = TunnelWatch(manager.clock, self._servers, self._identities, self._tunnel.ingress_port)
        self.watch.subscribe(lambda identity: publisher.refresh())
        publisher.held = lambda: self.watch.held
        manager.cache.informer(LOCAL_WORKLOADS, LocalWorkload).add_handler(lambda change: self._changed.set())
        manager.cache.informer(PODS, Pod, label_selector=SELECTORS["pods"])
        manager.add_runnable(self.run)

    # -- what others ask --------------------------------------------------------------------------------

    def tunnels(self, identity: str) -> int:
        """How many servers hold a tunnel of an identity."""
        return len(self.watch.held.get(identity, ()))

    def client(self, identity: str) -> str:
        """The user whose certificate was last signed."""
        return self._client_of(identity)

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with an identity whenever its connection changes."""
        self.watch.subscribe(listener)

    def signing(self) -> Authority:
        """The authority. Raises `RuntimeError` before it is loaded."""
        if self.authority is None:
            raise RuntimeError("the tunnel's authority is not loaded yet")
        return self.authority

    # -- on every replica -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Nothing until the first LocalWorkload; then serve the tunnel servers and watch them, until cancelled."""
        while not self._identities():
            self._changed.clear()
            await self._changed.wait()
        await self._manager.leading.wait()
        self.authority = authority = await load_authority(
            self._manager.client, self._manager.namespace, self._clock.now()
        )
        self._pair = authority.server_pair(self._clock.now())
        routers = authority.router_pair(self._clock.now())
        self._publisher.secrets = {
            SECRETS: {ROUTER_PAIR: tls_pair(ROUTER_PAIR, routers), TRUST: trust(authority.ca.certificate)}
        }
        self._publisher.refresh()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watch.run(authority), name="tunnel watch")
            while True:
                self._changed.clear()
                resources = server_resources(
                    self._identities(), self._tunnel.workers, self._pair, authority.ca.certificate
                )
                self._server.publish(NODE_CLUSTER, resources)
                await self._changed.wait()

    def _identities(self) -> list[str]:
        return [local.metadata.uid for local in self._world.local_workloads if not local.metadata.deleting]

    def _servers(self) -> list[str]:
        pods = self._world.pods.list(self._manager.namespace)
        return [pod.status.pod_ip for pod in pods if TUNNEL in pod.metadata.labels and pod.ready and pod.status.pod_ip]

    # -- on the leader ----------------------------------------------------------------------------------

    def setup_with_manager(self, manager: Manager) -> Controller:
        """A controller that makes the servers when the first LocalWorkload comes."""
        key = Key(manager.namespace, NAME)
        return (
            Controller.managed_by(manager)
            .named("tunnel")
            .watches(LOCAL_WORKLOADS, LocalWorkload, to_requests=lambda local: [key])
            .watches(
                PODS,
                Pod,
                to_requests=lambda pod: [key] if TUNNEL in pod.metadata.labels else [],
                label_selector=SELECTORS["pods"],
            )
            .complete(self)
        )

    async def reconcile(self, request: Request) -> Result:
        """The servers, their Service, and the directory for laptops, as long as there is a LocalWorkload."""
        namespace = request.namespace
        if not len(self._world.local_workloads):
            return Result.done()
        if self.authority is None:
            return Result.requeue_after(0.5)
        certificate = await self._xds_identities.ensure(Key(namespace, XDS_SECRET), NODE_CLUSTER, LABELS)
        servers = tunnel_deployment(namespace, self._options, self._tunnel, certificate)
        await self._applier.ensure(DEPLOYMENTS, servers)
        await self._applier.ensure(SERVICES, tunnel_service(namespace, self._tunnel))
        service = self._world.services.get(Key(namespace, NAME))
        if service is None or not service.spec.cluster_ip:
            return Result.requeue_after(0.5)
        address = f"{service.spec.cluster_ip}:{self._tunnel.front_port}"
        directory = tunnel_directory(namespace, address, self._options.replicas, self.authority.ca.certificate)
        await self._applier.ensure(CONFIG_MAPS, directory)
        return Result.requeue_after(RENEWAL)
