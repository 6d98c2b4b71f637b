"""The manager's metrics, in Prometheus form: this product's names, and the same series under controller-runtime's."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sandlane.kube.transport import Request

_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FAILED = ("error", "permanent_error")


class Metrics:
    """All series of one manager, in a registry of its own. Labels never hold a user's names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._reconcile = Counter("reconcile", "Reconciles by outcome.", ["controller", "result"], registry=r)
        self._errors = Counter("reconcile_errors", "Failed reconciles.", ["controller"], registry=r)
        self._duration = Histogram(
            "reconcile_duration_seconds", "How long reconciles take.", ["controller"], buckets=_BUCKETS, registry=r
        )
        self._latency = Histogram(
            "work_queue_latency", "Seconds that keys wait.", ["controller"], buckets=_BUCKETS, registry=r
        )
        self._cr_reconcile = Counter(
            "controller_runtime_reconcile", "As reconcile_total.", ["controller", "result"], registry=r
        )
        self._cr_errors = Counter(
            "controller_runtime_reconcile_errors", "As reconcile_errors_total.", ["controller"], registry=r
        )
        self._cr_time = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "As reconcile_duration_seconds.",
            ["controller"],
            buckets=_BUCKETS,
            registry=r,
        )
        self._wq_wait = Histogram(
            "workqueue_queue_duration_seconds", "As work_queue_latency.", ["name"], buckets=_BUCKETS, registry=r
        )
        self._requests = Counter("rest_client_requests", "Requests to the API server.", ["verb", "code"], registry=r)
        self._request_time = Histogram(
            "rest_client_request_duration_seconds", "How long they take.", ["verb"], buckets=_BUCKETS, registry=r
        )
        self.leader = Gauge(
            "leader_election_master_status", "1 while this manager is the leader.", ["name"], registry=r
        )

    def reconciled(self, controller: str, outcome: str, seconds: float) -> None:
        """Count one reconcile."""
        self._reconcile.labels(controller, outcome).inc()
        self._cr_reconcile.labels(controller, outcome).inc()
        self._duration.labels(controller).observe(seconds)
        self._cr_time.labels(controller).observe(seconds)
        if outcome in _FAILED:
            self._errors.labels(controller).inc()
            self._cr_errors.labels(controller).inc()

    def waited(self, controller: str, seconds: float) -> None:
        """Count how long a key waited in its queue."""
        self._latency.labels(controller).observe(seconds)
        self._wq_wait.labels(controller).observe(seconds)

    def requested(self, request: Request, status: int, seconds: float) -> None:
        """Count one request to the API server."""
        self._requests.labels(request.method, str(status)).inc()
        self._request_time.labels(request.method).observe(seconds)

    def gauge(self, name: str, help_text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        """A gauge that is read when it is asked for."""
        self.registry.register(_Gauge(name, help_text, label, read))

    def text(self) -> bytes:
        """All series, as `/metrics` answers."""
        return generate_latest(self.registry)


class _Gauge(Collector):
    def __init__(self, name: str, help_text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        self._name, self._help, self._label, self._read = name, help_text, label, read

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._help, labels=[self._label])
        for label, value in sorted(self._read().items()):
            family.add_metric([label], value)
        return [family]
