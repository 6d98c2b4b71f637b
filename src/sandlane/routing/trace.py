"""A probing request's way, from what the routers logged of it: where it arrived with its key, and where that was lost. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sandlane.routing.envoy.probe import MARK, PROBE_MEMBER, TRACE_PREFIX
from sandlane.routing.key import MEMBER, KeySources, find_key
from sandlane.routing.rules import Rule

ARRIVED, LOST, UNSEEN = "arrived", "lost", "unseen"


class Probe(msgspec.Struct, frozen=True):
    """What marks one probing request. `id` has 24 hexadecimal digits."""

    id: str
    key: str
    member: str = MEMBER
    """The baggage member that carries the key; empty: the caller's own headers do."""

    @property
    def trace_id(self) -> str:
        """The trace id of everything that is done for the request."""
        return TRACE_PREFIX + self.id

    def headers(self, baggage: str = "") -> dict[str, str]:
        """What is sent; `baggage` is the caller's own."""
        members = [f"{self.member}={self.key}"] if self.key and self.member else []
        members += [f"{PROBE_MEMBER}={self.id}", *([baggage] if baggage else [])]
        return {"traceparent": f"00-{self.trace_id}-{self.id[:16]}-01", "baggage": ",".join(members)}


class Hop(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The probing request, or a call made for it, at one door. `at` and `seconds`: when it came, and how long it took."""

    door: str
    """NAMESPACE/SERVICE:PORT."""
    at: float
    seconds: float
    method: str
    path: str
    status: int
    served_by: str
    key: str = ""
    has_trace: bool = False
    has_baggage: bool = False
    """Whether the probe's own member was in the baggage."""
    caller: str = ""
    """The door whose call this was, as far as the times tell; empty for the first."""


class Trace(msgspec.Struct, frozen=True, rename="camel"):
    """What is known of a probe: `verdict` is arrived | lost | unseen, `message` says it for people."""

    verdict: str
    message: str
    key: str
    hops: tuple[Hop, ...]
    not_reached: tuple[str, ...]
    """Doors where the key has a route, and no router saw the probe."""
    entry: str = ""
    """The door that was asked, if it is known."""


def hops_in(lines: Iterable[str], probe: Probe, sources: KeySources | None = None) -> list[Hop]:
    """The hops of a probe in routers' logs, in order of time, each with its caller."""
    found = []
    for line in lines:
        if MARK not in line:
            continue
        try:
            logged = json.loads(line)
        except ValueError:
            continue
        if isinstance(logged, dict) and logged.get(MARK) and (hop := _hop(logged, probe, sources)) is not None:
            found.append(hop)
    found.sort(key=lambda hop: (hop.at, -hop.seconds, hop.door))
    return [msgspec.structs.replace(hop, caller=_caller(found[:index], hop)) for index, hop in enumerate(found)]


def _hop(logged: dict[str, Any], probe: Probe, sources: KeySources | None) -> Hop | None:
    def text(name: str) -> str:
        value = logged.get(name)
        return "" if value in (None, "-") else str(value)

    has_trace = text("traceparent").startswith(f"00-{probe.trace_id}-")
    has_baggage = f"{PROBE_MEMBER}={probe.id}" in text("baggage")
    if not has_trace and not has_baggage:
        return None  # another probe's
    others = logged.get("headers")
    headers = [("baggage", text("baggage")), ("tracestate", text("tracestate"))]
    headers += [(name, str(value)) for name, value in (others if isinstance(others, dict) else {}).items() if value]
    key = find_key(headers, text("path"), sources)
    try:
        return Hop(
            text(MARK),
            float(text("at") or 0),
            float(text("milliseconds") or 0) / 1000,
            text("method"),
            text("path"),
            int(text("status") or 0),
            text("servedBy"),
            key.key if key else "",
            has_trace,
            has_baggage,
        )
    except ValueError:
        return None


def _caller(before: Sequence[Hop], hop: Hop) -> str:
    """The innermost earlier hop that was still under way: a call is made while its caller is."""
    for other in reversed(before):
        if other.at + other.seconds >= hop.at + hop.seconds - 0.001:
            return other.door
    return ""


def judge(probe: Probe, hops: Sequence[Hop], rules: Iterable[Rule], status: int, entry: str = "") -> Trace:
    """Where the key was lost, if it was. `status` is the answer's; 0: there was none."""
    seen = {hop.door for hop in hops}
    wanted = sorted({str(rule.door) for rule in rules if rule.key == probe.key and rule.active})
    missing = tuple(door for door in wanted if door not in seen)

    def told(verdict: str, message: str) -> Trace:
        return Trace(verdict, message, probe.key, tuple(hops), missing, entry)

    lost = next((hop for hop in hops if probe.key and hop.key != probe.key), None)
    if not hops:
        message = "no router saw the probe: nothing on its way goes through one, or it never arrived"
        return told(UNSEEN, f"{message} (annotate Services with sandlane.dev/routing: always to see more hops)")
    if lost is not None:
        return told(LOST, _where(hops, lost))
    count = f"{len(hops)} hop{'' if len(hops) == 1 else 's'}"
    message = f"the key arrived at all {count} that routers saw" if probe.key else f"{count} without a key"
    if missing:
        message += (
            f"; {', '.join(missing)} {'has' if len(missing) == 1 else 'have'} a route for the key and did not see the probe: nobody"
            " called for this request, or who did passed on neither baggage nor traceparent"
        )
    if status >= 500 or not status:
        message += f"; the answer was {status or 'none'}"
    return told(ARRIVED, message)


def _where(hops: Sequence[Hop], lost: Hop) -> str:
    """Who lost the key, as exactly as it can be said."""
    came = "another key" if lost.key else "no key"
    kept = "the trace context arrived" if lost.has_trace else "the probe's baggage arrived"
    callers = {hop.door: hop for hop in hops}
    caller = callers.get(lost.caller)
    if lost.caller and caller is not None:
        who = f"{caller.served_by} behind {caller.door}" if caller.served_by else caller.door
        return (
            f"lost between {caller.door} and {lost.door}: the call to {lost.door} had {came} ({kept}). Either {who} made it and does"
            " not pass baggage on, or a service between them that no router sees"
        )
    return f"lost before {lost.door}: the request came with {came} ({kept}); a proxy or service before it takes baggage off"
