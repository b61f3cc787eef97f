"""What the cluster's directory learns of a gateway's sessions, and what the gateway learns back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from actors.session_directory import SessionDirectory
from actors.sessions.registrar import Registrar
from secrethub.clock import SystemClock
from secrethub.errors import Unavailable


class Way:
    """The way to a directory that can be cut and that can lead to a fresh one."""

    def __init__(self) -> None:
        self.directory = SessionDirectory(SystemClock())
        self.cut = False
        self.calls: list[str] = []

    def __call__(self) -> Way:
        return self

    async def call(self, method: str, *args: object, timeout: float = 10.0) -> Any:  # noqa: ARG002
        """Call the directory."""
        self.calls.append(method)
        if self.cut:
            raise Unavailable("cut")
        return await getattr(self.directory, method)(*args)


@contextlib.asynccontextmanager
async def registering(way: Way, gateway: str, replaced: list[tuple[str, str]]) -> AsyncIterator[Registrar]:
    """Run a registrar."""
    registrar = Registrar(
        way,
        gateway=gateway,
        node="n1",
        clock=SystemClock(),
        replaced=lambda agent, session: replaced.append((agent, session)),
        heartbeat=0.02,
    )
    task = asyncio.create_task(registrar.run())
    try:
        yield registrar
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def way() -> Way:
    """A way to a fresh directory."""
    return Way()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds that nothing announces; the test's own limit bounds it."""
    while not await holds():  # noqa: ASYNC110 - what holds is the directory's state, not an event
        await asyncio.sleep(0.005)


async def test_sessions_are_registered_and_forgotten(way: Way) -> None:
    """The directory knows where an agent is while its session lives."""
    async with registering(way, "g1", []) as registrar:
        session_id = registrar.come("agent-1")

        async def known() -> bool:
            place = await way.directory.where("agent-1")
            return place is not None and (place.gateway, place.session_id) == ("g1", session_id)

        await until(known)
        registrar.leave("agent-1", "g1/of-another-time")
        registrar.leave("agent-1", session_id)

        async def gone() -> bool:
            return await way.directory.where("agent-1") is None

        await until(gone)


async def test_a_restarted_directory_is_told_everything_again(way: Way) -> None:
    """A directory that has lost its memory knows all sessions soon."""
    async with registering(way, "g1", []) as registrar:
        for number in range(40):
            registrar.come(f"agent-{number}")

        async def complete() -> bool:
            return await way.directory.count() == 40

        await until(complete)
        way.directory = SessionDirectory(SystemClock())
        await until(complete)


async def test_an_unreachable_directory_holds_nobody_up(way: Way) -> None:
    """Sessions come and go while the directory is away; it learns the outcome."""
    way.cut = True
    async with registering(way, "g1", []) as registrar:
        first = registrar.come("agent-1")
        registrar.come("agent-2")
        registrar.leave("agent-1", first)

        async def tried() -> bool:
            return len(way.calls) >= 2

        await until(tried)
        way.cut = False

        async def only_second() -> bool:
            return await way.directory.count() == 1 and await way.directory.where("agent-2") is not None

        await until(only_second)


async def test_a_herd_is_told_in_one_call(way: Way) -> None:
    """Many arrivals cost the directory few calls."""
    async with registering(way, "g1", []) as registrar:
        for number in range(1000):
            registrar.come(f"agent-{number}")

        async def complete() -> bool:
            return await way.directory.count() == 1000

        await until(complete)
        assert way.calls.count("register") == 0
        assert way.calls.count("refresh") <= 3


async def test_a_session_that_lost_elsewhere_is_reported(way: Way) -> None:
    """When an agent is connected at two gateways, the older gateway learns that it lost."""
    lost: list[tuple[str, str]] = []
    async with registering(way, "g1", lost) as first:
        session_id = first.come("agent-1")

        async def known() -> bool:
            return await way.directory.count() == 1

        await until(known)
        async with registering(way, "g2", []) as second:
            second.come("agent-1")

            async def reported() -> bool:
                return lost[:1] == [("agent-1", session_id)]

            await until(reported)
