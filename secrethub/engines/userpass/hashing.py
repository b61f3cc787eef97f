"""Passwords are stretched beside the event loop, few at a time: each takes a processor and 19 MiB.

Of logins under one name one is looked at at a time, so that attempts under way do not count as failures of
each other. Who would have to wait too long is told to come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from secrethub.engines.runtime import Core
from secrethub.errors import TooManyRequests

_AT_ONCE = 2
_MOST_WAITING = 64
_MOST_OF_A_NAME = 8
_STATE = "userpass"

T = TypeVar("T")


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Hashing:
    """Of one process."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._turns: dict[str, _Turn] = {}

    async def run(self, work: Callable[[], T]) -> T:
        """Do slow work in a thread.

        Raises:
            TooManyRequests: too many wait already.
        """
        if self._waiting >= _MOST_WAITING:
            raise TooManyRequests("too many passwords are being checked", 2.0)
        self._waiting += 1
        try:
            async with self._free:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Let nobody else of this process in under ``key`` until the block ends.

        Raises:
            TooManyRequests: too many wait for that already.
        """
        turn = self._turns.setdefault(key, _Turn())
        if turn.waiting >= _MOST_OF_A_NAME:
            raise TooManyRequests("too many logins under one name at once", 2.0)
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(key, None)


def hashing(core: Core) -> Hashing:
    """Return this process's."""
    found = core.engine_state.get(_STATE)
    if not isinstance(found, Hashing):
        found = core.engine_state[_STATE] = Hashing()
    return found
