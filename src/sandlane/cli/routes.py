"""`sandlane routes` and `sandlane explain`: the route table and one request's way, computed here from the API server's objects."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from sandlane.cli.columns import columns
from sandlane.cli.reading import Reading, client_of, config_of, read_world
from sandlane.kube.config import Config, ConfigError
from sandlane.kube.errors import KubeError
from sandlane.local.proxy.ports import first_bindable_port, served_port
from sandlane.preview.plan import preview_at
from sandlane.routing.build import build
from sandlane.routing.explain import Answer, KeyAnswer, UnknownTarget, explain, explain_key, find_target
from sandlane.routing.key import Found, find_key
from sandlane.routing.rules import Rule, connected, rules
from sandlane.routing.sources import sources_in
from sandlane.world.world import World

Fail = Callable[[object], NoReturn]


class BadHeader(ValueError):
    """A `-H` that is not `NAME: VALUE`."""


def parse_headers(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Headers as curl takes them. Raises `BadHeader`."""
    found = []
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise BadHeader(f"{text!r} is not a header: it must be 'NAME: VALUE', for example 'baggage: a=b'")
        found.append((name.strip(), value.strip()))
    return found


def served(port: int) -> int:
    """The port at which this machine's Service proxy would serve a Service's port."""
    return served_port(port, first_bindable_port())


def read(config: Config, namespace: str) -> Reading:
    """The world as the user may see it. Raises `KubeError`."""

    async def go() -> Reading:
        async with client_of(config) as client:
            return await read_world(client, namespace)

    return asyncio.run(go())


def show_routes(
    kubeconfig: Path | None, data_dir: Path | None, namespace: str, output: str, *, everywhere: bool, fail: Fail
) -> None:
    """Print the rules of a namespace (or of all) and the digest of the whole table."""
    if output not in ("text", "wide", "json"):
        fail(f"--output {output}: it must be text, wide or json")
    try:
        config = config_of(kubeconfig, data_dir)
        namespace = namespace or config.namespace
        reading = read(config, namespace)
    except (ConfigError, KubeError) as error:
        fail(error)
    world = reading.world
    held = connected(world)
    found = [rule for rule in rules(world, held) if everywhere or rule.namespace == namespace]
    digest = build(world, held).digest
    if output == "json":
        document = {"digest": digest, "partial": sorted(reading.unseen), "rules": found}
        print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    if found:
        print(table(found, wide=output == "wide", everywhere=everywhere))
    else:
        print("no Service is overridden" + ("" if everywhere else f" in namespace {namespace}"))
    print(f"\ntable {digest}")
    if reading.unseen:
        note = f"of namespace {namespace} only: you may not list {', '.join(sorted(reading.unseen))} in all namespaces"
        print(f"note: {note}", file=sys.stderr)


def table(found: Sequence[Rule], *, wide: bool, everywhere: bool) -> str:
    """Rules in columns."""
    head = (["NAMESPACE"] if everywhere else []) + ["SERVICE", "PORT", "KEY", "OF", "SERVED BY", "REASON"]
    head += ["BACKEND"] if wide else []
    rows = []
    for rule in found:
        row = [rule.service, str(rule.port), rule.key, rule.via, rule.served_by, rule.reason]
        rows.append(([rule.namespace] if everywhere else []) + row + ([rule.backend or "-"] if wide else []))
    text = columns([head, *rows])
    if wide:
        text += "".join(f"\n{rule.door} {rule.key}: {rule.message}" for rule in found if rule.message)
    return text


def show_explanation(
    kubeconfig: Path | None,
    data_dir: Path | None,
    target: str,
    headers: Sequence[str],
    key: str,
    namespace: str,
    output: str,
    *,
    fail: Fail,
) -> None:
    """Print who serves a request, and why."""
    if output not in ("text", "json"):
        fail(f"--output {output}: it must be text or json")
    try:
        sent = parse_headers(headers)
        config = config_of(kubeconfig, data_dir)
        reading = read(config, namespace or config.namespace)
        answer = answered(reading.world, target, sent, key, namespace or config.namespace)
    except (BadHeader, ConfigError, KubeError, UnknownTarget) as error:
        fail(error)
    if output == "json":
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return
    print(spoken(answer) if isinstance(answer, Answer) else of_key(answer))


def answered(
    world: World, target: str, sent: Iterable[tuple[str, str]], key: str, namespace: str
) -> Answer | KeyAnswer:
    """Who serves a request to a target; without one, what the key does everywhere. Raises `UnknownTarget`."""
    held = connected(world)
    found = Found(key, "option --key") if key else None
    if not target:
        found = found or find_key(sent, sources=sources_in(world, namespace))
        if found is None:
            raise UnknownTarget("say what is to be explained: a target, --key, or -H with a header that carries a key")
        return explain_key(world, found, held)
    if (preview := preview_at(world, target)) is not None:
        target = f"{preview.backend.service}.{preview.backend.namespace}:{preview.backend.port}"
        found = Found(preview.key, f"preview address {preview.host}")
    meant = find_target(world, target, namespace, served)
    sources = sources_in(world, meant.door.namespace)
    return explain(world, meant, found or find_key(sent, meant.path, sources), held)


def of_key(answer: KeyAnswer) -> str:
    """What a key does, for people."""
    lines = [f"{answer.key} is the key of {answer.owner or 'nobody'}", ""]
    lines += [f"  {number}. {step}" for number, step in enumerate(answer.why, 1)]
    if answer.rules:
        rows = [["  SERVICE", "SERVED BY", "REASON"]]
        rows += [[f"  {rule.door}", rule.served_by, rule.reason] for rule in answer.rules]
        lines += ["", columns(rows)]
        lines += [f"  {rule.door}: {rule.message}" for rule in answer.rules if rule.message]
    return "\n".join(lines)


def spoken(answer: Answer) -> str:
    """An answer for people."""
    place = f"{answer.namespace}/{answer.service}:{answer.port}"
    lines = [f"{place} is served by {answer.served_by} ({endpoints(answer.ready_endpoints)})", ""]
    lines += [f"  {number}. {step}" for number, step in enumerate(answer.why, 1)]
    if answer.other_keys:
        rows: list[list[Any]] = [["  KEY", "OF", "SERVED BY", "REASON"]]
        rows += [[f"  {rule.key}", rule.via, rule.served_by, rule.reason] for rule in answer.other_keys]
        lines += ["", "with another key:", columns(rows)]
    return "\n".join(lines)


def endpoints(count: int) -> str:
    """How many, in words."""
    return f"{count} ready endpoint{'' if count == 1 else 's'}"
