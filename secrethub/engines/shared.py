"""Work that anybody may ask for: those who ask at the same time share it, and it keeps a distance.

What is given out was begun after it was asked for, so nobody gets something older than the question.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """A piece of work and its newest result, an error included."""

    def __init__(self, work: Callable[[], Awaitable[T]], distance: float) -> None:
        """Prepare.

        Args:
            work: what is done.
            distance: seconds between the beginnings of two runs.
        """
        self._work = work
        self._distance = distance
        self._turn = asyncio.Lock()
        self._begun = -distance
        self._outcome: tuple[T] | Exception | None = None

    async def get(self) -> T:
        """Return what the work gave.

        Raises:
            Exception: whatever the work raised.
        """
        asked = time.monotonic()
        async with self._turn:
            if self._begun < asked or self._outcome is None:
                await asyncio.sleep(self._begun + self._distance - time.monotonic())
                self._begun, self._outcome = time.monotonic(), None
                try:
                    self._outcome = (await self._work(),)
                except Exception as exc:  # noqa: BLE001 - everybody who waits is told
                    self._outcome = exc
            if isinstance(self._outcome, Exception):
                raise self._outcome.with_traceback(None)
            return self._outcome[0]
