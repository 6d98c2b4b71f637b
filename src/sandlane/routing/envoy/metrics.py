"""What the xDS server counts: streams, pushes, refusals, and how long a change takes until an Envoy has confirmed it."""

from __future__ import annotations

from collections.abc import Callable

from sandlane.kube.clock import Clock
from sandlane.runtime.metrics import Metrics


class XdsMetrics:
    """The series of one server. The label `type` is the last part of a type URL: Cluster, RouteConfiguration, ..."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self.clock = clock
        self._metrics = metrics
        self._pushes = metrics.tally(("xds_pushes_total",), "Responses sent to Envoys.", ("type",))
        self._nacks = metrics.tally(("xds_nacks_total",), "Resources that an Envoy refused.", ("type",))
        self._acks = metrics.timing(
            ("xds_ack_seconds",), "Seconds from a change until an Envoy confirmed all of it.", ()
        )

    def count_streams(self, read: Callable[[], int]) -> None:
        """Say how many Envoys are connected, whenever it is asked."""
        self._metrics.gauge("xds_streams", "Connected Envoys.", "", lambda: {"": read()})

    def pushed(self, type_url: str) -> None:
        """A response went out."""
        self._pushes.add(type_url.rpartition(".")[2])

    def refused(self, type_url: str) -> None:
        """An Envoy refused a resource."""
        self._nacks.add(type_url.rpartition(".")[2])

    def confirmed(self, since: float) -> None:
        """An Envoy holds all of what changed at `since` (of the clock's `monotonic`)."""
        self._acks.add(self.clock.monotonic() - since)
