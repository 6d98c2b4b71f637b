"""Keeps the workload rules in step with the world, and tells each watcher what has changed since it last looked.

Runs on every replica of the manager. `Feed.run` owns its only task; each watcher is a generator in its server's task.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress

import msgspec
import structlog

from sandlane.api.keys import routing_key
from sandlane.kube.cache import Cache, Change
from sandlane.kube.clock import Clock
from sandlane.kube.resource import LOCAL_WORKLOADS, NAMESPACES, ROUTE_GROUPS, SANDBOXES, Key
from sandlane.routing.groups import age, belongs, matched_sandboxes
from sandlane.routing.tunnels import Held
from sandlane.routing.workloads import Baseline, WorkloadRule, rules_of
from sandlane.world.records import LocalWorkload, Namespace, RouteGroup, Sandbox
from sandlane.world.world import World

log = structlog.get_logger(__name__)

SETTLE = 0.01
"""Seconds that changes are gathered before the rules are computed again."""
REMEMBERED = 20_000
"""Changes that are kept for watchers that are slow; who is further behind is disconnected and lists again."""
ALIVE_SECONDS = 10.0
"""After so long without a change a watcher hears that it is still connected."""

RuleId = tuple[Baseline, str]
OwnerId = tuple[str, Key]


class TooSlow(Exception):
    """A watcher is further behind than what is remembered."""


class Filter(msgspec.Struct, frozen=True):
    """Which rules are wanted; what is empty does not matter."""

    key: str = ""
    namespace: str = ""
    kind: str = ""
    name: str = ""
    sandbox: str = ""

    def __call__(self, rule: WorkloadRule) -> bool:
        """Whether a rule is wanted."""
        return (
            self.key in ("", rule.key)
            and self.namespace in ("", rule.namespace)
            and self.kind in ("", rule.kind)
            and self.name in ("", rule.name)
            and self.sandbox in ("", rule.sandbox)
        )


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a watch. `digest` is of all rules that the watcher has once it has taken this change in."""

    op: str
    """ADD | REPLACE | REMOVE | SYNCED | ALIVE; before the one SYNCED all are ADD."""
    digest: str
    rule: WorkloadRule | None = None


class Digest:
    """A hash of a set of rules that can follow changes: the sum of the rules' own hashes."""

    def __init__(self, rules: Iterable[WorkloadRule] = ()) -> None:
        self._sum = 0
        for rule in rules:
            self.change(None, rule)

    def change(self, before: WorkloadRule | None, after: WorkloadRule | None) -> None:
        """Take a rule out, another one in."""
        self._sum = (self._sum + (_hash(after) if after else 0) - (_hash(before) if before else 0)) % (1 << 128)

    def __str__(self) -> str:
        return f"{self._sum:032x}"


def _hash(rule: WorkloadRule) -> int:
    return int.from_bytes(hashlib.sha256(msgspec.json.encode(rule, order="deterministic")).digest()[:16], "big")


class _Step(msgspec.Struct, frozen=True):
    before: WorkloadRule | None
    after: WorkloadRule | None


class Feed:
    """The live rules."""

    def __init__(self, cache: Cache, world: World, clock: Clock, held: Callable[[], Held] = dict) -> None:
        self._world = world
        self._clock = clock
        self._held = held
        self._rules: dict[RuleId, WorkloadRule] = {}
        self._members: dict[Key, dict[Key, Sandbox]] = {}
        """The sandboxes of each group, where they are known."""
        self._by_owner: dict[OwnerId, dict[RuleId, WorkloadRule]] = {}
        self._digest = Digest()
        self._steps: deque[_Step] = deque(maxlen=REMEMBERED)
        self._revision = 0
        self._changed = asyncio.Event()
        self._dirty: set[OwnerId] = set()
        self._wake = asyncio.Event()
        self._locals_before: Held = {}
        self.synced = asyncio.Event()
        """Set once the rules are complete."""
        self.watchers: dict[str, float] = {}
        """How many watch, by protocol."""
        cache.informer(SANDBOXES, Sandbox).add_handler(self._sandbox_changed)
        cache.informer(ROUTE_GROUPS, RouteGroup).add_handler(self._group_changed)
        cache.informer(LOCAL_WORKLOADS, LocalWorkload).add_handler(self._local_changed)
        cache.informer(NAMESPACES, Namespace).add_handler(self._namespace_changed)

    # -- what has changed -------------------------------------------------------------------------------

    def _sandbox_changed(self, change: Change[Sandbox]) -> None:
        for sandbox in (change.old, change.new):
            if sandbox is not None:
                self._touch_sandbox(sandbox)

    def _touch_sandbox(self, sandbox: Sandbox) -> None:
        self._touch("Sandbox", sandbox.metadata.key)
        self._touch_key(sandbox)

    def _group_changed(self, change: Change[RouteGroup]) -> None:
        for group in (change.old, change.new):
            if group is not None:
                self._touch_group(group)
                self._touch_key(group)

    def _touch_group(self, group: RouteGroup) -> None:
        """It may have other sandboxes now."""
        self._members.pop(group.metadata.key, None)
        self._touch("RouteGroup", group.metadata.key)

    def _touch_key(self, owner: Sandbox | RouteGroup) -> None:
        """Others that claim the same key may have it now, or no more."""
        for other in self._world.with_key(routing_key(owner.metadata.uid, owner.spec.routing_key)):
            self._touch(type(other).__name__, other.metadata.key)

    def _local_changed(self, change: Change[LocalWorkload]) -> None:
        for local in (change.old, change.new):
            if local is not None:
                self._touch_local(local)

    def _namespace_changed(self, change: Change[Namespace]) -> None:
        """Its consent may have changed."""
        name = change.key.name
        for group in self._world.route_groups:
            if name in group.spec.namespaces:
                self._touch_group(group)

    def held_changed(self) -> None:
        """Laptops have come or gone."""
        held = self._held()
        before, self._locals_before = self._locals_before, dict(held)
        changed = {identity for identity in held.keys() | before.keys() if held.get(identity) != before.get(identity)}
        if not changed:
            return
        for local in self._world.local_workloads:
            if local.metadata.uid in changed:
                self._touch_local(local)

    def _touch_local(self, local: LocalWorkload) -> None:
        sandbox = self._world.sandboxes.get(Key(local.metadata.namespace, local.spec.sandbox))
        if sandbox is not None:
            self._touch_sandbox(sandbox)

    def _touch(self, kind: str, key: Key) -> None:
        self._dirty.add((kind, key))
        self._wake.set()

    # -- the rules --------------------------------------------------------------------------------------

    async def run(self, ready: asyncio.Event) -> None:
        """Follow the world once everything is listed, until cancelled."""
        await ready.wait()
        while True:
            self._take_in()
            self.synced.set()
            await self._wake.wait()
            await self._clock.sleep(SETTLE)
            self._wake.clear()

    def _take_in(self) -> None:
        dirty, self._dirty = self._dirty, set()
        held = self._held()
        taken, given = {}, {}
        dirty |= self._groups_of({key for kind, key in dirty if kind == "Sandbox"})
        for owner_id in dirty:
            now = {rule.id: rule for rule in self._rules_of(*owner_id, held)}
            taken.update(self._by_owner.pop(owner_id, {}))
            if now:
                self._by_owner[owner_id] = now
            given.update(now)
        for rule_id in sorted(taken.keys() | given.keys()):
            self._set(rule_id, given.get(rule_id))

    def _groups_of(self, touched: set[Key]) -> set[OwnerId]:
        """The groups that have, or had, one of these sandboxes; what is known of their members is put right."""
        found: set[OwnerId] = set()
        for group in self._world.route_groups:
            key = group.metadata.key
            members = self._members.get(key)
            if members is None:
                continue  # it is dirty itself, or was never asked for
            for each in touched:
                sandbox = self._world.sandboxes.get(each)
                if sandbox is not None and belongs(self._world, group, sandbox):
                    members[each] = sandbox
                    found.add(("RouteGroup", key))
                elif members.pop(each, None) is not None:
                    found.add(("RouteGroup", key))
        return found

    def _rules_of(self, kind: str, key: Key, held: Held) -> list[WorkloadRule]:
        if kind == "Sandbox":
            sandbox = self._world.sandboxes.get(key)
            return rules_of(self._world, sandbox, held) if sandbox is not None else []
        group = self._world.route_groups.get(key)
        if group is None:
            self._members.pop(key, None)
            return []
        if key not in self._members:
            self._members[key] = {each.metadata.key: each for each in matched_sandboxes(self._world, group)}
        return rules_of(self._world, group, held, sorted(self._members[key].values(), key=age))

    def _set(self, rule_id: RuleId, rule: WorkloadRule | None) -> None:
        before = self._rules.get(rule_id)
        if before == rule:
            return
        if rule is None:
            del self._rules[rule_id]
        else:
            self._rules[rule_id] = rule
        self._digest.change(before, rule)
        self._steps.append(_Step(before, rule))
        self._revision += 1
        self._changed.set()
        self._changed = asyncio.Event()

    # -- who asks ---------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """Of all rules: the same on every replica that knows the same."""
        return str(self._digest)

    def rules(self, wanted: Filter) -> list[WorkloadRule]:
        """The rules that are wanted, in order."""
        return sorted((rule for rule in self._rules.values() if wanted(rule)), key=lambda rule: rule.id)

    async def watch(self, wanted: Filter, protocol: str = "") -> AsyncIterator[Event]:
        """What there is, SYNCED, then each change. Raises `TooSlow`."""
        await self.synced.wait()
        self.watchers[protocol] = self.watchers.get(protocol, 0) + 1
        try:
            at, rules = self._revision, self.rules(wanted)
            digest = Digest()
            for rule in rules:
                digest.change(None, rule)
                yield Event("ADD", str(digest), rule)
            yield Event("SYNCED", str(digest))
            while True:
                changed = self._changed
                if at == self._revision:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(ALIVE_SECONDS):
                            await changed.wait()
                    if at == self._revision:
                        yield Event("ALIVE", str(digest))
                        continue
                steps, at = self._since(at), self._revision
                for step in steps:
                    before = step.before if step.before and wanted(step.before) else None
                    after = step.after if step.after and wanted(step.after) else None
                    if before == after:
                        continue
                    digest.change(before, after)
                    op = "REPLACE" if before and after else "ADD" if after else "REMOVE"
                    yield Event(op, str(digest), after or before)
        finally:
            self.watchers[protocol] -= 1

    def _since(self, revision: int) -> list[_Step]:
        """The steps after a revision; of one rule only the last, from what it was at first."""
        count = self._revision - revision
        if count > len(self._steps):
            raise TooSlow(f"{count} changes behind")
        merged: dict[RuleId, _Step] = {}
        for index in range(len(self._steps) - count, len(self._steps)):
            step = self._steps[index]
            rule = step.after or step.before
            assert rule is not None
            first = merged.pop(rule.id, step)
            merged[rule.id] = _Step(first.before, step.after)
        return list(merged.values())
