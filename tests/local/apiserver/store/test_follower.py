"""Whoever lists and watches ends with what a fresh list shows, whatever happens in between."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sandlane.kube.resource import Key
from sandlane.local.apiserver.store.objects import ObjectStore, TooOld, Watcher
from support.thorough import cases

PODS = ("", "pods")
KEYS = st.builds(Key, st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "z"]))


def done(coroutine: Any) -> Any:
    """The outcome of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class Follower:
    """A client: a list, then a watch from its version; from the last event it saw when it comes back."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.relist()

    def relist(self) -> None:
        self.state = {key: stored.data for key, stored in self.store.list(PODS)}
        self.version = self.store.version
        self.watcher: Watcher | None = self.store.watch(PODS, self.version)

    def read(self, limit: int) -> None:
        while limit and self.watcher is not None and (event := self.watcher.pop()) is not None:
            limit -= 1
            assert event.version > self.version
            self.version = event.version
            if event.after is None:
                assert self.state.pop(event.key) == event.before
            else:
                assert self.state.get(event.key) == event.before
                self.state[event.key] = event.after

    def drop(self) -> None:
        if self.watcher is not None:
            self.watcher.close()
            self.watcher = None

    def resume(self) -> None:
        self.drop()
        try:
            self.watcher = self.store.watch(PODS, self.version)
        except TooOld:
            self.relist()


class StoreMachine(RuleBasedStateMachine):
    """Writers, and two followers that read, lose their connection and come back at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ObjectStore()
        self.followers = [Follower(self.store), Follower(self.store)]
        self.past: dict[int, dict[Key, bytes]] = {}

    def _write(self, key: Key, remove: bool) -> None:
        old = self.store.get(PODS, key)

        def make(version: int) -> bytes:
            return str(version).encode()

        if remove and old is not None:
            done(self.store.remove(PODS, key, make, old.version))
        elif not remove:
            done(self.store.put(PODS, key, make, old.version if old else None))
        self.past[self.store.version] = {key: stored.data for key, stored in self.store.list(PODS)}

    @rule(key=KEYS, remove=st.booleans())
    def write(self, key: Key, remove: bool) -> None:
        self._write(key, remove)

    @rule(which=st.integers(0, 1), limit=st.integers(1, 5))
    def read(self, which: int, limit: int) -> None:
        self.followers[which].read(limit)

    @rule(which=st.integers(0, 1))
    def disconnect(self, which: int) -> None:
        self.followers[which].drop()

    @rule(which=st.integers(0, 1))
    def resume(self, which: int) -> None:
        self.followers[which].resume()

    @rule()
    def compact(self) -> None:
        self.store.forget_history()

    @invariant()
    def the_past_is_as_it_was(self) -> None:
        for version, then in self.past.items():
            if version >= self.store.oldest(PODS):
                assert {key: at.data for key, at in self.store.list_at(PODS, version)} == then

    def teardown(self) -> None:
        for follower in self.followers:
            if follower.watcher is None:
                follower.resume()
            follower.read(-1)
            assert follower.state == {key: stored.data for key, stored in self.store.list(PODS)}


TestFollowers = StoreMachine.TestCase
TestFollowers.settings = settings(max_examples=cases(30), stateful_step_count=30)
