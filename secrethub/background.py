"""Work in the background of a process: begun by name, begun anew when it fails, ended with its owner.

Our own errors are the work's to handle. What reaches this module is a defect, which should cost one attempt
and not the work until the process ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_AGAIN_SECONDS = 2.0

_log = logging.getLogger(__name__)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended; what one of them failed with, asyncio logs."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


class Background:
    """The tasks of one owner."""

    def __init__(self, again: float = _AGAIN_SECONDS) -> None:
        """Prepare.

        Args:
            again: seconds after which work that failed is begun anew.
        """
        self._again = again
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, name: str, work: Work) -> None:
        """Do ``work`` until it returns or :meth:`end` is called, from the beginning after each failure.

        Args:
            name: of the task, for people.
            work: gives the coroutine of one attempt.
        """
        self._tasks.append(asyncio.create_task(self._keep(name, work), name=name))

    async def end(self) -> None:
        """Cancel everything and wait until it has ended. May be called again."""
        await end(*self._tasks)
        self._tasks.clear()

    async def _keep(self, name: str, work: Work) -> None:
        task = asyncio.current_task()
        assert task is not None
        while True:
            try:
                return await work()
            except Exception:
                if task.cancelling():
                    raise
                _log.exception("%s failed and begins anew", name)
            await asyncio.sleep(self._again)
