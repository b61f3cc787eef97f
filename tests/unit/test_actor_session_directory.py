"""The session directory knows for each agent the newest session, whatever the order of events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.session_directory import Place, SessionDirectory
from secrethub.errors import TooManyRequests


class Hands:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> datetime:
        """The wall clock, which nothing here asks for."""
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        """Seconds as set by the test."""
        return self.at


def place(agent: str, session: str, since: int, gateway: str = "g1") -> Place:
    """A session of ``agent``."""
    return Place(agent_id=agent, session_id=session, gateway=gateway, node=f"node-{gateway}", since=since)


async def test_the_newest_connection_wins_and_the_replaced_one_is_returned() -> None:
    """A second session of an agent replaces the first, which is returned to be closed."""
    directory = SessionDirectory(Hands())
    old, new = place("a", "s1", 1, "g1"), place("a", "s2", 2, "g2")
    assert await directory.register(old) is None
    assert await directory.register(new) == old
    assert await directory.where("a") == new
    assert await directory.count() == 1


async def test_a_late_registration_of_an_older_session_loses() -> None:
    """An older session that is registered later is itself returned to be closed."""
    directory = SessionDirectory(Hands())
    old, new = place("a", "s1", 1, "g1"), place("a", "s2", 2, "g2")
    await directory.register(new)
    assert await directory.register(old) == old
    assert await directory.where("a") == new


async def test_registering_again_changes_nothing() -> None:
    """A repeated registration replaces nobody."""
    directory = SessionDirectory(Hands())
    await directory.register(place("a", "s1", 1))
    assert await directory.register(place("a", "s1", 1)) is None
    assert await directory.count() == 1


async def test_a_session_that_was_replaced_cannot_strike_out_its_successor() -> None:
    """The end of a replaced session leaves the newer one in the directory."""
    directory = SessionDirectory(Hands())
    await directory.register(place("a", "s1", 1))
    await directory.register(place("a", "s2", 2))
    assert not await directory.forget("a", "s1")
    assert await directory.forget("a", "s2")
    assert not await directory.forget("a", "s2")
    assert await directory.where("a") is None


async def test_a_fresh_directory_asks_gateways_to_register_again() -> None:
    """After a restart a heartbeat is answered with no, and a refresh brings the sessions back."""
    directory = SessionDirectory(Hands())
    assert not await directory.heartbeat("g1")
    places = [place("a", "s1", 1), place("b", "s2", 2)]
    assert await directory.refresh("g1", places) == ()
    assert await directory.heartbeat("g1")
    assert await directory.count() == 2


async def test_a_refresh_drops_what_the_gateway_no_longer_has() -> None:
    """A refresh replaces everything known of that gateway and nothing of others."""
    directory = SessionDirectory(Hands())
    await directory.refresh("g1", [place("a", "s1", 1), place("b", "s2", 1)])
    await directory.refresh("g2", [place("c", "s3", 1, "g2")])
    lost = await directory.refresh("g1", [place("b", "s2", 1), place("c", "s0", 0)])
    assert lost == (place("c", "s0", 0),)
    assert await directory.where("a") is None
    assert await directory.where("b") == place("b", "s2", 1)
    assert await directory.where("c") == place("c", "s3", 1, "g2")


async def test_a_silent_gateway_is_forgotten_with_its_sessions() -> None:
    """Sessions of a gateway without heartbeats disappear; the others stay."""
    clock = Hands()
    directory = SessionDirectory(clock, silence=30)
    await directory.register(place("a", "s1", 1, "g1"))
    await directory.register(place("b", "s2", 1, "g2"))
    clock.at = 20
    assert await directory.heartbeat("g2")
    clock.at = 40
    assert await directory.where("a") is None
    assert await directory.count() == 1
    assert not await directory.heartbeat("g1")


async def test_it_is_bounded() -> None:
    """A full directory refuses more agents but goes on with those it has."""
    directory = SessionDirectory(Hands(), limit=2)
    await directory.register(place("a", "s1", 1))
    await directory.register(place("b", "s2", 1))
    with pytest.raises(TooManyRequests):
        await directory.register(place("c", "s3", 1))
    assert await directory.register(place("a", "s4", 2)) == place("a", "s1", 1)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5), st.sampled_from(["g1", "g2"]), st.booleans()),
    max_size=30,
)


@given(EVENTS)
async def test_whatever_the_order_the_newest_living_session_is_known(
    events: list[tuple[str, int, str, bool]],
) -> None:
    """Registrations in any order leave the newest, and everyone else was told to close."""
    directory = SessionDirectory(Hands())
    alive: dict[str, dict[str, Place]] = {"a": {}, "b": {}}
    for agent, since, gateway, leave in events:
        one = place(agent, f"{agent}-{since}-{gateway}", since, gateway)
        if leave:
            known = alive[agent].pop(one.session_id, None)
            assert await directory.forget(agent, one.session_id) == (known is not None)
            continue
        alive[agent][one.session_id] = one
        lost = await directory.register(one)
        if lost is not None:
            del alive[agent][lost.session_id]
        assert len(alive[agent]) == 1
    for agent, sessions in alive.items():
        newest = max(sessions.values(), key=lambda one: one.age, default=None)
        assert await directory.where(agent) == newest
