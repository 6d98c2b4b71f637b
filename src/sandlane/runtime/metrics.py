"""The manager's metrics, in Prometheus form: this product's names, and the same series under controller-runtime's.

Counting is a few integer additions on the event loop; the text is made when it is asked for. No label holds a user's
name: labels are controllers, kinds, verbs, codes and outcomes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sandlane.kube.transport import Request

BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BOUNDS = [*map(str, BUCKETS), "+Inf"]
OUTCOMES = ("success", "error", "requeue", "requeue_after")


class Tally:
    """Counters by labels."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, count: float = 1) -> None:
        """Count one (or `count`)."""
        self.counts[labels] = self.counts.get(labels, 0) + count


class Timing:
    """Histograms of seconds by labels."""

    def __init__(self) -> None:
        self.buckets: dict[tuple[str, ...], list[int]] = {}
        self.sums: dict[tuple[str, ...], float] = {}

    def add(self, seconds: float, *labels: str) -> None:
        """Count one."""
        counts = self.buckets.get(labels)
        if counts is None:
            counts = self.buckets[labels] = [0] * len(_BOUNDS)
            self.sums[labels] = 0.0
        counts[bisect_left(BUCKETS, seconds)] += 1
        self.sums[labels] += seconds


class Metrics(Collector):
    """All series of one manager, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tallies: list[tuple[tuple[str, ...], str, tuple[str, ...], Tally]] = []
        self._timings: list[tuple[tuple[str, ...], str, tuple[str, ...], Timing]] = []
        by_controller, by_webhook = ("controller",), ("webhook",)
        self.reconciles = self.tally(
            ("reconcile_total", "controller_runtime_reconcile_total"),
            "Reconciles by outcome.",
            ("controller", "result"),
        )
        self.errors = self.tally(
            ("reconcile_errors_total", "controller_runtime_reconcile_errors_total"), "Failed reconciles.", by_controller
        )
        self.terminal = self.tally(
            ("controller_runtime_terminal_reconcile_errors_total",), "Failures not tried again.", by_controller
        )
        self.panics = self.tally(
            ("controller_runtime_reconcile_panics_total",), "Unexpected exceptions.", by_controller
        )
        self.timeouts = self.tally(
            ("controller_runtime_reconcile_timeouts_total",), "Reconciles that reached their deadline.", by_controller
        )
        self.durations = self.timing(
            (
                "reconcile_duration_seconds",
                "controller_runtime_reconcile_time_seconds",
                "workqueue_work_duration_seconds",
            ),
            "How long reconciles take.",
            by_controller,
        )
        self.latencies = self.timing(
            ("work_queue_latency", "workqueue_queue_duration_seconds"), "Seconds that keys wait.", by_controller
        )
        self.requests = self.tally(
            ("rest_client_requests_total",), "Requests to the API server.", ("method", "resource", "code", "verb")
        )
        self.request_times = self.timing(
            ("rest_client_request_duration_seconds",), "Seconds until answers begin.", ("method",)
        )
        self.events_dropped = self.tally(("events_dropped_total",), "Events that were too many.", ())
        self.webhook_requests = self.tally(
            ("controller_runtime_webhook_requests_total",), "Webhook calls.", ("webhook", "code")
        )
        self.webhooks_in_flight = Tally()
        self.gauge(
            "controller_runtime_webhook_requests_in_flight",
            "Webhook calls under way.",
            "webhook",
            lambda: {path: count for (path,), count in self.webhooks_in_flight.counts.items()},
        )
        self.webhook_times = self.timing(("controller_runtime_webhook_latency_seconds",), "Webhook calls.", by_webhook)
        self.leader = Gauge(
            "leader_election_master_status", "1 while this manager is the leader.", ["name"], registry=self.registry
        )
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def tally(self, names: tuple[str, ...], help_text: str, labels: tuple[str, ...]) -> Tally:
        """Counters of our own, under one or several names."""
        tally = Tally()
        self._tallies.append((names, help_text, labels, tally))
        return tally

    def timing(self, names: tuple[str, ...], help_text: str, labels: tuple[str, ...]) -> Timing:
        """Histograms of seconds of our own, under one or several names."""
        timing = Timing()
        self._timings.append((names, help_text, labels, timing))
        return timing

    def gauge(self, name: str, help_text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        """A gauge that is read when it is asked for: its value by label; without a label, that of the empty one."""
        self.registry.register(_Gauge(name, help_text, label, read))

    def census(
        self, name: str, help_text: str, label: str, states: Sequence[str], read: Callable[[], Iterable[str]]
    ) -> None:
        """A gauge of how many things are in each of these states. `read` gives each one's; empty means the first."""

        def count() -> dict[str, float]:
            found = Counter(state or states[0] for state in read())
            return {state: found[state] for state in states}

        self.gauge(name, help_text, label, count)

    def reconciled(self, controller: str, outcome: str, seconds: float) -> None:
        """Count one reconcile. `outcome` is one of `OUTCOMES`."""
        self.reconciles.add(controller, outcome)
        self.durations.add(seconds, controller)
        if outcome == "error":
            self.errors.add(controller)

    def requested(self, request: Request, status: int, seconds: float) -> None:
        """Count one request to the API server; status 0: no answer."""
        resource, code = resource_of(request.path), str(status) if status else "<error>"
        self.requests.add(request.method, resource, code, verb_of(request, resource))
        self.request_times.add(seconds, request.method)

    def text(self) -> bytes:
        """All series, as `/metrics` answers."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """The families of all tallies and timings, under each of their names."""
        for names, help_text, labels, tally in self._tallies:
            for name in names:
                counter = CounterMetricFamily(name.removesuffix("_total"), help_text, labels=_labels(name, labels))
                for values, count in list(tally.counts.items()):
                    counter.add_metric(values, count)
                yield counter
        for names, help_text, labels, timing in self._timings:
            for name in names:
                family = HistogramMetricFamily(name, help_text, labels=_labels(name, labels))
                for values, counts in list(timing.buckets.items()):
                    total, rising = 0, []
                    for bound, count in zip(_BOUNDS, counts, strict=True):
                        total += count
                        rising.append((bound, total))
                    family.add_metric(values, buckets=rising, sum_value=timing.sums[values])
                yield family


class _Gauge(Collector):
    def __init__(self, name: str, help_text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        self._name, self._help, self._label, self._read = name, help_text, label, read

    def collect(self) -> list[GaugeMetricFamily]:
        labels = [self._label] if self._label else []
        family = GaugeMetricFamily(self._name, self._help, labels=labels)
        for label, value in sorted(self._read().items()):
            family.add_metric([label] if labels else [], value)
        return [family]


def _labels(name: str, labels: tuple[str, ...]) -> list[str]:
    """controller-runtime labels its work queues by `name`."""
    return ["name" if name.startswith("workqueue_") and label == "controller" else label for label in labels]


@lru_cache(maxsize=4096)
def resource_of(path: str) -> str:
    """The plural of the resource in a path of the API, with its subresource; `other` for what is none."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        rest = rest[2:]
    if not rest:
        return "other"
    return rest[0] + (f"/{rest[2]}" if len(rest) > 2 else "")


def verb_of(request: Request, resource: str) -> str:
    """The verb for which the API server asks for a right."""
    if request.method != "GET" or resource == "other":
        return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(request.method, "get")
    if any(name == "watch" and value in ("1", "true") for name, value in request.query):
        return "watch"
    return "list" if request.path.rstrip("/").endswith(f"/{resource}") else "get"
