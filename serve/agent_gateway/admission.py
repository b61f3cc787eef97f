"""How many agents are let in, and when the others should come back. Pure.

After an outage every agent comes at once. Letting all of them in at once would make each of them
wait until it gives up and comes again. So agents are let in at a rate that the gateway bears, and
each of the others is told a time of its own: the turn it would have in a queue, which exists only
as a number.
"""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST = 120.0
"""Seconds an agent is sent away for at most; the queue may move faster than it looked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Later:
    """Not now; come back after so many seconds."""

    retry_after: float


class Admission:
    """A token bucket with a queue in thought."""

    __slots__ = ("_at", "_burst", "_capacity", "_level", "_queue", "_rate")

    def __init__(self, *, rate: float, burst: float, capacity: int) -> None:
        """Begin full.

        Args:
            rate: agents let in a second in the long run.
            burst: agents let in at once.
            capacity: agents connected at most.
        """
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._level = burst
        self._queue = 0.0
        self._at = 0.0

    def admit(self, now: float, connected: int) -> Later | None:
        """Decide about one agent.

        Args:
            now: monotonic seconds.
            connected: agents connected now.

        Returns:
            None to let it in.
        """
        passed = max(0.0, now - self._at)
        self._at = now
        self._level = min(self._burst, self._level + passed * self._rate)
        self._queue = max(0.0, self._queue - passed * self._rate)
        if connected >= self._capacity:
            return Later(retry_after=_LONGEST / 2)
        if self._level >= 1:
            self._level -= 1
            return None
        self._queue += 1
        return Later(retry_after=min(_LONGEST, 1 + self._queue / self._rate))
