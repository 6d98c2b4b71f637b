"""The tunnel as a part of the manager: its servers when they are needed, what they serve, and who is connected to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sandlane.api.labels import TUNNEL
from sandlane.kube.apply import Applier
from sandlane.kube.cache import Change
from sandlane.kube.clock import Clock
from sandlane.kube.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    LOCAL_WORKLOADS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    Key,
)
from sandlane.localworkload.status import Observed
from sandlane.routing.envoy.delta import SECRETS
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.identities import RENEWAL, Identities
from sandlane.routing.publisher import Publisher
from sandlane.routing.resources import RouterOptions
from sandlane.routing.tunnels import ANY, ROUTER_PAIR, TRUST, Held
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result
from sandlane.runtime.signing import KeyPair
from sandlane.tunnel.authority import PAIR_LIFE, Authority, load_authority
from sandlane.tunnel.bootstrap import NODE_CLUSTER, ServerOptions
from sandlane.tunnel.identity import Claim
from sandlane.tunnel.publish import server_resources, tls_pair, trust
from sandlane.tunnel.resources import (
    LABELS,
    NAME,
    XDS_SECRET,
    replicas,
    tunnel_budget,
    tunnel_deployment,
    tunnel_directory,
    tunnel_service,
)
from sandlane.tunnel.routes import Holder, Holders
from sandlane.tunnel.watch import Tunnels as Seen
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
        identities: Identities,
    ) -> None:
        self.authority: Authority | None = None
        self._manager = manager
        self._clock: Clock = manager.clock
        self._world = world
        self._server = server
        self._publisher = publisher
        self._options = options
        self._xds_identities = identities
        self._tunnel = ServerOptions(loopback=not options.xds_host.startswith("127."))
        self._closed: set[str] = set()
        self._published: Holders = {}
        self._watching = False
        self._applier = Applier(manager.client, manager.cache)
        self._pair: KeyPair | None = None
        self._changed = asyncio.Event()
        self.watch = TunnelWatch(manager.clock, self._servers, self._claims, self._tunnel.ingress_port)
        self.watch.subscribe(lambda uid: publisher.refresh())
        publisher.held = self._held
        manager.cache.informer(LOCAL_WORKLOADS, LocalWorkload).add_handler(lambda change: self._changed.set())
        manager.cache.informer(PODS, Pod, label_selector=SELECTORS["pods"]).add_handler(self._pod_changed)
        manager.add_runnable(self.run)

    # -- what others ask --------------------------------------------------------------------------------

    def observed(self, uid: str) -> Observed:
        """The tunnels of the client that holds a LocalWorkload."""
        tunnels = self._tunnels().get(uid)
        if tunnels is None:
            return Observed()
        if not self._watching:
            return Observed(tunnels.count, len(self._servers()), tunnels.remote_address)
        return Observed(tunnels.count, len(self.watch.held.get(uid, ())), tunnels.remote_address)

    def close(self, uid: str) -> bool:
        """Refuse a LocalWorkload's client from now on; whether every tunnel server has confirmed it."""
        self._closed.add(uid)
        self._changed.set()
        return uid not in self._published and not self._server.behind(NODE_CLUSTER)

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a uid whenever its tunnels change."""
        self.watch.subscribe(listener)

    # -- on every replica -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Nothing until the first LocalWorkload; then serve the tunnel servers and watch them, until cancelled."""
        while not len(self._world.local_workloads):
            self._changed.clear()
            await self._changed.wait()
        self.authority = authority = await self._load()
        self._published = self._holders()
        self.watch.seed(dict.fromkeys(self._tunnels(), frozenset(self._servers())), self._tunnels())
        self._watching = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew(authority), name="certificates")
            tasks.create_task(self.watch.run(authority), name="tunnel watch")
            while True:
                self._changed.clear()
                self._published = holders = self._holders()
                if self._pair is not None:
                    resources = server_resources(holders, self._tunnel, self._pair, authority.ca.certificate)
                    self._server.publish(NODE_CLUSTER, resources)
                await self._changed.wait()

    async def _load(self) -> Authority:
        """The authority, which the leader makes."""
        while True:
            client, leading = self._manager.client, self._manager.leading
            found = await load_authority(client, self._manager.namespace, self._clock.now(), make=leading.is_set())
            if found is not None:
                return found
            await self._clock.sleep(0.5)

    async def _renew(self, authority: Authority) -> None:
        """Certificates for tunnel servers and routers, long before the last ones end."""
        while True:
            self._pair = authority.server_pair(self._clock.now())
            routers = tls_pair(ROUTER_PAIR, authority.router_pair(self._clock.now()))
            self._publisher.secrets = {SECRETS: {ROUTER_PAIR: routers, TRUST: trust(authority.ca.certificate)}}
            self._publisher.refresh()
            self._changed.set()
            await self._clock.sleep(PAIR_LIFE.total_seconds() / 3)

    def _held(self) -> Held:
        """Who is connected where. Before the servers have been asked for the first time: as it is written in status, so that a
        manager that starts changes nothing."""
        servers = frozenset(self._servers())
        held = self.watch.held if self._watching else dict.fromkeys(self._tunnels(), servers)
        return {**held, ANY: servers}

    def _tunnels(self) -> dict[str, Seen]:
        if self._watching:
            return self.watch.tunnels
        connections = ((local.metadata.uid, local.status.connection) for local in self._world.local_workloads)
        return {uid: Seen(found.tunnels, found.remote_address) for uid, found in connections if found and found.tunnels}

    def _holders(self) -> Holders:
        """Of every LocalWorkload; one that is being deleted keeps its own until its routes are out."""
        holders: dict[str, Holder | None] = {}
        self._closed &= {local.metadata.uid for local in self._world.local_workloads}
        for local in self._world.local_workloads:
            uid, connection = local.metadata.uid, local.status.connection
            if uid not in self._closed:
                holders[uid] = (
                    Holder(connection.session, connection.client) if connection and connection.session else None
                )
        return holders

    def _claims(self) -> dict[str, Claim]:
        return {uid: Claim(holder.session, uid) for uid, holder in self._published.items() if holder is not None}

    def _servers(self) -> list[str]:
        pods = self._world.tunnel_servers(self._manager.namespace)
        return [pod.status.pod_ip for pod in pods if pod.ready and not pod.metadata.deleting]

    def _pod_changed(self, change: Change[Pod]) -> None:
        pod = change.new or change.old
        if pod is not None and TUNNEL in pod.metadata.labels:
            self._publisher.refresh()

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
        await self._applier.ensure(POD_DISRUPTION_BUDGETS, tunnel_budget(namespace))
        await self._applier.ensure(SERVICES, tunnel_service(namespace, self._tunnel))
        service = self._world.services.get(Key(namespace, NAME))
        if service is None or not service.spec.cluster_ip:
            return Result.requeue_after(0.5)
        address = f"{service.spec.cluster_ip}:{self._tunnel.front_port}"
        directory = tunnel_directory(namespace, address, replicas(self._options), self.authority.ca.certificate)
        await self._applier.ensure(CONFIG_MAPS, directory)
        return Result.requeue_after(RENEWAL)
