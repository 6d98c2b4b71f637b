"""The last line that a crashing container wrote, read from its log once for each crash."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

import structlog

from sandlane.kube.client import Client
from sandlane.kube.errors import KubeError
from sandlane.kube.pods import logs
from sandlane.sandbox.pods import crashed
from sandlane.world.records import Pod

log = structlog.get_logger(__name__)

REMEMBERED = 2000
TIMEOUT = 3.0
LONGEST = 16 * 1024


class LastLines:
    """Remembers the last line of each crash."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: OrderedDict[tuple[str, str, int], str] = OrderedDict()

    async def read(self, pods: Iterable[Pod]) -> dict[tuple[str, str], str]:
        """By Pod and container name. A log that cannot be read counts as empty."""
        found = {}
        for pod, status in crashed(pods):
            crash = (pod.metadata.uid, status.name, status.restart_count)
            if crash not in self._known:
                self._known[crash] = await self._last_line(pod, status.name)
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            found[pod.metadata.name, status.name] = self._known[crash]
        return found

    async def _last_line(self, pod: Pod, container: str) -> str:
        text = bytearray()
        try:
            async with (
                asyncio.timeout(2 * TIMEOUT),
                logs(
                    self._client, pod.metadata.key, container=container, previous=True, tail_lines=5, timeout=TIMEOUT
                ) as chunks,
            ):
                async for chunk in chunks:
                    text += chunk
                    if len(text) > LONGEST:
                        break
        except (KubeError, TimeoutError) as error:
            log.info("log_not_read", pod=str(pod.metadata.key), container=container, error=str(error))
        lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""
