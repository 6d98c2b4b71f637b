"""`sandlane trace`: sends a probing request, and reads in the routers' logs where it came by and where its key was lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import aiohttp
import msgspec

from sandlane.api.labels import ROUTER_PODS
from sandlane.cli.columns import columns
from sandlane.cli.reading import client_of, config_of, read_world
from sandlane.cli.routes import BadHeader, parse_headers, served
from sandlane.kube.client import Client
from sandlane.kube.config import Config, ConfigError
from sandlane.kube.errors import KubeError, NotFound
from sandlane.kube.pods import logs
from sandlane.kube.resource import PODS, Key
from sandlane.preview.plan import preview_at
from sandlane.routing.explain import UnknownTarget, find_target
from sandlane.routing.key import KeySources, find_key
from sandlane.routing.rules import connected, rules
from sandlane.routing.sources import sources_in
from sandlane.routing.trace import ARRIVED, Hop, Probe, Trace, hops_in, judge

Fail = Callable[..., NoReturn]
PAUSE = 0.2
NEWEST = 500
"""Lines of each router that are looked at."""
QUIET = 0.7
"""Seconds without another hop after which all have been logged: routers write four times a second."""
SEND_SECONDS = 30.0


class NotSent(RuntimeError):
    """The probing request could not be sent; the message says why, and what to try."""


def show_trace(
    kubeconfig: Path | None,
    data_dir: Path | None,
    target: str,
    headers: Sequence[str],
    key: str,
    namespace: str,
    method: str,
    patience: float,
    output: str,
    *,
    fail: Fail,
) -> bool:
    """Send a probe and print its way; whether the key arrived wherever routers saw it."""
    if output not in ("text", "json"):
        fail(f"--output {output}: it must be text or json")
    try:
        sent = parse_headers(headers)
        config = config_of(kubeconfig, data_dir)
        made = asyncio.run(trace(config, target, sent, key, namespace or config.namespace, method, patience))
    except (BadHeader, ConfigError, KubeError, UnknownTarget, NotSent) as error:
        fail(error)
    if output == "json":
        print(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
    else:
        print(spoken(made))
    return made.verdict == ARRIVED


async def trace(
    config: Config,
    target: str,
    headers: Sequence[tuple[str, str]],
    key: str,
    namespace: str,
    method: str,
    patience: float,
) -> Trace:
    """Send a probe and follow it. Raises `NotSent`, `KubeError`, `UnknownTarget`."""
    async with client_of(config) as client:
        world = (await read_world(client, namespace)).world
        url, places, entry = target, {namespace}, ""
        preview = preview_at(world, target)
        if preview is not None:
            key = key or preview.key
            places.add(preview.backend.namespace)
        try:
            meant = find_target(world, target, namespace, served)
            places.add(meant.door.namespace)
            entry = str(meant.door)
            if "://" not in target:
                url = f"http://{meant.service.spec.cluster_ip}:{served(meant.port.port)}{meant.path}"
        except UnknownTarget:
            if "://" not in target:
                raise  # a URL may also be that of an Ingress, a port-forward, a preview
        sources = sources_in(world, namespace)
        member = sources.members[0]
        if not key and (found := find_key(headers, _path(url), sources)) is not None:
            key, member = found.key, ""
        known = rules(world, connected(world))
        places |= {rule.namespace for rule in known if key and rule.key == key}
        await _lines(client, await _routers(client, sorted(places)))  # refused now rather than after the request
        probe = Probe(os.urandom(12).hex(), key, member)
        status = await _send(url, method, headers, probe)
        hops = await _follow(client, sorted(places), probe, sources, patience)
        return judge(probe, hops, known, status, entry)


def _path(url: str) -> str:
    """Path and query of a URL."""
    place = urlsplit(url)
    return f"{place.path}?{place.query}"


async def _routers(client: Client, namespaces: Sequence[str]) -> list[tuple[str, str]]:
    selector = ",".join(f"{name}={value}" for name, value in ROUTER_PODS.items())
    found = []
    for namespace in namespaces:
        listed = await client.list(PODS, namespace, label_selector=selector)
        found += [(namespace, each["metadata"]["name"]) for each in listed.items]
    return found


async def _lines(client: Client, pods: Sequence[tuple[str, str]]) -> list[str]:
    """The newest lines of all routers. Raises `KubeError`: without their logs nothing can be told."""
    text = bytearray()
    for namespace, name in pods:
        with suppress(NotFound):  # a router that has gone
            async with logs(client, Key(namespace, name), tail_lines=NEWEST) as chunks:
                async for chunk in chunks:
                    text += chunk
        text += b"\n"
    return text.decode(errors="replace").splitlines()


async def _send(url: str, method: str, headers: Sequence[tuple[str, str]], probe: Probe) -> int:
    """The status of the answer. Raises `NotSent`."""
    own = ",".join(value for name, value in headers if name.lower() == "baggage")
    others = [(name, value) for name, value in headers if name.lower() not in ("baggage", "traceparent")]
    place = urlsplit(url)
    if place.hostname and place.hostname.endswith(".localhost"):  # always this machine, as for curl and browsers
        others.append(("host", place.netloc))
        url = place._replace(netloc=f"127.0.0.1:{place.port or 80}").geturl()
    timeout = aiohttp.ClientTimeout(total=SEND_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            pairs = [*probe.headers(own).items(), *others]
            async with session.request(method, url, headers=pairs, allow_redirects=False) as answer:
                await answer.read()
                return answer.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        advice = (
            "if it is not reachable from here, name a URL that is: an Ingress, a preview, or `kubectl port-forward`"
        )
        raise NotSent(f"{method} {url}: {error or type(error).__name__}; {advice}") from error


async def _follow(
    client: Client, namespaces: Sequence[str], probe: Probe, sources: KeySources, patience: float
) -> list[Hop]:
    """The hops, once no more come."""
    hops: list[Hop] = []
    waited = still = 0.0
    while waited < patience and (still < QUIET or not hops):
        await asyncio.sleep(PAUSE)
        waited += PAUSE
        now = hops_in(await _lines(client, await _routers(client, namespaces)), probe, sources)
        still = still + PAUSE if len(now) == len(hops) else 0.0
        hops = now
    return hops


def spoken(made: Trace) -> str:
    """A trace for people."""
    lines = [f"{made.verdict}: {made.message}"]
    if made.hops:
        rows = [["HOP", "REQUEST", "KEY", "SERVED BY", "STATUS", "MS", "CALLED BY"]]
        for hop in made.hops:
            key = hop.key or ("-" if not made.key else "none")
            path = hop.path.partition("?")[0]
            rows.append(
                [
                    hop.door,
                    f"{hop.method} {path}",
                    key,
                    hop.served_by,
                    str(hop.status),
                    f"{hop.seconds * 1000:.0f}",
                    hop.caller or ("you" if hop.door == made.entry else "-"),
                ]
            )
        lines += ["", columns(rows)]
    return "\n".join(lines)
