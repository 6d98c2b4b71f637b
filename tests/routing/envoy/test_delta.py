"""The delta xDS machine against a small model of Envoy: order, removals, refusals, reconnects."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.routing.envoy.delta import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    DeltaRequest,
    DeltaResponse,
    DeltaStream,
    Snapshot,
)
from support.thorough import cases

Resources = dict[str, dict[str, bytes]]


class Envoy:
    """Subscribes to everything, asks for the endpoints of its clusters, refuses resources that contain `bad`.

    A listener's bytes name the cluster that it refers to; `dangling` collects listeners whose cluster or endpoints were
    missing at any time.
    """

    def __init__(self, stream: DeltaStream, have: Mapping[str, Mapping[str, tuple[str, bytes]]] | None = None) -> None:
        self.stream = stream
        self.have: dict[str, dict[str, tuple[str, bytes]]] = {CLUSTER: {}, ENDPOINTS: {}, LISTENER: {}}
        for type_url, named in (have or {}).items():
            self.have[type_url] = dict(named)
        self.seen: list[DeltaResponse] = []
        self.dangling: list[str] = []
        self.asked: set[str] = set()
        self.unconfirmed: list[str] = []
        for type_url in (CLUSTER, LISTENER):
            versions = {name: version for name, (version, _) in self.have[type_url].items()}
            stream.receive(DeltaRequest(type_url, initial_versions=versions))
        if self.have[CLUSTER]:
            versions = {name: version for name, (version, _) in self.have[ENDPOINTS].items()}
            self.asked = set(self.have[CLUSTER])
            stream.receive(DeltaRequest(ENDPOINTS, sorted(self.asked), initial_versions=versions))

    def take(self, snapshot: Snapshot) -> None:
        """Exchange messages until the server has nothing more to say."""
        for _ in range(200):
            responses = self.stream.respond(snapshot)
            if not responses:
                return
            for response in responses:
                self._apply(response)
        raise AssertionError("the exchange never ends")

    def _apply(self, response: DeltaResponse) -> None:
        self.seen.append(response)
        bad = [name for name, resource in response.resources if b"bad" in resource.data]
        if bad:
            self.stream.receive(DeltaRequest(response.type_url, nonce=response.nonce, error=f"refused {bad}"))
            return
        mine = self.have[response.type_url]
        mine.update({name: (resource.version, resource.data) for name, resource in response.resources})
        for name in response.removed:
            mine.pop(name, None)
        if response.type_url != CLUSTER:
            self.stream.receive(DeltaRequest(response.type_url, nonce=response.nonce))
        else:
            self.unconfirmed.append(response.nonce)
            new, old = set(mine) - self.asked, self.asked - set(mine)
            for name in old:
                self.have[ENDPOINTS].pop(name, None)
            self.asked = set(mine)
            if new or old:
                self.stream.receive(DeltaRequest(ENDPOINTS, sorted(new), sorted(old)))
        if set(self.have[CLUSTER]) <= set(self.have[ENDPOINTS]):  # no cluster is warming
            for nonce in self.unconfirmed:
                self.stream.receive(DeltaRequest(CLUSTER, nonce=nonce))
            self.unconfirmed.clear()
        for name, (_, data) in self.have[LISTENER].items():
            cluster = data.decode()
            if cluster not in self.have[CLUSTER] or cluster not in self.have[ENDPOINTS]:
                self.dangling.append(name)

    def holds(self) -> Resources:
        return {type_url: {name: data for name, (_, data) in mine.items()} for type_url, mine in self.have.items()}


def world(*names: str, suffix: bytes = b"") -> Resources:
    """For each name a cluster, its endpoints, and a listener that refers to it."""
    return {
        CLUSTER: {name: name.encode() + suffix for name in names},
        ENDPOINTS: {name: b"at " + name.encode() + suffix for name in names},
        LISTENER: {f"on-{name}": name.encode() for name in names},
    }


def test_clusters_and_endpoints_come_before_listeners() -> None:
    """What refers to something is sent only after that was confirmed."""
    envoy = Envoy(DeltaStream())
    envoy.take(Snapshot(world("a", "b")))
    assert [r.type_url for r in envoy.seen] == [CLUSTER, ENDPOINTS, LISTENER]
    assert envoy.holds() == world("a", "b")
    assert envoy.dangling == []


def test_removals_go_the_other_way_round() -> None:
    """A cluster goes only after the listener that refers to it."""
    envoy = Envoy(DeltaStream())
    envoy.take(Snapshot(world("a", "b")))
    envoy.seen.clear()
    envoy.take(Snapshot(world("b")))
    assert [(r.type_url, r.removed) for r in envoy.seen] == [(LISTENER, ("on-a",)), (CLUSTER, ("a",))]
    assert envoy.holds() == world("b")
    assert envoy.dangling == []


def test_only_differences_are_sent() -> None:
    """A changed resource is sent alone; an unchanged snapshot sends nothing."""
    envoy = Envoy(DeltaStream())
    first = Snapshot(world("a", "b"))
    envoy.take(first)
    envoy.seen.clear()
    changed = world("a", "b")
    changed[ENDPOINTS]["b"] = b"elsewhere"
    envoy.take(Snapshot(changed, first))
    assert [[name for name, _ in r.resources] for r in envoy.seen] == [["b"]]
    envoy.seen.clear()
    envoy.take(Snapshot(changed, first))
    assert envoy.seen == []


def test_one_bad_resource_costs_only_itself() -> None:
    """After a refusal each resource is sent alone; the bad one is reported once and not sent again until it changes."""
    stream = DeltaStream()
    envoy = Envoy(stream)
    resources = world("a", "b", "c")
    resources[LISTENER]["on-b"] = b"bad"
    envoy.take(Snapshot(resources))
    assert set(envoy.have[LISTENER]) == {"on-a", "on-c"}
    assert [refusal.name for refusal in stream.refusals] == ["on-b"]
    assert not stream.serves(Snapshot(resources))
    envoy.take(Snapshot(world("a", "b", "c")))
    assert envoy.holds() == world("a", "b", "c")
    assert stream.serves(Snapshot(world("a", "b", "c")))


def test_a_refused_change_leaves_the_old_one() -> None:
    """A refused new version is not taken for held: going back to the old version sends nothing."""
    envoy = Envoy(DeltaStream())
    envoy.take(Snapshot(world("a")))
    broken = world("a")
    broken[LISTENER]["on-a"] = b"bad"
    envoy.take(Snapshot(broken))
    envoy.seen.clear()
    envoy.take(Snapshot(world("a")))
    assert envoy.seen == []


def test_reconnecting_clients_get_what_they_lack() -> None:
    """A client that names the versions it has gets only the difference, and learns what is gone."""
    before = Envoy(DeltaStream())
    before.take(Snapshot(world("a", "b")))
    again = Envoy(DeltaStream(), before.have)
    again.take(Snapshot(world("b", "c")))
    assert {name for r in again.seen for name, _ in r.resources} == {"c", "on-c"}
    assert again.holds() == world("b", "c")
    assert again.dangling == []


def test_a_reconnecting_client_is_answered_after_each_of_its_requests() -> None:
    """Endpoints that it still has are not waited for, though it asks for them after its clusters were looked at."""
    before, snapshot = Envoy(DeltaStream()), Snapshot(world("a", "b"))
    before.take(snapshot)
    changed = world("a", "b")
    changed[LISTENER]["on-a"] = b"b"
    after, stream = Snapshot(changed), DeltaStream()
    sent = []
    for type_url in (CLUSTER, ENDPOINTS, LISTENER):
        versions = {name: version for name, (version, _) in before.have[type_url].items()}
        asked = sorted(versions) if type_url == ENDPOINTS else []
        stream.receive(DeltaRequest(type_url, asked, initial_versions=versions))
        for response in stream.respond(after):
            sent += [name for name, _ in response.resources]
            stream.receive(DeltaRequest(response.type_url, nonce=response.nonce))
    assert sent == ["on-a"]
    assert stream.serves(after)


def test_unknown_names_are_answered() -> None:
    """A name that does not exist is said to be removed, so that the client does not wait for it."""
    stream = DeltaStream()
    stream.receive(DeltaRequest(ROUTES, ["none"]))
    (answer,) = stream.respond(Snapshot({}))
    assert (answer.resources, answer.removed) == ((), ("none",))
    stream.receive(DeltaRequest(ROUTES, nonce=answer.nonce))
    assert stream.respond(Snapshot({})) == []
    (later,) = stream.respond(Snapshot({ROUTES: {"none": b"now"}}))
    assert [name for name, _ in later.resources] == ["none"]


def test_an_empty_world_is_said_once() -> None:
    """A client that asks for everything hears that there is nothing, and serves that."""
    stream = DeltaStream()
    envoy = Envoy(stream)
    envoy.take(Snapshot({}))
    assert [r.type_url for r in envoy.seen] == [CLUSTER, LISTENER]
    assert stream.serves(Snapshot({}))


@settings(max_examples=cases(100))
@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.sampled_from([b"", b"2"])), min_size=1, max_size=6))
def test_any_history_ends_right_and_never_dangles(history: list[tuple[set[str], bytes]]) -> None:
    """After any sequence of snapshots the client holds the last one, and no listener ever lacked its cluster."""
    envoy, snapshot = Envoy(DeltaStream()), Snapshot({})
    for names, suffix in history:
        resources = world(*sorted(names), suffix=suffix)
        snapshot = Snapshot(resources, snapshot)
        envoy.take(snapshot)
        assert envoy.holds() == resources
        assert envoy.dangling == []
        assert envoy.stream.serves(snapshot)
