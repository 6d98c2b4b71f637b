"""Time to live: an object is announced to expire once, and deleted when its time is over."""

from __future__ import annotations

from collections import OrderedDict

from sandlane.api.ttl import Expiry
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Resource
from sandlane.runtime.recorder import WARNING, EventRecorder

REMEMBERED = 10_000


class Lifetime:
    """Ends objects of one kind in time."""

    def __init__(self, resource: Resource, client: Client, clock: Clock, recorder: EventRecorder) -> None:
        self._resource = resource
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._announced: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def end(self, metadata: ObjectMeta, expiry: Expiry | None) -> bool:
        """Delete an object whose time is over; whether it is. Raises as `Client.delete` does."""
        if expiry is None or self._clock.now() < expiry.at:
            return False
        self._recorder.event(self._resource, metadata, "Expired", "its time to live is over; it is deleted")
        await self._client.delete(self._resource, metadata.name, metadata.namespace, uid=metadata.uid)
        return True

    def wait(self, metadata: ObjectMeta, expiry: Expiry | None) -> float | None:
        """Seconds until something is due: the announcement (made now when it is time), then the end."""
        if expiry is None:
            return None
        now = self._clock.now()
        if now < expiry.warn_at:
            return (expiry.warn_at - now).total_seconds()
        at = timestamp(expiry.at)
        if (metadata.uid, at) not in self._announced:
            self._announced[metadata.uid, at] = None
            if len(self._announced) > REMEMBERED:
                self._announced.popitem(last=False)
            text = f"it will be deleted at {at}; edit spec.ttl to keep it"
            self._recorder.event(self._resource, metadata, "Expiring", text, kind=WARNING, once=at)
        return max(0.01, (expiry.at - now).total_seconds())
