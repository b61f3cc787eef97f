"""Passwords are looked at few at a time, and nobody queues without end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from secrethub.engines.userpass.hashing import Hashing
from secrethub.errors import TooManyRequests


async def test_two_at_a_time_and_the_queue_ends() -> None:
    """Two are looked at at once; the 65th is told to come again, and later there is room."""
    hashing, go = Hashing(), threading.Event()
    running, most, lock = 0, 0, threading.Lock()

    def work() -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        done = go.wait(30)
        with lock:
            running -= 1
        return done

    queue = [asyncio.create_task(hashing.run(work)) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await hashing.run(work)
    go.set()
    assert await asyncio.gather(*queue) == [True] * 64
    assert most == 2
    assert await hashing.run(work)


async def test_turns_of_a_name() -> None:
    """Logins under one name go one after the other, at most eight wait; other names do not."""
    hashing, inside, go = Hashing(), asyncio.Event(), asyncio.Event()
    count, most = 0, 0

    async def log_in() -> None:
        nonlocal count, most
        async with hashing.turn("ada"):
            count += 1
            most = max(most, count)
            inside.set()
            await go.wait()
            count -= 1

    queue = [asyncio.create_task(log_in()) for _ in range(8)]
    await inside.wait()
    with pytest.raises(TooManyRequests):
        async with hashing.turn("ada"):
            pass
    async with hashing.turn("bob"):
        assert count == 1
    go.set()
    await asyncio.gather(*queue)
    assert most == 1
    async with hashing.turn("ada"):
        assert count == 0


async def test_who_gives_up_waiting_leaves_room() -> None:
    """A login whose client went away takes no place from others."""
    hashing, go = Hashing(), threading.Event()
    queue = [asyncio.create_task(hashing.run(lambda: go.wait(30))) for _ in range(64)]
    await asyncio.sleep(0)
    for waiting in queue[2:]:
        waiting.cancel()
    await asyncio.gather(*queue[2:], return_exceptions=True)
    go.set()
    assert await hashing.run(lambda: True)
    await asyncio.gather(*queue[:2])
