"""What the routers say about sandboxes and route groups: whether their routes are programmed, and still served."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from sandlane.api import reasons
from sandlane.api.keys import routing_key
from sandlane.kube.resource import Key
from sandlane.routing.build import not_routable, protocol, routes_to
from sandlane.routing.envoy.routes import shard_name
from sandlane.routing.groups import matched_sandboxes
from sandlane.routing.overrides import shard_of
from sandlane.routing.publisher import Publisher
from sandlane.routing.table import Backend, Door, Override
from sandlane.routing.turning import is_right, is_turned
from sandlane.world.records import Service
from sandlane.world.world import World

Callback = Callable[[str, Key], None]
_Owner = tuple[str, Key]


class RouteReport(msgspec.Struct, frozen=True):
    """`programmed`: every ready router serves the routes as they should be now. `served`: some router still has one.

    With a reason although they are programmed: what cannot be routed by key, while the rest is.
    """

    programmed: bool
    reason: str = ""
    message: str = ""
    served: bool = False


class RouteReports:
    """Answers for sandboxes and route groups from the live table, and says when an answer changes."""

    def __init__(self, world: World, publisher: Publisher) -> None:
        self._world = world
        self._publisher = publisher
        self._callbacks: list[Callback] = []
        self._last: dict[_Owner, RouteReport] = {}
        self._unsettled: set[_Owner] = set()  # what they are told may change without a change of their routes
        self._confirmed: dict[str, frozenset[tuple[Door, Backend]]] = {}
        self._places: dict[str, set[str]] = {}  # namespaces of what was confirmed last
        self._answered: dict[str, object] = {}  # namespace -> what its routers said when its owners were told last
        publisher.subscribe(self._namespace_changed)

    def subscribe(self, callback: Callback) -> None:
        """Call back with kind and key whenever a report changes."""
        self._callbacks.append(callback)

    def sandbox(self, key: Key) -> RouteReport | None:
        """The report of a sandbox under its own key."""
        sandbox = self._world.sandboxes.get(key)
        via = f"Sandbox {key}"
        if sandbox is None:
            self._forget("Sandbox", key)
            return None
        routing = routing_key(sandbox.metadata.uid, sandbox.spec.routing_key)
        found = routes_to(self._world, sandbox, via, self._publisher.held())
        wanted = list(_first_of_each(found).items())
        report = self._report(wanted, routing, via, {sandbox.metadata.namespace}, _shared(found))
        return self._note("Sandbox", key, report, wanted=bool(wanted))

    def route_group(self, key: Key) -> RouteReport | None:
        """The report of a route group."""
        group = self._world.route_groups.get(key)
        via = f"RouteGroup {key}"
        if group is None:
            self._forget("RouteGroup", key)
            return None
        sandboxes = matched_sandboxes(self._world, group)
        held = self._publisher.held()
        wanted = _first_of_each(each for sandbox in sandboxes for each in routes_to(self._world, sandbox, via, held))
        routing = routing_key(group.metadata.uid, group.spec.routing_key)
        namespaces = {key.namespace, *group.spec.namespaces, *(each.metadata.namespace for each in sandboxes)}
        report = self._report(list(wanted.items()), routing, via, namespaces)
        return self._note("RouteGroup", key, report, wanted=bool(wanted))

    def _note(self, kind: str, key: Key, report: RouteReport, *, wanted: bool) -> RouteReport:
        self._last[kind, key] = report
        if report.programmed and report.served == wanted:
            self._unsettled.discard((kind, key))
        else:
            self._unsettled.add((kind, key))
        return report

    def _forget(self, kind: str, key: Key) -> None:
        self._confirmed.pop(f"{kind} {key}", None)
        self._places.pop(f"{kind} {key}", None)
        self._last.pop((kind, key), None)
        self._unsettled.discard((kind, key))

    def _report(
        self, wanted: list[tuple[Door, Override]], key: str, via: str, own: set[str], shared: Sequence[str] = ()
    ) -> RouteReport:
        """The report of what an object wants, which has routes in its `own` namespaces, or had them before.

        `shared` is what does not get the requests of a Service because something else of the object does.
        """
        doors = self._publisher.table.doors
        routes = self._publisher.routes(key)
        in_table = {door.namespace for door, override in routes.items() if override.via == via and door in doors}
        namespaces = in_table | own | self._places.get(via, set())
        some_ready = any(self._publisher.routers(each) for each in namespaces)
        late = [why for namespace in sorted(namespaces) for why in self._late(namespace)]
        served = bool(in_table) or bool(late and some_ready)
        refused = {door: why for door, _ in wanted if (why := self._refused(door))}
        if refused and len(refused) == len({door for door, _ in wanted}):
            return RouteReport(False, reasons.SERVICE_NOT_ROUTABLE, _sentence(refused.values()), served=served)
        routable = [(door, override) for door, override in wanted if door not in refused]
        for door, override in routable:
            problem = self._problem(door, override, routes.get(door))
            if problem is not None:
                self._confirmed.pop(via, None)
                return RouteReport(False, *problem, served=served)
        if rejected := self._rejected(routable, key, namespaces):
            return RouteReport(False, reasons.ROUTES_REJECTED, rejected, served=served)
        now = frozenset((door, override.backend) for door, override in routable)
        if late and (routable or some_ready) and self._confirmed.get(via) != now:
            self._confirmed.pop(via, None)  # should they become what they were, that is to be confirmed anew
            return RouteReport(False, reasons.PROGRESSING, "; ".join(late), served=served)
        self._places[via] = {door.namespace for door, _ in now}
        self._confirmed[via] = now  # what is late from now on is somebody else's change
        told = _sentence([*refused.values(), *(why for door, _ in routable if (why := self._keyless(door)))])
        reason = reasons.SERVICE_NOT_ROUTABLE if told else reasons.SERVICE_SHARED if shared else ""
        return RouteReport(True, reason, _sentence(filter(None, [told, *shared])), served)

    def _refused(self, door: Door) -> str:
        """Why the Service of a door cannot go through a router; empty when it can (or is gone)."""
        service = self._world.services.get(Key(door.namespace, door.service))
        why = not_routable(self._world.original(service)) if service is not None else ""
        return f"Service {door.service} cannot be routed by key: {why}" if why else ""

    def _keyless(self, door: Door) -> str:
        """Why no request at a door can carry a key."""
        service = self._world.services.get(Key(door.namespace, door.service))
        ports = self._world.original(service).spec.ports if service is not None else ()
        spoken = next((protocol(port) for port in ports if port.port == door.port), "")
        if spoken not in ("tcp", "udp"):
            return ""
        return (
            f"port {door.port} of Service {door.service} is {spoken}, which carries no key: the baseline answers there"
        )

    def _late(self, namespace: str) -> list[str]:
        """Why the routers of a namespace are behind; nothing where there are none and none is needed."""
        if not self._publisher.routers(namespace) and not self._publisher.table.fronts(namespace):
            return []
        return self._publisher.behind(namespace)

    def _rejected(self, wanted: list[tuple[Door, Override]], key: str, namespaces: Iterable[str]) -> str:
        """What routers refuse of what these routes need."""
        needed = {str(door) for door, _ in wanted} | {override.backend.name for _, override in wanted}
        needed |= {shard_name(door.namespace, shard_of(key)) for door, _ in wanted}
        return "; ".join(
            f"router {name} refuses {refusal.name}: {refusal.error}"
            for namespace in sorted(namespaces)
            for name, refusal in self._publisher.refusals(namespace)
            if any(refusal.name == each or refusal.name.startswith(each + "/") for each in needed)
        )

    def _problem(self, door: Door, override: Override, published: Override | None) -> tuple[str, str] | None:
        """Why one route is not served yet: reason and message."""
        service = self._world.services.get(Key(door.namespace, door.service))
        if service is None:
            return None  # it is gone: the sandbox's status will follow
        if in_the_way := self._publisher.obstacles.get(door.namespace):
            return reasons.NOT_OWNED, f"namespace {door.namespace} has no router: {in_the_way}"
        if manager := self._publisher.contested.get(service.metadata.key):
            return reasons.SERVICE_CONTESTED, f"Service {door.service} is left to {manager}, which keeps writing it"
        if why := self._publisher.barred.get(service.metadata.key):
            return reasons.POLICY_BLOCKS_TRAFFIC, why
        front = self._publisher.table.doors.get(door)
        if front is None:
            return reasons.PROGRESSING, f"Service {door.service} is being turned to the router"
        if not is_turned(service) or not is_right(service, _others(service) | {door.port: front.listener}):
            return reasons.PROGRESSING, f"Service {door.service} is being turned to the router"
        if published is None or published.via != override.via or published.backend != override.backend:
            return reasons.PROGRESSING, f"the route for Service {door.service} is not in the table yet"
        return None

    def _namespace_changed(self, namespace: str) -> None:
        """Tell those whose report is another one now: of those that were not settled, or whose routes have changed."""
        publisher = self._publisher
        barred = {key: why for key, why in publisher.barred.items() if key.namespace == namespace}
        answered = (
            publisher.behind(namespace),
            publisher.refusals(namespace),
            publisher.obstacles.get(namespace),
            barred,
        )
        owners: set[_Owner] = set()
        if self._answered.get(namespace) != answered:  # routers answer often, and mostly nothing new
            self._answered[namespace] = answered
            owners |= {each for each in self._unsettled if each[0] == "RouteGroup" or each[1].namespace == namespace}
        for via in self._publisher.rerouted:
            kind, _, name = via.partition(" ")
            owner = (kind, Key(*name.split("/")))
            if owner in self._last:
                owners.add(owner)
        for kind, key in sorted(owners):
            before = self._last.get((kind, key))
            report = self.sandbox(key) if kind == "Sandbox" else self.route_group(key)
            if before != report:
                for callback in self._callbacks:
                    callback(kind, key)


def _first_of_each(found: Iterable[tuple[Door, Override]]) -> dict[Door, Override]:
    """One destination for each door: the first that asks for it has it."""
    wanted: dict[Door, Override] = {}
    for door, override in found:
        wanted.setdefault(door, override)
    return wanted


def _shared(found: list[tuple[Door, Override]]) -> list[str]:
    """What is behind a Service whose requests something else of the same sandbox has."""
    first = _first_of_each(found)
    told = [
        f"Service {door.service} leads to {override.workload}, too: its requests go to {first[door].workload}"
        for door, override in found
        if first[door].workload != override.workload
    ]
    return list(dict.fromkeys(told))


def _sentence(parts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(parts))


def _others(service: Service) -> dict[int, int]:
    """The other ports of a turned Service count as right here: each door is looked at by itself."""
    return {port.port: port.target_port for port in service.spec.ports if isinstance(port.target_port, int)}
