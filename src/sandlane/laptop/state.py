"""What a connection is at this moment, as plain values: for the screen, and for other commands to read."""

from __future__ import annotations

import msgspec

from sandlane.laptop.inbound import LocalTarget, Seen
from sandlane.laptop.plan import Joined


class Held(msgspec.Struct, rename="camel"):
    """One LocalWorkload. `over` says why it is not held any more; `cluster` is its Ready condition in words."""

    namespace: str
    name: str
    sandbox: str
    workload: str
    mappings: tuple[LocalTarget, ...]
    tunnels: dict[str, int] = {}
    error: str = ""
    over: str = ""
    ready: bool | None = None
    cluster: str = ""
    not_listening: list[str] = []

    @classmethod
    def of(cls, joined: Joined) -> Held:
        """Before the first dial."""
        return cls(joined.namespace, joined.name, joined.sandbox, joined.workload, joined.targets)

    @property
    def title(self) -> str:
        """What it is, in a word."""
        return f"{self.namespace}/{self.name}"

    def spoken(self) -> str:
        """How the connection is, in a line."""
        if self.over:
            return f"ended: {self.over}"
        if not self.tunnels:
            return f"not connected: {self.error or 'dialling'}"
        held = sum(self.tunnels.values())
        servers = len(self.tunnels)
        text = f"connected: {held} tunnel{'s' * (held != 1)} to {servers} server{'s' * (servers != 1)}"
        return text if self.ready is not False else f"{text}; not ready: {self.cluster}"


class State(msgspec.Struct, rename="camel"):
    """A whole connection."""

    workloads: list[Held] = []
    transport: str = ""
    server: str = ""
    requests: int = 0
    last: list[Seen] = []

    @property
    def connected(self) -> bool:
        """Whether everything that is still held is connected, and something is."""
        held = [each for each in self.workloads if not each.over]
        return bool(held) and all(each.tunnels for each in held)

    @property
    def ready(self) -> bool:
        """Whether requests arrive: everything is connected, and the cluster says so."""
        return self.connected and all(each.ready for each in self.workloads if not each.over)
