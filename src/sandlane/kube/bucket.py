"""A token bucket: how often something may happen."""

from __future__ import annotations

from sandlane.kube.clock import Clock


class Bucket:
    """A token bucket: `rate` a second, `burst` at once. Whoever takes is told how long to wait, in order."""

    def __init__(self, clock: Clock, rate: float, burst: float) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled = clock.monotonic()

    def take(self) -> float:
        """Take one; the seconds to wait before it may be used."""
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate) - 1
        self._filled = now
        return max(0.0, -self._tokens / self._rate)

    def try_take(self) -> bool:
        """Take one if it may be used at once."""
        if self.take() <= 0:
            return True
        self._tokens += 1
        return False
