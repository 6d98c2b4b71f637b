"""Events of a cluster, as tests want to see them: which reason about which object, how often."""

from __future__ import annotations

from sandlane.kube.client import Client
from sandlane.kube.resource import EVENTS


async def captured_events(client: Client, namespace: str | None = None) -> list[str]:
    """All Events as `Kind/name: Reason`, with ` x3` for a series, in order of their first occurrence."""
    events = (await client.list(EVENTS, namespace)).items
    found = []
    for event in sorted(events, key=lambda event: (event.get("eventTime") or "", event["metadata"]["name"])):
        regarding = event.get("regarding") or {}
        count = (event.get("series") or {}).get("count", 1)
        times = f" x{count}" if count > 1 else ""
        found.append(f"{regarding.get('kind', '')}/{regarding.get('name', '')}: {event.get('reason', '')}{times}")
    return found
