"""A target that does not answer is left alone, for as long as its breaker says."""

from __future__ import annotations

import asyncio

import pytest

from secrethub.clock import SystemClock
from secrethub.engines.target_health import Busy, Health
from secrethub.errors import Unavailable


async def _use(health: Health, begun: asyncio.Barrier, exc: Exception) -> None:
    async with health.used():
        await begun.wait()
        raise exc


async def _fail(health: Health, begun: asyncio.Barrier, exc: Exception) -> None:
    with pytest.raises(type(exc)):
        await _use(health, begun, exc)


@pytest.mark.parametrize("exc", [Unavailable("away"), TimeoutError()])
async def test_many_who_are_under_way_count_as_few(exc: Exception) -> None:
    """However many find at once that a target is away, it rests no longer than after three in a row."""
    health = Health("db", SystemClock())
    begun = asyncio.Barrier(50)
    await asyncio.gather(*(_fail(health, begun, exc) for _ in range(50)))
    assert health.breaker.failures == 3
    assert health.breaker.rests(health.clock.monotonic())
    with pytest.raises(Unavailable, match="asked again"):
        health.refuse_while_away()


async def test_whoever_asks_after_a_rest_counts() -> None:
    """The one who finds out whether it is back lengthens the next rest, or ends it."""
    health = Health("db", SystemClock())
    await asyncio.gather(*(_fail(health, asyncio.Barrier(1), Unavailable()) for _ in range(3)))
    health.wake()
    await _fail(health, asyncio.Barrier(1), Unavailable())
    assert health.breaker.failures == 4
    health.wake()
    async with health.used():
        pass
    assert health.breaker.failures == 0


async def test_too_much_to_do_says_nothing() -> None:
    """A target that has too much to do is not left alone."""
    health = Health("db", SystemClock())
    for _ in range(5):
        await _fail(health, asyncio.Barrier(1), Busy())
    health.refuse_while_away()
