"""The line that a router logs of a probing request (`sandlane trace`), and what marks one. Pure.

A probe is known by the first digits of its trace id, and by a member of its baggage: a service that loses one of the two but keeps
the other is told from one that was never asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from sandlane.routing.envoy.encode import EXTENSION, Config

TRACE_PREFIX = "5a9d1a9e"
"""How the trace ids of probes begin."""
PROBE_MEMBER = "sandlane-probe"
MARK = "sandlaneProbe"


def probe_log(door: str, headers: Sequence[str] = ()) -> Config:
    """One line of JSON for each probing request at a door, and nothing for others. `headers`: others that may carry a key."""
    marked = [
        {"header_filter": {"header": {"name": "traceparent", "string_match": {"prefix": f"00-{TRACE_PREFIX}"}}}},
        {"header_filter": {"header": {"name": "baggage", "string_match": {"contains": f"{PROBE_MEMBER}="}}}},
    ]
    line: Config = {
        MARK: door,
        "at": "%START_TIME(%s.%6f)%",
        "milliseconds": "%DURATION%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "servedBy": "%ROUTE_NAME%",
        "traceparent": "%REQ(TRACEPARENT)%",
        "tracestate": "%REQ(TRACESTATE)%",
        "baggage": "%REQ(BAGGAGE)%",
    }
    if headers:
        line["headers"] = {name.lower(): f"%REQ({name})%" for name in headers}
    return {
        "name": "envoy.access_loggers.stdout",
        "filter": {"or_filter": {"filters": marked}},
        "typed_config": {
            "@type": EXTENSION + "access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": line},
        },
    }
