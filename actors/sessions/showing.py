"""When an agent is shown the newest checkpoint of the ledger, so that it can bear witness to it later.

At once when it comes, or a little later if it has seen more than this process has, or this one has none; then
about once a minute.
"""

from __future__ import annotations

import random

from actors.sessions.surroundings import Surroundings
from secrethub.wire.messages import Checkpoint

_SOON = 3.0
"""Seconds after which this process should have seen what any other one has."""


class Showing:
    """Of one session. Made when the agent says hello."""

    __slots__ = ("_around", "_asked", "_at", "_seen", "_shown", "_wanted")

    def __init__(self, around: Surroundings, witness: bytes) -> None:
        """Begin.

        Args:
            around: the session's.
            witness: the newest checkpoint that the agent keeps, empty for none. It is heard whether the agent
                is admitted or not: a database that was put back may not know the agent any more.
        """
        self._around = around
        self._seen = witness
        self._shown: Checkpoint | None = None
        self._wanted = True
        self._asked = False
        self._later(around.clock.monotonic())
        if witness:
            around.access.witnessed(witness)

    def due(self, now: float) -> bool:
        """Tell whether it is time again."""
        if now < self._at:
            return False
        self._later(now)
        self._wanted = True
        return True

    def take(self) -> Checkpoint | None:
        """Return what is to be shown now, if there is anything."""
        if not self._wanted:
            return None
        self._wanted = False
        newest = self._around.access.checkpoint(self._seen)
        if newest is None and not self._asked:
            # This process may be a moment behind another; or the database is, and then the agent shall know.
            self._at = self._around.clock.monotonic() + _SOON
        self._seen, self._asked = b"", True
        if newest is None or newest is self._shown:
            return None
        self._shown = newest
        return newest

    def _later(self, now: float) -> None:
        # Agents that came together are not all shown it together.
        self._at = now + self._around.limits.shown_every * random.uniform(0.5, 1)  # noqa: S311
