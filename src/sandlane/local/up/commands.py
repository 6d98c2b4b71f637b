"""The processes of a local cluster: what to start, after what, and how to see that each is ready."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from sandlane.api.places import NAMESPACE
from sandlane.kube.clock import Clock
from sandlane.local.node.process import views_missing
from sandlane.local.proxy.bootstrap import bootstrap
from sandlane.local.settings import DataDir, Settings, kubeconfig_written, write_whole
from sandlane.local.up.probe import missing, trust
from sandlane.local.up.process import Command
from sandlane.routing.envoy.binary import envoy_binary

_PAUSE = 0.02
_PIPE_LIMIT = 100  # a Unix socket's path has at most 107 bytes


def commands(data: DataDir, settings: Settings, images: Path | None, clock: Clock) -> list[Command]:
    """All processes, in the order in which they stop (the last one first)."""

    async def at_once() -> None:
        return

    async def known() -> None:
        """Wait for the API server's kubeconfig, which it writes before it serves."""
        while not kubeconfig_written(data, settings):
            await clock.sleep(_PAUSE)

    async def agent_listens() -> None:
        """Wait for the agent's xDS server, so that the proxy finds it at its first attempt."""
        while not await _listens(*settings.agent_xds):
            await clock.sleep(_PAUSE)

    python = [sys.executable, "-m"]
    agent = [*python, "sandlane.local.agent", "--data-dir", str(data.root)]
    manager = [*python, "sandlane", "manager", "--kubeconfig", str(data.kubeconfig), *_manager_flags(data, settings)]
    quiet = {"GRPC_ENABLE_FORK_SUPPORT": "0", "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}
    return [
        Command(
            "apiserver", "API server", [*python, "sandlane.local.apiserver", *_apiserver_flags(data, settings)],
            at_once, _api_probe(data, settings), quiet,
        ),
        Command(
            "agent", "controllers and node", [*agent, *(["--images", str(images)] if images else [])],
            at_once, _plain_probe(settings.agent_health), quiet,
        ),
        Command("proxy", "Service proxy", _proxy(data, settings), agent_listens, _proxy_probe(settings)),
        Command(
            "manager", "manager", manager, known, _plain_probe(settings.manager_health), quiet,
            over="Sandlane was uninstalled from this cluster; `sandlane down` and `sandlane up` install it again",
        ),
    ]  # fmt: skip


def _apiserver_flags(data: DataDir, settings: Settings) -> list[str]:
    listen = f"127.0.0.1:{settings.api_port}"
    return ["--data-dir", str(data.root), "--listen", listen, "--service-cidr", settings.service_cidr]


def _manager_flags(data: DataDir, settings: Settings) -> list[str]:
    def join(address: tuple[str, int]) -> str:
        return f"{address[0]}:{address[1]}"

    mountless = asyncio.run(views_missing(data.run))
    return [
        *([f"--config={data.manager_options}"] if data.manager_options.exists() else []),
        *(["--router-certificate-in-environment"] if mountless else []),
        f"--health-probe-bind-address={join(settings.manager_health)}",
        f"--metrics-bind-address={join(settings.manager_metrics)}",
        f"--xds-bind-address={join(settings.manager_xds)}",
        f"--routes-bind-address={join(settings.manager_routes)}",
        f"--routes-grpc-bind-address={join(settings.manager_routes_grpc)}",
        f"--preview-domain=localhost:{settings.preview[1]}",
        f"--preview-listen={join(settings.preview)}",
        "--router-settle-seconds=1",
        "--router-drain-seconds=3",
        # one laptop: a second Envoy would only cost memory
        f"--router-replicas={os.environ.get('SANDLANE_ROUTER_REPLICAS', '1')}",
        "--install",
        f"--leader-election-namespace={NAMESPACE}",
        f"--webhook-host={settings.manager_webhook[0]}",
        f"--webhook-port={settings.manager_webhook[1]}",
        f"--webhook-url=https://{join(settings.manager_webhook)}",
    ]


def _proxy(data: DataDir, settings: Settings) -> list[str]:
    admin = str(data.run / "proxy-admin.sock")
    config = bootstrap(settings.agent_xds, admin if len(admin) <= _PIPE_LIMIT else "")
    write_whole(data.proxy_config, msgspec.json.encode(config))
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "3600"]
    return [str(envoy_binary()), "--config-path", str(data.proxy_config), *flags]


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _plain_probe(address: tuple[str, int]) -> Callable[[], Awaitable[str]]:
    async def probe() -> str:
        return await missing(*address)

    return probe


def _proxy_probe(settings: Settings) -> Callable[[], Awaitable[str]]:
    async def probe() -> str:
        return await missing(*settings.agent_health, path="/proxyz")

    return probe


def _api_probe(data: DataDir, settings: Settings) -> Callable[[], Awaitable[str]]:
    contexts: dict[bytes, ssl.SSLContext] = {}

    async def probe() -> str:
        if not data.kubeconfig.exists():
            return "has not written its kubeconfig yet"
        ca = (data.root / "pki" / "ca.crt").read_bytes()  # what people do to their kubeconfig is no matter of ours
        if ca not in contexts:
            contexts[ca] = trust(ca)
        return await missing("127.0.0.1", settings.api_port, contexts[ca])

    return probe
