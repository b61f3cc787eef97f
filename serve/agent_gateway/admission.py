"""How many agents are let in, and when the others should come back. Pure.

After an outage every agent comes at once. Letting all of them in at once would make each of them
wait until it gives up and comes again. So agents are let in at a rate that the gateway bears, and
each of the others is told a time of its own: the turn it would have in a queue, which exists only
as a number.

One agent that comes again and again, revoked or not, takes no turns of the others: its visits are
limited first.
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


class Visits:
    """How often one agent may come: some times in a row, then at a steady pace."""

    __slots__ = ("_due", "_every", "_known", "_slack")

    def __init__(self, *, every: float, burst: int, known: int) -> None:
        """Begin with nobody.

        Args:
            every: seconds between visits in the long run.
            burst: visits in a row.
            known: agents remembered; beyond that, who came longest ago is forgotten.
        """
        self._every = every
        self._slack = every * (burst - 1)
        self._known = known
        self._due: dict[str, float] = {}

    def admit(self, agent_id: str, now: float) -> Later | None:
        """Decide about one visit; one that is refused does not count.

        Args:
            agent_id: who comes.
            now: monotonic seconds.

        Returns:
            None to go on.
        """
        due = max(now, self._due.pop(agent_id, now))
        early = due - now - self._slack
        self._due[agent_id] = due if early > 0 else due + self._every
        if len(self._due) > self._known:
            del self._due[next(iter(self._due))]
        return Later(retry_after=early) if early > 0 else None
