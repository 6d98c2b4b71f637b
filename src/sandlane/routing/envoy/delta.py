"""The delta variant of xDS as a value machine: requests in, responses out, no I/O.

Rules: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol, "Incremental xDS" and "Eventual consistency".
What is new goes out before what refers to it, and what is gone stays until nothing refers to it: clusters, then their
endpoints, then listeners and routes; removals the other way round, each step after the client has confirmed the one
before. A response that the client refuses is sent again one resource at a time, so that one bad resource costs only
itself; the last good version of it stays.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_TYPE = "type.googleapis.com/envoy.config."
CLUSTER = _TYPE + "cluster.v3.Cluster"
ENDPOINTS = _TYPE + "endpoint.v3.ClusterLoadAssignment"
LISTENER = _TYPE + "listener.v3.Listener"
SCOPED_ROUTES = _TYPE + "route.v3.ScopedRouteConfiguration"
ROUTES = _TYPE + "route.v3.RouteConfiguration"
SECRETS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
KNOWN = frozenset((CLUSTER, ENDPOINTS, LISTENER, SCOPED_ROUTES, ROUTES, SECRETS))
ORDER = (CLUSTER, ENDPOINTS, LISTENER, SCOPED_ROUTES, ROUTES)
"""Additions go out in this order; any other type comes after these."""
WILDCARD = "*"
MARK = "digest"
"""The route configuration that says what is served: it goes out when everything else has been confirmed."""
_SERIALS = itertools.count(1)
Types = dict[str, dict[str, "Encoded"]]


@dataclass(frozen=True)
class Encoded:
    """One resource: its encoded message, and a hash of it as its version."""

    data: bytes
    version: str


def encode(data: bytes) -> Encoded:
    """Bytes with their version."""
    return Encoded(data, hashlib.sha256(data).hexdigest()[:16])


class Snapshot:
    """All resources of one group of clients: type URL -> name -> resource; and what has changed since the one before."""

    def __init__(self, resources: Mapping[str, Mapping[str, bytes]], before: Snapshot | None = None) -> None:
        old = before.types if before is not None else {}
        self.types: Types = {
            type_url: {name: _kept(old.get(type_url, {}).get(name), data) for name, data in named.items()}
            for type_url, named in resources.items()
        }
        self.before: int = before.serial if before is not None else 0
        self.serial: int = next(_SERIALS)
        self.changed: dict[str, set[str]] = {
            type_url: names
            for type_url in self.types.keys() | old.keys()
            if (names := _difference(old.get(type_url, {}), self.types.get(type_url, {})))
        }

    def with_changes(self, changes: Mapping[str, Mapping[str, bytes | None]]) -> Snapshot:
        """The next one: some resources set, those with None taken out. Costs what changes, and a copy of those types."""
        made = Snapshot.__new__(Snapshot)
        made.types, made.changed = dict(self.types), {}
        made.before, made.serial = self.serial, next(_SERIALS)
        for type_url, named in changes.items():
            old = self.of(type_url)
            fresh = dict(old)
            for name, data in named.items():
                if data is None:
                    fresh.pop(name, None)
                else:
                    fresh[name] = _kept(old.get(name), data)
            made.types[type_url] = fresh
            if touched := {name for name in named if fresh.get(name) is not old.get(name)}:
                made.changed[type_url] = touched
        return made

    def of(self, type_url: str) -> Mapping[str, Encoded]:
        """The resources of one type."""
        return self.types.get(type_url, {})


def _kept(old: Encoded | None, data: bytes) -> Encoded:
    return old if old is not None and old.data == data else encode(data)


def _difference(old: Mapping[str, Encoded], new: Mapping[str, Encoded]) -> set[str]:
    return {name for name in old.keys() | new.keys() if old.get(name) is not new.get(name)}


@dataclass(frozen=True)
class DeltaRequest:
    """A `DeltaDiscoveryRequest`, but its node."""

    type_url: str
    subscribe: Sequence[str] = ()
    unsubscribe: Sequence[str] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True)
class DeltaResponse:
    """A `DeltaDiscoveryResponse`."""

    type_url: str
    nonce: str
    resources: tuple[tuple[str, Encoded], ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """A resource that the client refused, and what it said."""

    type_url: str
    name: str
    version: str
    error: str


@dataclass
class _Sent:
    """A response that the client has not answered: what it replaced, so that a refusal can be taken back."""

    before: dict[str, str | None]


@dataclass
class _Type:
    """What one stream has of one type."""

    wildcard: bool = False
    answered: bool = False
    names: set[str] = field(default_factory=set)
    versions: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)  # asked for by name, not there: to be said once
    outstanding: dict[str, _Sent] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)  # were in a refused response: to be sent singly
    refused: dict[str, Refusal] = field(default_factory=dict)  # by name; not sent again in that version
    dirty: set[str] = field(default_factory=set)  # may differ from what is published
    unread: bool = True  # everything may

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def prune(self, there: Mapping[str, Encoded]) -> None:
        """Leave in `dirty` what has to be sent, or to be taken away."""
        self.dirty = {name for name in self.dirty if self._differs(name, there.get(name))}

    def _differs(self, name: str, resource: Encoded | None) -> bool:
        if resource is None:
            self.refused.pop(name, None)
            return name in self.versions or name in self.unknown
        if not self.wants(name):
            return False
        if self.versions.get(name) == resource.version:
            self.refused.pop(name, None)
            return False
        refused = self.refused.get(name)
        return refused is None or refused.version != resource.version


class DeltaStream:
    """One client's stream. What it costs to respond grows with what has changed, not with what there is.

    A client gets the resources of one or several layers; each type is in one of them only.
    """

    def __init__(self) -> None:
        self._types: dict[str, _Type] = {}
        self._count = 0
        self._seen: tuple[int, ...] = ()
        self._asked = True  # something else than a confirmation has come since the last look
        self._awaited: set[str] = set()  # clusters that were sent, whose endpoints were not
        self.refusals: list[Refusal] = []
        """New refusals, for whoever takes them away."""

    @property
    def refused(self) -> list[Refusal]:
        """What the client does not take, as it is published now."""
        return [refusal for state in self._types.values() for refusal in state.refused.values()]

    def receive(self, request: DeltaRequest) -> None:
        """Take in a request: subscriptions, confirmations, refusals."""
        known = self._types.get(request.type_url)
        state = known or self._types.setdefault(request.type_url, _Type())
        self._asked = self._asked or known is None or bool(request.subscribe or request.unsubscribe or request.error)
        if known is None:
            state.versions.update(request.initial_versions)
            state.wildcard = not request.subscribe
            if request.type_url == ENDPOINTS:
                self._awaited -= request.initial_versions.keys()  # it has kept them over a reconnect
        for name in request.subscribe:
            if name == WILDCARD:
                state.wildcard = state.unread = True
                continue
            state.names.add(name)
            state.unknown.add(name)
            state.dirty.add(name)
            if known is not None:
                state.versions.pop(name, None)  # asked for anew: must be answered
        for name in request.unsubscribe:
            if name == WILDCARD:
                state.wildcard, state.unread = False, True
                continue
            state.names.discard(name)
            state.unknown.discard(name)
            if not state.wildcard:
                state.versions.pop(name, None)
        sent = state.outstanding.pop(request.nonce, None) if request.nonce else None
        if sent is not None and request.error is not None:
            self._refused(request.type_url, state, sent, request.error)
        elif sent is not None:
            state.suspects -= sent.before.keys()

    def _refused(self, type_url: str, state: _Type, sent: _Sent, error: str) -> None:
        alone = len(sent.before) == 1
        for name, before in sent.before.items():
            tried = state.versions.get(name)
            if alone and tried is not None:
                state.refused[name] = Refusal(type_url, name, tried, error)
                state.suspects.discard(name)
                self.refusals.append(state.refused[name])
            elif not alone:
                state.suspects.add(name)
            state.dirty.add(name)
            if before is None:
                state.versions.pop(name, None)
                self._awaited.discard(name)
            else:
                state.versions[name] = before

    def respond(self, *layers: Snapshot, keep: bool = False) -> list[DeltaResponse]:
        """What may be sent now. Call again after each request and each new snapshot.

        With `keep`, no cluster is taken away yet: connections of listeners that have gone may still use it.
        """
        self._absorb(layers)
        out: list[DeltaResponse] = []
        held = False
        for type_url in (*ORDER, *sorted(self._types.keys() - set(ORDER))):
            state = self._types.get(type_url)
            if state is None or (held and type_url not in (ENDPOINTS, SECRETS)):
                continue
            if state.dirty or not state.answered:
                may_remove = type_url not in (CLUSTER, ENDPOINTS) or (not keep and self._referrers_done(type_url))
                out += self._respond(type_url, state, layers, may_remove)
            # What comes later may refer to these. Endpoints and secrets never wait: a cluster warms only with them.
            if type_url in (CLUSTER, ENDPOINTS):
                held = held or bool(state.outstanding)
            if type_url == ENDPOINTS or ENDPOINTS not in self._types:
                held = held or bool(self._awaited)  # the client is about to ask for them
        return out

    def _absorb(self, layers: tuple[Snapshot, ...]) -> None:
        """Take in what has changed in the layers since the last time."""
        seen, self._seen = self._seen, tuple(layer.serial for layer in layers)
        if seen == self._seen and not self._asked:
            return
        following = len(seen) == len(layers) and all(
            before in (layer.serial, layer.before) for before, layer in zip(seen, layers, strict=True)
        )
        for type_url, state in self._types.items():
            if not following or state.unread:
                state.dirty = _of(layers, type_url).keys() | state.versions.keys() | state.unknown
                state.unread = False
            else:
                for before, layer in zip(seen, layers, strict=True):
                    if before != layer.serial:
                        state.dirty |= layer.changed.get(type_url, set())
            if state.dirty:
                state.prune(_of(layers, type_url))
        self._asked = False
        if not following:
            self._awaited = self._unanswered(self._versions(CLUSTER), layers)

    def _versions(self, type_url: str) -> dict[str, str]:
        state = self._types.get(type_url)
        return state.versions if state is not None else {}

    def _unanswered(self, clusters: Iterable[str], layers: tuple[Snapshot, ...]) -> set[str]:
        """Those clusters that have endpoints which the client does not have."""
        there, known = _of(layers, ENDPOINTS), self._versions(ENDPOINTS)
        return {name for name in clusters if name in there and name not in known}

    def _respond(
        self, type_url: str, state: _Type, layers: tuple[Snapshot, ...], may_remove: bool
    ) -> list[DeltaResponse]:
        if state.outstanding:
            return []
        there = _of(layers, type_url)
        changed = sorted(name for name in state.dirty if name in there)
        gone = [name for name in state.dirty if name not in there and (may_remove or name not in state.versions)]
        if MARK in changed and type_url == ROUTES and not self._confirmed(layers):
            changed.remove(MARK)
        first = not state.answered and (state.wildcard or bool(changed or gone))
        if not (changed or gone or first):
            return []
        single = [name for name in changed if name in state.suspects]
        if single:
            changed = single[:1]
        state.answered = True
        self._count += 1
        response = DeltaResponse(
            type_url, str(self._count), tuple((name, there[name]) for name in changed), tuple(sorted(gone))
        )
        state.outstanding[response.nonce] = _Sent({name: state.versions.get(name) for name in changed})
        for name in changed:
            state.versions[name] = there[name].version
            state.refused.pop(name, None)
        for name in gone:
            state.versions.pop(name, None)
        state.unknown.clear()
        state.dirty -= {*changed, *gone}
        if type_url == CLUSTER:
            self._awaited = (self._awaited | self._unanswered(changed, layers)) - set(gone)
        elif type_url == ENDPOINTS:
            self._awaited -= {*changed, *gone}
        return [response]

    def _confirmed(self, layers: tuple[Snapshot, ...]) -> bool:
        """Whether the client has confirmed all that it is to have but the mark; what only has to go does not count."""
        return not any(
            state.outstanding
            or state.refused
            or (state.dirty and any(name in _of(layers, type_url) for name in state.dirty if name != MARK))
            for type_url, state in self._types.items()
        )

    def _referrers_done(self, type_url: str) -> bool:
        """Whether all later types are as they should be, so that nothing refers to what goes."""
        later = (CLUSTER, *ORDER[2:]) if type_url == ENDPOINTS else ORDER[2:]
        states = [self._types[each] for each in later if each in self._types]
        return not any(state.outstanding or state.dirty for state in states)

    def has_all(self, *layers: Snapshot) -> bool:
        """Whether the client has confirmed everything that it is to have; what has to go may still be there."""
        self._absorb(layers)
        marked = ROUTES not in self._types or MARK not in self._types[ROUTES].dirty
        return marked and self._confirmed(layers)

    def settled(self, *layers: Snapshot) -> bool:
        """Whether nothing is under way: all is confirmed or refused."""
        self._absorb(layers)
        return not any(state.outstanding or state.dirty - {MARK} for state in self._types.values())

    def serves(self, *layers: Snapshot) -> bool:
        """Whether the client has confirmed everything of its layers that it asked for, and holds nothing else."""
        self._absorb(layers)
        return bool(self._types) and all(
            (state.answered or not state.wildcard) and not (state.outstanding or state.refused or state.dirty)
            for state in self._types.values()
        )


def _of(layers: tuple[Snapshot, ...], type_url: str) -> Mapping[str, Encoded]:
    """The resources of one type in the layer that has it."""
    return next((layer.types[type_url] for layer in layers if type_url in layer.types), {})
