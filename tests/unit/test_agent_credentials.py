"""What agents have made for them: once for all, renewed, made anew, and no longer than it is good."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agent.backoff import Backoff
from agent.clocks import read_clocks
from agent.credentials import MOST, Credentials
from agent.watches import FILES
from secrethub.errors import InvalidRequest, PermissionDenied, SecretHubError, TooManyRequests, Unavailable
from secrethub.wire import messages as wire
from secrethub.wire.session import Request

PATH = "secrets/dynamic/postgresql/creds/app"


class Maker:
    """Makes credentials behind the port of a connection."""

    def __init__(self) -> None:
        self.seconds = 3600
        self.renewal: int | SecretHubError = 3600
        self.renewable = True
        self.failure: SecretHubError | None = None
        self.gate: asyncio.Event | None = None
        self.made: list[tuple[str, str | None]] = []
        self.renewed: list[str] = []

    async def ask(self, build: Callable[[int], Request], answer: type[Any]) -> Any:
        """Answer a request."""
        message = build(1)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if isinstance(message, wire.RenewLease):
            self.renewed.append(message.lease_id)
            if isinstance(self.renewal, SecretHubError):
                raise self.renewal
            return wire.Renewed(id=1, lease_duration=self.renewal)
        assert isinstance(message, wire.Issue)
        self.made.append((message.path, message.application))
        assert answer is wire.Issued
        number = len(self.made)
        return wire.Issued(
            id=1,
            path=message.path,
            data={"username": f"u{number}", "password": "canary"},
            lease_id=f"{message.path}/{number}",
            lease_duration=self.seconds,
            renewable=self.renewable,
        )


class House:
    """Credentials, who makes them, and what was told."""

    def __init__(self) -> None:
        self.maker = Maker()
        self.filed = {PATH}
        self.told: list[str] = []
        self.ended: Callable[[str], None] = lambda _path: None
        self.credentials = Credentials(
            self.maker,
            read_clocks,
            Backoff(random.Random(1)),
            lambda: self.filed,
            self._tell,
        )

    def _tell(self, path: str) -> None:
        self.told.append(path)
        self.ended(path)

    async def lease(self, application: str = FILES, path: str = PATH) -> str:
        """Return the id of the lease that is handed out."""
        return (await self.credentials.get(application, path)).lease.lease_id


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Credentials that are looked after."""
    made = House()
    task = asyncio.create_task(made.credentials.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what holds says nothing by itself
            await asyncio.sleep(0.01)


async def test_all_who_want_the_same_at_once_are_answered_by_one(house: House) -> None:
    """One request while it is under way, none while it is held; each application has its own."""
    house.maker.gate = asyncio.Event()
    asking = [asyncio.create_task(house.lease("uid=1")) for _ in range(5)]
    other = asyncio.create_task(house.lease("application=web"))
    await asyncio.sleep(0)
    house.maker.gate.set()
    assert len({*await asyncio.gather(*asking)}) == 1
    assert await other != await asking[0]
    given = await house.credentials.get("uid=1", PATH)
    assert (given.source, given.lease.lease_id) == ("cache", await asking[0])
    assert 3590 < given.left <= 3600
    assert sorted(house.maker.made, key=str) == sorted([(PATH, None), (PATH, "web")], key=str)
    assert house.told == []


async def test_who_gives_up_does_not_spoil_it_for_others(house: House) -> None:
    """A caller that goes away leaves the request to whoever else waits for it."""
    house.maker.gate = asyncio.Event()
    first, second = (asyncio.create_task(house.lease("uid=1")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    house.maker.gate.set()
    assert await second == f"{PATH}/1"


async def test_what_is_in_use_is_renewed_and_then_made_anew(house: House) -> None:
    """Renewed while that gives as much as before; at the maximum a new one comes, and files are told."""
    house.maker.seconds = house.maker.renewal = 1
    assert await house.lease() == f"{PATH}/1"
    await until(lambda: house.maker.renewed == [f"{PATH}/1"] * 2)
    assert (await house.lease(), house.told) == (f"{PATH}/1", [])
    house.maker.seconds, house.maker.renewable = 3600, False
    house.maker.renewal = InvalidRequest("the lease has reached its maximum")
    await until(lambda: house.told == [PATH])
    assert await house.lease() == f"{PATH}/2"


async def test_what_cannot_be_renewed_is_made_anew_in_time(house: House) -> None:
    """There is always one that has not ended."""
    house.maker.seconds, house.maker.renewable = 1, False
    for _ in range(60):
        given = await house.credentials.get(FILES, PATH)
        assert given.left > 0
        await asyncio.sleep(0.05)
    assert len(house.maker.made) > 2
    assert house.maker.renewed == []
    assert len(house.told) == len(house.maker.made) - 1


async def test_what_nobody_asks_for_ends(house: House) -> None:
    """An application's that it did not ask for again, and a file's that needs it no more."""
    house.maker.seconds = house.maker.renewal = 1
    house.filed = set()
    await house.lease("uid=1")
    await house.lease()
    await until(lambda: len(house.maker.renewed) == 1)  # it had just been asked for
    await until(lambda: len(house.credentials) == 0)
    assert house.maker.renewed == [f"{PATH}/1"]
    assert len(house.maker.made) == 2


async def test_while_core_is_away_it_is_good_until_it_ends(house: House) -> None:
    """What is held is handed out as long as it is good; afterwards the caller is told that Core is away."""
    house.maker.seconds = 2
    lease = await house.lease()
    house.maker.failure = Unavailable("no connection to Core")
    seen = 0
    with contextlib.suppress(Unavailable):
        while True:
            assert await house.lease() == lease
            seen += 1
            await asyncio.sleep(0.05)
    assert seen > 10
    await until(lambda: house.told == [PATH])
    house.maker.failure, house.maker.seconds = None, 3600
    assert await house.lease() == f"{PATH}/2"


async def test_core_that_is_back_is_asked_at_once(house: House) -> None:
    """What failed while it was away is done when there is a conversation again."""
    house.maker.seconds, house.maker.renewal = 6, 3600
    await house.lease()
    house.maker.failure = Unavailable("no connection to Core")
    await until(lambda: any(held.failures > 2 for held in house.credentials._held.values()))
    house.maker.failure = None
    house.credentials.hurry()
    await until(lambda: house.maker.renewed == [f"{PATH}/1"])
    assert (await house.credentials.get(FILES, PATH)).left > 3000


async def test_what_is_refused_ends(house: House) -> None:
    """Who may not have it any more keeps what there is until its end, and is told then."""
    house.maker.seconds = 1
    await house.lease()
    house.maker.failure = PermissionDenied("permission denied")
    await until(lambda: house.told == [PATH])
    assert len(house.credentials) == 0
    with pytest.raises(PermissionDenied):
        await house.lease()


async def test_who_asks_as_something_ends_has_it_made_anew(house: House) -> None:
    """Whoever comes while what has ended is being cleared away gets new credentials."""
    house.maker.seconds = 1
    await house.lease()
    house.maker.failure = PermissionDenied("permission denied")
    asked: list[asyncio.Task[str]] = []

    def ended(_path: str) -> None:
        house.maker.failure = None
        asked.append(asyncio.create_task(house.lease()))

    house.ended = ended
    await until(lambda: bool(asked))
    assert await asked[0] == f"{PATH}/2"


async def test_what_is_refused_leaves_nothing_behind(house: House) -> None:
    """An application that asks for one path after the other in vain costs no memory."""
    house.maker.failure = PermissionDenied("permission denied")
    for number in range(50):
        with pytest.raises(PermissionDenied):
            await house.lease("uid=1", f"{PATH}{number}")
    assert (len(house.credentials), house.credentials._used, house.credentials._flights) == (0, set(), {})


async def test_applications_hold_a_bounded_number(house: House) -> None:
    """Files are not kept out by what applications ask for."""
    for number in range(MOST):
        await house.lease("uid=1", f"{PATH}{number}")
    with pytest.raises(TooManyRequests):
        await house.lease("uid=1")
    assert await house.lease() == f"{PATH}/{MOST + 1}"


async def test_forgotten_is_gone(house: House) -> None:
    """Of an agent that Core does not accept any more nothing is handed out."""
    await house.lease()
    house.credentials.forget_all()
    house.maker.failure = Unavailable("no connection to Core")
    with pytest.raises(Unavailable):
        await house.lease()
