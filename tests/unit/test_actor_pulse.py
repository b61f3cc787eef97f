"""The life of an actor that looks now and then, on a clock that stands while anybody has something to do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.pulse import pulse
from actors.wiring import USUAL
from secrethub.errors import Unavailable


class _Loop(asyncio.SelectorEventLoop):
    """Time is what is waited for: nobody really waits."""

    def __init__(self) -> None:
        super().__init__()
        self._at = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def passed(timeout: float | None) -> Any:
            self._at += timeout or 0.0
            return select(0)

        selector.select = passed

    def time(self) -> float:
        return self._at


def begun_at(seconds: float, *steps: Callable[[], Awaitable[None]]) -> list[float]:
    """When a pulse began each of the steps."""

    async def life() -> list[float]:
        done, told = asyncio.Event(), list[float]()

        async def step() -> None:
            told.append(asyncio.get_running_loop().time())
            if len(told) == len(steps):
                done.set()
            await steps[len(told) - 1]()

        await pulse(step, done, seconds)
        return told

    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(life())


def taking(seconds: float) -> Callable[[], Awaitable[None]]:
    """A step that takes so long."""

    async def step() -> None:
        await asyncio.sleep(seconds)

    return step


async def not_now() -> None:
    """A step that cannot be done now."""
    raise Unavailable("not now")


async def broken() -> None:
    """A step with a defect."""
    raise ZeroDivisionError


def test_a_step_does_not_put_off_the_next() -> None:
    """Steps begin at once, and then so many seconds after one another, however long each takes."""
    steps = [taking(0.0), taking(0.3), taking(0.6), taking(0.0)]
    assert begun_at(0.8, *steps) == pytest.approx([0.0, 0.8, 1.6, 2.4])


def test_a_step_that_takes_too_long_leaves_time_to_others() -> None:
    """After a step that took longer than there was time others have a quarter; nothing is made up for."""
    steps = [taking(2.0), taking(0.7), taking(0.0), taking(0.0)]
    assert begun_at(0.8, *steps) == pytest.approx([0.0, 2.2, 3.1, 3.9])


@given(st.lists(st.floats(0, USUAL.notary), min_size=2, max_size=20))
def test_the_notary_begins_a_checkpoint_every_second(durations: list[float]) -> None:
    """While each takes no longer than the notary's pulse, one is begun at most a second after another."""
    begun = begun_at(USUAL.notary, *map(taking, durations))
    assert max(later - earlier for earlier, later in itertools.pairwise(begun)) <= 1.0 + 1e-6


def test_what_cannot_be_done_now_is_done_at_its_next_time() -> None:
    """An error of our own ends nothing and hurries nothing; any other ends the actor."""
    assert begun_at(1.0, not_now, not_now, taking(0.0)) == pytest.approx([0.0, 1.0, 2.0])
    with pytest.raises(ZeroDivisionError):
        begun_at(1.0, not_now, broken, taking(0.0))


def test_nothing_begins_once_it_is_done() -> None:
    """A pulse that is done while it waits ends at once; one that was done before does nothing."""

    async def life() -> tuple[int, float]:
        done, steps = asyncio.Event(), 0

        async def step() -> None:
            nonlocal steps
            steps += 1

        loop = asyncio.get_running_loop()
        loop.call_later(1.5, done.set)
        await pulse(step, done, 1.0)
        ended = loop.time()
        await pulse(step, done, 1.0)
        return steps, ended

    with asyncio.Runner(loop_factory=_Loop) as runner:
        assert runner.run(life()) == (2, pytest.approx(1.5))


def test_whoever_ends_it_is_heard_also_when_a_step_is_deaf() -> None:
    """A cancellation that a step has lost, as waiting with a time limit may, ends the pulse after it."""

    async def life() -> tuple[bool, int]:
        done, begun, steps = asyncio.Event(), asyncio.Event(), 0

        async def step() -> None:
            nonlocal steps
            steps += 1
            begun.set()
            if steps > 1:
                done.set()
                return
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        task = asyncio.create_task(pulse(step, done, 1.0))
        await begun.wait()
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled(), steps

    with asyncio.Runner(loop_factory=_Loop) as runner:
        assert runner.run(life()) == (True, 1)
