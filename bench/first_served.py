"""Asks routers in a process of its own: `python -m bench.first_served HOST PORT` reads a key from each line of its input, and writes when the
first request with this key was answered by its fork (seconds of `time.perf_counter`, which all processes share)."""

from __future__ import annotations

import http.client
import sys
import time

from sandlane.routing.envoy.routes import DEBUG_HEADER, SERVED_BY

PAUSE = 0.001
LONGEST = 20.0


def first_served(host: str, port: int, key: str) -> float:
    """Ask until the fork answers. Raises `TimeoutError`."""
    connection = http.client.HTTPConnection(host, port, timeout=LONGEST)
    headers = {"baggage": f"sandlane-routing-key={key}", DEBUG_HEADER: "1"}
    until = time.perf_counter() + LONGEST
    while (now := time.perf_counter()) < until:
        connection.request("GET", "/", headers=headers)
        response = connection.getresponse()
        response.read()
        now = time.perf_counter()
        if (response.getheader(SERVED_BY) or "").startswith(f"{key}/"):
            connection.close()
            return now
        time.sleep(PAUSE)
    raise TimeoutError(f"no request with key {key} was answered by its fork within {LONGEST:.0f} s")


if __name__ == "__main__":
    for line in sys.stdin:
        print(first_served(sys.argv[1], int(sys.argv[2]), line.strip()), flush=True)
