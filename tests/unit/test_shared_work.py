"""Work that shares transactions: who goes with whom, and what each of them is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from secrethub.errors import Conflict, Unavailable
from secrethub.storage.shared_work import SharedWork


class Doubler:
    """Doubles numbers, a batch at a time, each batch when it may; some numbers it does not take."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may = asyncio.Event()
        self.may.set()

    async def carry_out(self, numbers: Sequence[int]) -> list[int | Exception]:
        """Refuse negative numbers one by one, fail on 13 and be unavailable for 99."""
        self.batches.append(list(numbers))
        await self.may.wait()
        if 13 in numbers:
            raise ValueError("13")
        if 99 in numbers:
            raise Unavailable("99")
        return [Conflict(str(number)) if number < 0 else 2 * number for number in numbers]


async def test_whoever_comes_meanwhile_goes_with_the_next() -> None:
    """The first goes alone; all who come while it is under way share the next batch, in their order."""
    doubler = Doubler()
    work = SharedWork("test", doubler.carry_out)
    assert await asyncio.gather(*(work.do(number) for number in (1, 2, 2, 3))) == [2, 4, 4, 6]
    doubler.may.clear()
    first = asyncio.create_task(work.do(5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(work.do(number)) for number in (6, 7)]
    await asyncio.sleep(0)
    doubler.may.set()
    assert await asyncio.gather(first, *others) == [10, 12, 14]
    assert doubler.batches == [[1, 2, 2, 3], [5], [6, 7]]


async def test_pieces_with_one_key_go_one_after_the_other() -> None:
    """Of two with the same key the second waits, and holds nobody else up."""
    doubler = Doubler()
    work = SharedWork("test", doubler.carry_out, key=lambda number: number % 10)
    assert await asyncio.gather(*(work.do(number) for number in (1, 11, 2, 21))) == [2, 22, 4, 42]
    assert doubler.batches == [[1, 2], [11], [21]]


async def test_what_is_too_heavy_waits() -> None:
    """A batch weighs no more than it may, except for one piece that is heavier by itself."""
    doubler = Doubler()
    work = SharedWork("test", doubler.carry_out, weight=lambda number: number, most=10)
    await asyncio.gather(*(work.do(number) for number in (4, 5, 3, 12, 1)))
    assert doubler.batches == [[4, 5, 1], [3], [12]]


async def test_one_that_is_refused_harms_no_other() -> None:
    """Neither a refusal of one piece nor a batch that fails for its sake is told to the others."""
    doubler = Doubler()
    work = SharedWork("test", doubler.carry_out)
    told = await asyncio.gather(*(work.do(number) for number in (1, -2, 13, 4)), return_exceptions=True)
    assert [told[0], told[3]] == [2, 8]
    assert isinstance(told[1], Conflict)
    assert isinstance(told[2], ValueError)
    assert doubler.batches == [[1, -2, 13, 4], [1], [-2], [13], [4]]


async def test_a_batch_whose_outcome_is_unknown_is_not_repeated() -> None:
    """When the database does not answer everybody is told so, each by an error of its own."""
    doubler = Doubler()
    work = SharedWork("test", doubler.carry_out)
    told = await asyncio.gather(*(work.do(number) for number in (1, 99)), return_exceptions=True)
    assert all(isinstance(one, Unavailable) for one in told)
    assert told[0] is not told[1]
    assert doubler.batches == [[1, 99]]


async def test_whoever_went_away_wants_nothing() -> None:
    """What nobody waits for any more is not begun."""
    doubler = Doubler()
    work = SharedWork("test", doubler.carry_out)
    doubler.may.clear()
    first = asyncio.create_task(work.do(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gone, stays = asyncio.create_task(work.do(2)), asyncio.create_task(work.do(3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    doubler.may.set()
    assert await asyncio.gather(first, stays) == [2, 6]
    assert doubler.batches == [[1], [3]]


async def test_a_process_that_stops_leaves_nobody_waiting() -> None:
    """When the task that does the work is cancelled, those under way and those in wait are told."""
    doubler = Doubler()
    work = SharedWork("cut-off", doubler.carry_out)
    doubler.may.clear()
    waiting = [asyncio.create_task(work.do(1))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(work.do(2)))
    await asyncio.sleep(0)
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "cut-off")
    task.cancel()
    for one in waiting:
        with pytest.raises(Unavailable, match="outcome is unknown"):
            await one
    doubler.may.set()
    assert await work.do(3) == 6
