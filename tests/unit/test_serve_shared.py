"""Work that anybody may ask for is shared by those who ask together, and is never older than the question."""

from __future__ import annotations

import asyncio

import pytest

from secrethub.engines.shared import Shared
from secrethub.errors import Unavailable


class Work:
    """Counts its runs and waits until it may end."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if number == 2:
            raise Unavailable("the second run fails")
        return number


async def test_together() -> None:
    """Whoever asks while a run is under way gets the next one, all of them the same."""
    work = Work()
    shared = Shared(work, 0.0)
    first = asyncio.create_task(shared.get())
    await asyncio.sleep(0)
    later = [asyncio.create_task(shared.get()) for _ in range(20)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await first == 1
    results = await asyncio.gather(*later, return_exceptions=True)
    assert {str(result) for result in results} == {"the second run fails"}
    assert await shared.get() == 3


async def test_a_cancelled_run_leaves_nothing_behind() -> None:
    """Who waits for a run that is cancelled gets a run of his own."""
    work = Work()
    shared = Shared(work, 0.0)
    cancelled = asyncio.create_task(shared.get())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(shared.get())
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    work.begun = 6
    work.may_end.set()
    assert await waiting == 7
