"""`sandlane manager`: the composition root. Reads options, builds what all controllers share, registers them, runs.

The same on a real cluster and on a laptop. Every option is a flag and a field of the `--config` file; flags win.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - the composition root
import re
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import structlog

from sandlane.admission.handlers import Admission
from sandlane.api.limits import Settings
from sandlane.api.places import MANAGER_NAME, WEBHOOK_SERVICE, service_names
from sandlane.cli.crds import CrdsNotServed, install
from sandlane.install.objects import foundation, routes_at
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock, SystemClock
from sandlane.kube.config import Config, ConfigError, load_config
from sandlane.kube.http import HttpTransport
from sandlane.kube.known import Change
from sandlane.kube.resource import (
    MUTATING_WEBHOOK_CONFIGURATIONS,
    NAMESPACES,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
)
from sandlane.localworkload.controller import LocalWorkloadController
from sandlane.localworkload.signer import TunnelSigner
from sandlane.localworkload.tunnels import Tunnels
from sandlane.preview.gateway import Gateway
from sandlane.preview.resources import PreviewOptions
from sandlane.routegroup.controller import RouteGroupController
from sandlane.routesapi.feed import Feed
from sandlane.routesapi.grpc_server import RoutesServicer, serve_grpc
from sandlane.routesapi.http_server import PATH as RULES_PATH
from sandlane.routesapi.http_server import routes_app
from sandlane.routing.controller import RoutingController
from sandlane.routing.envoy.identity import CERTIFICATE, SERVER
from sandlane.routing.envoy.listeners import ACCESS_LOGS, DoorOptions
from sandlane.routing.envoy.metrics import XdsMetrics
from sandlane.routing.envoy.server import XdsServer, credentials
from sandlane.routing.identities import Identities
from sandlane.routing.key import MEMBER, KeySources
from sandlane.routing.publisher import Publisher
from sandlane.routing.report import RouteReports
from sandlane.routing.resources import ENVOY_IMAGE, RouterOptions
from sandlane.runtime.certificates import SecretCertificates
from sandlane.runtime.health import PathAuth, serve
from sandlane.runtime.logging import set_up_logging
from sandlane.runtime.manager import LeadershipLost, Manager
from sandlane.runtime.options import ManagerOptions, OptionsError, parse_options, split_address
from sandlane.runtime.webhook import WebhookServer, certificates_for
from sandlane.sandbox.controller import SandboxController
from sandlane.world.records import Namespace
from sandlane.world.world import World

log = structlog.get_logger(__name__)

DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,180}[a-z0-9])?(:[0-9]{1,5})?")
TOKEN = re.compile(r"[-_A-Za-z0-9]{8,200}")


NO_WEBHOOKS = (
    "without webhooks nobody can be asked whether the requester of a sandbox may run what it forks: anyone who may create"
    " sandboxes could run any workload with any Secret of the namespace. Set --webhook-port, or accept this with"
    " --allow-unchecked-requesters."
)


class Options(ManagerOptions, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The manager's options, with those of this product."""

    kube_api_qps: float = 400.0
    kube_api_burst: int = 800
    xds_bind_address: str = ""
    xds_advertise_address: str = ""
    routes_bind_address: str = ""
    """Where the routes API is served over HTTP."""
    routes_grpc_bind_address: str = ""
    """The same over gRPC."""
    routes_auth: bool = False
    """Ask who reads routes for a bearer token that may `get` the path /v1/rules."""
    router_image: str = ENVOY_IMAGE
    router_replicas: int = 2
    routing_key_members: tuple[str, ...] = (MEMBER,)
    """Names of the member of `baggage` and `tracestate` that carries the routing key."""
    routing_key_headers: tuple[str, ...] = ()
    """Headers whose whole value is a routing key, where `baggage` and `tracestate` have none."""
    routing_key_query_parameter: str = ""
    """A query parameter that carries a routing key, where no header does."""
    router_access_log: str = "failures"
    """Which requests routers write a line about: none | failures | overrides | all."""
    router_settle_seconds: int = 5
    """From the deletion of a router until nobody sends it new connections: as long as endpoints take to get around."""
    router_drain_seconds: int = 20
    """How long connections of a router that is going, or of a Service that is given back, may go on."""
    router_certificate_in_environment: bool = False
    """Where Pods can mount nothing: routers are started again when their certificate is renewed."""
    install: bool = False
    """On a laptop: write kinds, rights and webhook configurations first, then act as the manager's ServiceAccount."""
    allow_unchecked_requesters: bool = False
    """Run without webhooks: then nobody asks whether the requester of a sandbox may run what it forks."""
    webhook_service: str = WEBHOOK_SERVICE
    """Also the name of the webhook configurations."""
    webhook_url: str = ""
    """Where the API server reaches the webhooks without a Service; with `install`."""
    preview_domain: str = ""
    """Domain of the preview gateway, over `settings.previewDomain`; empty: none."""
    preview_listen: str = ""
    """On a laptop: where the gateway listens beside its Pod's address."""
    preview_token_file: str = ""
    """A file with the token that the gateway asks for; without it everybody who reaches it is let in."""
    preview_service_type: str = "ClusterIP"
    settings: Settings = Settings()


def main(argv: Sequence[str]) -> int:
    """Run until a signal; the exit code."""
    try:
        options = parse(argv)
        set_up_logging(options.log_format, options.log_level)
        asyncio.run(run(options))
    except (OptionsError, ConfigError, CrdsNotServed) as error:
        print(error, file=sys.stderr)
        return 2
    except BaseExceptionGroup as group:
        if group.subgroup(LeadershipLost) is None:
            raise
        log.error("leadership_lost")
        return 1
    return 0


def parse(argv: Sequence[str]) -> Options:
    """Flags over the configuration file over defaults. Raises `OptionsError`."""
    return parse_options(argv, Options(), prog="sandlane manager", description="Run Sandlane's controllers.")


async def run(options: Options) -> None:
    """Build the manager and run it."""
    preview_options(options)
    if not options.webhook_port and not options.allow_unchecked_requesters:
        raise OptionsError(NO_WEBHOOKS)
    if options.webhook_url and options.webhook_cert_dir:
        raise OptionsError("--webhook-url needs a certificate authority of our own: it excludes --webhook-cert-dir")
    config = load_config(Path(options.kubeconfig) if options.kubeconfig else None)
    clock, rng = SystemClock(), random.Random()
    if options.install:
        await install_once(config, options, clock, rng)
    client = Client(HttpTransport(config), clock=clock, rng=rng, qps=options.kube_api_qps, burst=options.kube_api_burst)
    try:
        manager = Manager(client, clock=clock, rng=rng, options=options, namespace=config.namespace)
        register(manager, options)
        if options.install:
            stop_when_uninstalled(manager)
        await manager.run(handle_signals=True)
    finally:
        await client.close()


async def install_once(config: Config, options: Options, clock: Clock, rng: random.Random) -> None:
    """Write what a manager needs with the rights of the configuration, which is the ServiceAccount's from then on."""
    namespace = options.leader_election_namespace or config.namespace
    client = Client(HttpTransport(config), clock=clock, rng=rng)
    try:
        objects = foundation(namespace, url=options.webhook_url)
        if options.routes_bind_address and options.routes_grpc_bind_address:
            addresses = split_address(options.routes_bind_address), split_address(options.routes_grpc_bind_address)
            objects += routes_at(namespace, *addresses)
        await install(client, clock, objects)
    finally:
        await client.close()
    config.impersonate_user = f"system:serviceaccount:{namespace}:{MANAGER_NAME}"


def stop_when_uninstalled(manager: Manager) -> None:
    """In a cluster our Deployment is deleted by `sandlane uninstall`; on a laptop we end ourselves, for good."""

    def look(change: Change[Namespace]) -> None:
        gone = change.new is None or change.new.metadata.deleting
        if change.key.name == manager.namespace and gone:
            log.info("uninstalled", namespace=manager.namespace)
            manager.stop()

    manager.cache.informer(NAMESPACES, Namespace).add_handler(look)


def register(manager: Manager, options: Options) -> None:
    """Give the manager all controllers of the product."""
    world = World.from_cache(manager.cache)
    server = XdsServer(XdsMetrics(manager.metrics, manager.clock), drain=options.router_drain_seconds)
    doors = door_options(options)
    publisher = Publisher(manager.cache, world, server, manager.clock, doors, settle=options.router_settle_seconds)
    reports = RouteReports(world, publisher)
    manager.add_runnable(lambda: publisher.run(manager.ready))
    manager.add_runnable(publisher.served.run)
    manager.add_runnable(publisher.departures.run)
    feed = Feed(manager.cache, world, manager.clock, lambda: publisher.held())
    _serve_routes(manager, feed, options)
    if options.xds_bind_address:
        certificates = _serve_xds(manager, server, publisher, options)
        host, port = split_address(options.xds_advertise_address or options.xds_bind_address)
        router = RouterOptions(
            host,
            port,
            options.router_image,
            options.router_replicas,
            certificate_in_environment=options.router_certificate_in_environment,
            settle=options.router_settle_seconds,
            drain=options.router_drain_seconds,
            keys=doors.keys,
        )
        identities = Identities(manager.client, manager.clock, certificates)
        RoutingController(manager, world, publisher, router, identities).setup_with_manager(manager)
        tunnels = Tunnels(manager, world, server, publisher, router, identities)
        tunnels.subscribe(lambda identity: feed.held_changed())
        TunnelSigner(manager, world, lambda: tunnels.authority).setup_with_manager(manager)
        tunnels.setup_with_manager(manager)
        Gateway(manager, world, server, router, identities, preview_options(options)).setup_with_manager(manager)
        LocalWorkloadController(manager, world, reports, tunnels).setup_with_manager(manager)
    settings = msgspec.structs.replace(options.settings, preview_domain=preview_options(options).domain)
    SandboxController(manager, world, reports, settings).setup_with_manager(manager)
    RouteGroupController(manager, world, reports, settings).setup_with_manager(manager)
    if options.webhook_port:
        _serve_webhooks(manager, world, options)


def preview_options(options: Options) -> PreviewOptions:
    """How the preview gateway runs. Raises `OptionsError`."""
    domain, scheme = options.preview_domain or options.settings.preview_domain, options.settings.preview_scheme
    if domain and not DOMAIN.fullmatch(domain):
        raise OptionsError(f"previewDomain: {domain!r} is not a domain, such as preview.example.com or localhost:7080")
    if scheme not in ("http", "https"):
        raise OptionsError(f"settings.previewScheme: {scheme!r}: it must be http or https")
    if options.preview_service_type not in ("ClusterIP", "NodePort", "LoadBalancer"):
        raise OptionsError("previewServiceType must be ClusterIP, NodePort or LoadBalancer")
    token = ""
    if options.preview_token_file:
        try:
            token = Path(options.preview_token_file).read_text().strip()
        except OSError as error:
            raise OptionsError(f"previewTokenFile: {error}") from error
        if not TOKEN.fullmatch(token):
            raise OptionsError(f"previewTokenFile: {options.preview_token_file} must hold letters, digits, - and _")
    also = split_address(options.preview_listen) if options.preview_listen else None
    return PreviewOptions(domain, scheme, token, also, options.preview_service_type)


def _serve_xds(manager: Manager, server: XdsServer, publisher: Publisher, options: Options) -> SecretCertificates:
    """The xDS server over mTLS, on every replica; where its certificate comes from."""
    certificates = SecretCertificates(
        manager.client, manager.clock, namespace=manager.namespace, name=CERTIFICATE, names=[SERVER]
    )
    certified = asyncio.Event()
    certificates.on_bundle(lambda bundle: certified.set())
    manager.add_runnable(certificates.run)

    async def serve_xds() -> None:
        await certified.wait()
        await publisher.published.wait()  # a table of half the world would take routes away
        async with server.listen(options.xds_bind_address, credentials(certificates)):
            await asyncio.get_running_loop().create_future()

    manager.add_runnable(serve_xds)
    return certificates


def _serve_routes(manager: Manager, feed: Feed, options: Options) -> None:
    """The routes API, on every replica."""
    if not options.routes_bind_address and not options.routes_grpc_bind_address:
        return
    manager.add_runnable(lambda: feed.run(manager.ready))
    manager.metrics.gauge("routes_watchers", "Open watches of the routes API.", "protocol", lambda: feed.watchers)
    auth = PathAuth(manager.client, manager.clock, RULES_PATH).status if options.routes_auth else None

    async def over_http() -> None:
        async with AsyncExitStack() as stack:
            app = routes_app(feed, auth)
            manager.addresses["routes"] = await serve(stack, app, options.routes_bind_address)
            await asyncio.get_running_loop().create_future()

    async def over_grpc() -> None:
        host, port = split_address(options.routes_grpc_bind_address)
        async with serve_grpc(RoutesServicer(feed, auth), f"{host}:{port}") as bound:
            manager.addresses["routes-grpc"] = host, bound
            await asyncio.get_running_loop().create_future()

    if options.routes_bind_address:
        manager.add_runnable(over_http)
    if options.routes_grpc_bind_address:
        manager.add_runnable(over_grpc)


def door_options(options: Options) -> DoorOptions:
    """What applies at every door. Raises `OptionsError`."""
    sources = KeySources(options.routing_key_members, options.routing_key_headers, options.routing_key_query_parameter)
    if problem := sources.problem:
        raise OptionsError(problem)
    if options.router_access_log not in ACCESS_LOGS:
        raise OptionsError(
            f"--router-access-log: must be one of {', '.join(ACCESS_LOGS)}, not {options.router_access_log!r}"
        )
    return DoorOptions(sources, options.router_access_log)


def _serve_webhooks(manager: Manager, world: World, options: Options) -> None:
    """The webhooks, behind a Service whose configurations a manifest holds, or registered by us at a URL."""
    name = options.webhook_service
    hosts = (
        [urlsplit(options.webhook_url).hostname or ""]
        if options.webhook_url
        else service_names(name, manager.namespace)
    )
    webhooks = WebhookServer(manager, certificates_for(manager, secret=f"{name}-certificate", names=hosts))
    Admission(manager.client, world, options.settings.limits, options.watch_namespaces).register(webhooks)
    if not options.webhook_cert_dir:  # otherwise whoever renews the files tells the API server
        for resource in (MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS):
            webhooks.inject_into(resource, name)
