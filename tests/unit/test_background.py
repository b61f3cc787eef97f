"""Work in the background: begun anew after a failure, and ended for certain."""

from __future__ import annotations

import asyncio

import pytest

from secrethub.background import Background, end


async def test_work_that_fails_is_begun_anew(caplog: pytest.LogCaptureFixture) -> None:
    """A failure costs one attempt, is in the log with its reason, and stops nothing that runs beside it."""
    background, attempts, beside, done = Background(again=0.0), 0, asyncio.Event(), asyncio.Event()

    async def fails_twice() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise ZeroDivisionError(f"attempt {attempts}")
        done.set()

    async def waits() -> None:
        await done.wait()
        beside.set()

    background.begin("fails-twice", fails_twice)
    background.begin("waits", waits)
    async with asyncio.timeout(20):
        await beside.wait()
    await background.end()
    assert attempts == 3
    assert [record.getMessage() for record in caplog.records] == ["fails-twice failed and begins anew"] * 2
    assert "ZeroDivisionError: attempt 2" in caplog.text


async def test_work_that_returns_is_done() -> None:
    """What has come to its end is not begun anew."""
    background, attempts = Background(again=0.0), 0

    async def once() -> None:
        nonlocal attempts
        attempts += 1

    background.begin("once", once)
    for _ in range(20):
        await asyncio.sleep(0)
    await background.end()
    assert attempts == 1


async def test_the_end_waits_for_what_is_let_go_of() -> None:
    """When the end returns all is over, also work that takes its time, or fails, as it is cancelled."""
    background, ended = Background(), []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("slow")

    async def broken() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("broken")
            raise ZeroDivisionError from None

    background.begin("broken", broken)
    background.begin("slow", slow)
    await asyncio.sleep(0)
    await background.end()
    assert sorted(ended) == ["broken", "slow"]
    await background.end()


async def test_whoever_ends_work_can_be_cancelled() -> None:
    """A cancellation of whoever waits for the end is not taken for that of the work."""
    stays = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await stays.wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end(task))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    stays.set()
    await end(task)
    assert task.done()
