"""The delta variant of xDS as a value machine: requests in, responses out, no I/O.

Rules: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol, "Incremental xDS" and "Eventual consistency".
What is new goes out before what refers to it, and what is gone stays until nothing refers to it: clusters, then their
endpoints, then listeners and routes; removals the other way round, each step after the client has confirmed the one
before. A response that the client refuses is sent again one resource at a time, so that one bad resource costs only
itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TYPE = "type.googleapis.com/envoy.config."
CLUSTER = _TYPE + "cluster.v3.Cluster"
ENDPOINTS = _TYPE + "endpoint.v3.ClusterLoadAssignment"
LISTENER = _TYPE + "listener.v3.Listener"
SCOPED_ROUTES = _TYPE + "route.v3.ScopedRouteConfiguration"
ROUTES = _TYPE + "route.v3.RouteConfiguration"
SECRETS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
ORDER = (CLUSTER, ENDPOINTS, LISTENER, SCOPED_ROUTES, ROUTES)
"""Additions go out in this order; any other type comes after these."""
WILDCARD = "*"


@dataclass(frozen=True)
class Encoded:
    """One resource: its encoded message, and a hash of it as its version."""

    data: bytes
    version: str


def encode(data: bytes) -> Encoded:
    """Bytes with their version."""
    return Encoded(data, hashlib.sha256(data).hexdigest()[:16])


class Snapshot:
    """All resources of one group of clients: type URL -> name -> resource."""

    def __init__(self, resources: Mapping[str, Mapping[str, bytes]], before: Snapshot | None = None) -> None:
        old = before.types if before is not None else {}
        self.types: dict[str, dict[str, Encoded]] = {
            type_url: {name: _kept(old.get(type_url, {}).get(name), data) for name, data in named.items()}
            for type_url, named in resources.items()
        }

    def of(self, type_url: str) -> Mapping[str, Encoded]:
        """The resources of one type."""
        return self.types.get(type_url, {})


def _kept(old: Encoded | None, data: bytes) -> Encoded:
    return old if old is not None and old.data == data else encode(data)


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
    refused: dict[str, str] = field(default_factory=dict)  # name -> version that is not sent again

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


class DeltaStream:
    """One client's stream."""

    def __init__(self) -> None:
        self._types: dict[str, _Type] = {}
        self._count = 0
        self.refusals: list[Refusal] = []

    def receive(self, request: DeltaRequest) -> None:
        """Take in a request: subscriptions, confirmations, refusals."""
        known = self._types.get(request.type_url)
        state = known or self._types.setdefault(request.type_url, _Type())
        if known is None:
            state.versions.update(request.initial_versions)
            state.wildcard = not request.subscribe
        for name in request.subscribe:
            if name == WILDCARD:
                state.wildcard = True
                continue
            state.names.add(name)
            state.unknown.add(name)
            if known is not None:
                state.versions.pop(name, None)  # asked for anew: must be answered
        for name in request.unsubscribe:
            if name == WILDCARD:
                state.wildcard = False
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
                state.refused[name] = tried
                state.suspects.discard(name)
                self.refusals.append(Refusal(type_url, name, tried, error))
            elif not alone:
                state.suspects.add(name)
            if before is None:
                state.versions.pop(name, None)
            else:
                state.versions[name] = before

    def respond(self, snapshot: Snapshot) -> list[DeltaResponse]:
        """What may be sent now. Call again after each request and each new snapshot."""
        out: list[DeltaResponse] = []
        held = False
        for type_url in (*ORDER, *sorted(self._types.keys() - set(ORDER))):
            state = self._types.get(type_url)
            if state is None or (held and type_url not in (ENDPOINTS, SECRETS)):
                continue
            may_remove = type_url not in (CLUSTER, ENDPOINTS) or self._referrers_done(type_url, snapshot)
            out += self._respond(type_url, state, snapshot, may_remove)
            # What comes later may refer to these. Endpoints and secrets never wait: a cluster warms only with them.
            if type_url in (CLUSTER, ENDPOINTS):
                held = held or bool(state.outstanding) or self._endpoints_awaited(type_url, snapshot)
        return out

    def _respond(self, type_url: str, state: _Type, snapshot: Snapshot, may_remove: bool) -> list[DeltaResponse]:
        if state.outstanding:
            return []
        there = snapshot.of(type_url)
        changed = [
            name
            for name, resource in there.items()
            if state.wants(name)
            and state.versions.get(name) != resource.version
            and state.refused.get(name) != resource.version
        ]
        gone = [name for name in state.versions if name not in there] if may_remove else []
        gone += [name for name in state.unknown if name not in there and name not in state.versions]
        state.unknown.clear()
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
        return [response]

    def _endpoints_awaited(self, type_url: str, snapshot: Snapshot) -> bool:
        """Whether the client has clusters whose endpoints it has not asked for yet; it is about to."""
        if type_url != CLUSTER:
            return False
        clusters, endpoints = self._types[CLUSTER], self._types.get(ENDPOINTS)
        known = endpoints.versions if endpoints is not None else {}
        if endpoints is not None and any(
            endpoints.wants(name) and name not in known for name in snapshot.of(ENDPOINTS)
        ):
            return False  # they are sent next
        return any(name in clusters.versions and name not in known for name in snapshot.of(ENDPOINTS))

    def _referrers_done(self, type_url: str, snapshot: Snapshot) -> bool:
        """Whether all later types are as they should be, so that nothing refers to what goes."""
        later = (CLUSTER, *ORDER[2:]) if type_url == ENDPOINTS else ORDER[2:]
        states = [(each, self._types[each]) for each in later if each in self._types]
        return all(not state.outstanding and self._is_current(each, state, snapshot) for each, state in states)

    @staticmethod
    def _is_current(type_url: str, state: _Type, snapshot: Snapshot) -> bool:
        there = snapshot.of(type_url)
        wanted = {name: r.version for name, r in there.items() if state.wants(name)}
        settled = all(
            state.versions.get(name) == version or state.refused.get(name) == version
            for name, version in wanted.items()
        )
        return settled and all(name in there for name in state.versions)

    def serves(self, snapshot: Snapshot) -> bool:
        """Whether the client has confirmed everything of a snapshot that it asked for, and holds nothing else."""
        return bool(self._types) and all(
            state.answered and not state.outstanding and not state.refused
            and self._is_current(type_url, state, snapshot)
            for type_url, state in self._types.items()
        )  # fmt: skip
