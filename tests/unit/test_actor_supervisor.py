"""The supervisor carries the restart rules out, for any kind of child."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from actors.restart import ChildSpec, Rules
from actors.supervisor import Child, GaveUp, Supervisor
from secrethub.clock import SystemClock


class Kid:
    """A child that ends when the test says so."""

    def __init__(self, nursery: Nursery, name: str) -> None:
        self.nursery = nursery
        self.name = name
        self.end: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def ended(self) -> bool:
        """Wait for the test's word."""
        return await asyncio.shield(self.end)

    async def stop(self) -> None:
        """Note the stop."""
        self.nursery.log.append(f"-{self.name}")


class Nursery:
    """Makes children, notes every start and stop, and lets a start fail on demand."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.kids: dict[str, Kid] = {}
        self.stillborn: dict[str, int] = {}

    async def spawn(self, spec: ChildSpec) -> Child:
        """Make a child, or fail as often as the test asked for."""
        await asyncio.sleep(0)
        if self.stillborn.get(spec.name, 0) > 0:
            self.stillborn[spec.name] -= 1
            self.log.append(f"!{spec.name}")
            raise RuntimeError("stillborn")
        self.log.append(f"+{spec.name}")
        self.kids[spec.name] = Kid(self, spec.name)
        return self.kids[spec.name]

    def crash(self, name: str, *, normal: bool = False) -> None:
        """End a child."""
        self.kids[name].end.set_result(normal)

    def taken(self) -> str:
        """Return what happened since the last call."""
        text, self.log = " ".join(self.log), []
        return text


FAMILY = (
    ChildSpec(name="a", order=1),
    ChildSpec(name="b", order=2),
    ChildSpec(name="c", order=3),
)


@contextlib.asynccontextmanager
async def supervised(
    nursery: Nursery, rules: Rules, children: tuple[ChildSpec, ...] = FAMILY
) -> AsyncIterator[tuple[Supervisor, asyncio.Task[None]]]:
    """A running supervisor; cancelled at the end."""
    supervisor = Supervisor(children, rules, spawn=nursery.spawn, clock=SystemClock())
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(supervisor: Supervisor) -> None:
    """Let the supervisor notice what happened and finish acting on it."""
    for _ in range(20):
        await asyncio.sleep(0)
    await supervisor.settled()


async def test_children_start_in_order_and_stop_in_reverse() -> None:
    """Children start in start order, and a cancelled supervisor stops them in the reverse of it."""
    nursery = Nursery()
    async with supervised(nursery, Rules(), tuple(reversed(FAMILY))) as (supervisor, _):
        await supervisor.settled()
        assert nursery.taken() == "+a +b +c"
    assert nursery.taken() == "-c -b -a"


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", "-b +b"),
        ("rest_for_one", "-b -c +b +c"),
        ("one_for_all", "-b -c -a +a +b +c"),
    ],
)
async def test_a_crash_restarts_whom_the_strategy_names(strategy: str, expected: str) -> None:
    """What remains of the crashed child is cleared away first, then the strategy is followed."""
    nursery = Nursery()
    rules = Rules(strategy=strategy, intensity=5)  # type: ignore[arg-type]
    async with supervised(nursery, rules) as (supervisor, _):
        await supervisor.settled()
        nursery.taken()
        nursery.crash("b")
        await settled(supervisor)
        assert nursery.taken() == expected


async def test_types_are_respected() -> None:
    """A transient child comes back after a crash only; a temporary one never does."""
    children = (
        ChildSpec(name="t", order=1, restart="transient"),
        ChildSpec(name="x", order=2, restart="temporary"),
    )
    nursery = Nursery()
    async with supervised(nursery, Rules(intensity=5), children) as (supervisor, _):
        await supervisor.settled()
        nursery.taken()
        nursery.crash("t")
        nursery.crash("x")
        await settled(supervisor)
        assert nursery.taken() == "-t +t -x"
        nursery.crash("t", normal=True)
        await settled(supervisor)
        assert nursery.taken() == "-t"


async def test_it_gives_up_and_leaves_nobody_behind() -> None:
    """One restart too many stops every child in reverse order and ends the supervisor."""
    nursery = Nursery()
    async with supervised(nursery, Rules(intensity=1, period=60)) as (supervisor, task):
        await supervisor.settled()
        nursery.crash("a")
        await settled(supervisor)
        nursery.taken()
        nursery.crash("a")
        with pytest.raises(GaveUp, match="a ended"):
            await task
        assert nursery.taken() == "-a -c -b"


async def test_a_failed_start_counts_as_a_crash_and_the_others_still_start() -> None:
    """A child that does not start is tried again within the rules; its siblings start as well."""
    nursery = Nursery()
    nursery.stillborn["b"] = 2
    async with supervised(nursery, Rules(intensity=2, period=60)) as (supervisor, _):
        await supervisor.settled()
        assert nursery.taken() == "+a !b !b +b +c"


async def test_a_child_that_never_starts_makes_it_give_up() -> None:
    """A child that keeps failing to start exhausts the intensity; nobody is left running."""
    nursery = Nursery()
    nursery.stillborn["c"] = 99
    async with supervised(nursery, Rules(intensity=2, period=60)) as (_, task):
        with pytest.raises(GaveUp):
            await task
        assert nursery.taken() == "+a +b !c !c !c -b -a"


async def test_a_failed_restart_under_one_for_all_starts_over() -> None:
    """Under one_for_all a sibling that fails to come back takes the others down once more."""
    nursery = Nursery()
    rules = Rules(strategy="one_for_all", intensity=5, period=60)
    async with supervised(nursery, rules) as (supervisor, _):
        await supervisor.settled()
        nursery.taken()
        nursery.stillborn["b"] = 1
        nursery.crash("c")
        await settled(supervisor)
        assert nursery.taken() == "-c -b -a +a !b -a +a +b +c"


async def test_two_crashes_at_once_are_handled_one_after_the_other() -> None:
    """A crash of a child that a sibling's crash took down already causes no second restart."""
    nursery = Nursery()
    rules = Rules(strategy="one_for_all", intensity=5, period=60)
    async with supervised(nursery, rules) as (supervisor, _):
        await supervisor.settled()
        nursery.taken()
        nursery.crash("a")
        nursery.crash("b")
        await settled(supervisor)
        assert nursery.taken() == "-a -c -b +a +b +c"
        assert supervisor.health()["children"] == {
            name: {"running": True, "restarts": 1} for name in ("a", "b", "c")
        }
