"""Traces of reconciles, where OpenTelemetry is installed and wanted: `Manager(..., tracer=open_telemetry())`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Tracer(Protocol):
    """Makes spans."""

    def span(self, name: str, **attributes: str) -> AbstractContextManager[None]:
        """A span around a block; an exception marks it as failed and goes on."""


class OpenTelemetryTracer:
    """Spans by OpenTelemetry's global provider, which the program sets up (exporter, sampling)."""

    def __init__(self, component: str = "sandlane") -> None:
        from opentelemetry import trace  # an extra: `pip install sandlane[tracing]`

        self._tracer = trace.get_tracer(component)

    @contextmanager
    def span(self, name: str, **attributes: str) -> Iterator[None]:
        """A span around a block."""
        with self._tracer.start_as_current_span(name, attributes=attributes):
            yield


def open_telemetry(component: str = "sandlane") -> Tracer | None:
    """A tracer, or None when OpenTelemetry is not installed."""
    try:
        return OpenTelemetryTracer(component)
    except ImportError:
        return None
