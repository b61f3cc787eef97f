"""Issues of several requests in one transaction: all of them, each by itself, and in several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from offices import ROWS, Office, apart, founded, opened, sharing, until

from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import Fence
from secrethub.errors import Conflict, IntegrityFailure, LoginFailed, Stale, Unavailable
from secrethub.storage.authority import ACCESSORS, SECRET_IDS, TOKENS, Change
from secrethub.storage.authority_whole import WholeTable

UNTIL = datetime(2040, 1, 1, tzinfo=UTC)


@pytest.fixture
async def keyring(database_url: str) -> Keyring:
    """The keyring of a fresh cluster."""
    return await founded(database_url)


@pytest.fixture
async def office(database_url: str, keyring: Keyring) -> AsyncIterator[Office]:
    """One process of it."""
    async with opened(database_url, keyring) as one:
        yield one


@pytest.fixture
async def other(database_url: str, keyring: Keyring, office: Office) -> AsyncIterator[Office]:
    """Another process of it."""
    async with opened(database_url, keyring) as one:
        yield one


async def login(office: Office, name: str, *, counted: str = "", fails: bool = False) -> list[dict[str, Any]]:
    """Do what a login does: count a use, write a token and its accessor."""

    async def work(change: Change) -> list[dict[str, Any]]:
        if counted:
            row = await change.get(SECRET_IDS, counted)
            if row is None:
                raise LoginFailed("no", "used up")
            left = row.body["left"] - 1
            if left:
                await change.put(
                    SECRET_IDS, counted, {"left": left}, owner=row.owner, expires_at=row.expires_at
                )
            else:
                await change.delete(SECRET_IDS, counted)
        await change.put(
            TOKENS, name, {"name": name}, owner="somebody", expires_at=UNTIL, expected_revision=0
        )
        if fails:
            raise LoginFailed("no", "because")
        await change.put(ACCESSORS, f"a-{name}", {"token": name}, owner=name, expected_revision=0)
        return change.written

    places = [(TOKENS, name), (ACCESSORS, f"a-{name}"), *([(SECRET_IDS, counted)] if counted else [])]
    return await office.authority.together.issue(office.fence, places, work)


async def good(office: Office) -> dict[str, int]:
    """Check that every row verifies, and return how many each table has."""
    found = {}
    for table in (SECRET_IDS, TOKENS, ACCESSORS):
        rows, broken = await office.authority.everything(table)
        assert not broken
        found[table.name] = len(rows)
    return found


async def test_many_at_once(office: Office, other: Office) -> None:
    """Members of several transactions in two processes all arrive, with what belongs to each alone."""
    before = (await good(office))["tokens"]
    written = await asyncio.gather(
        *(login(one, f"t{n}-{m}") for n, one in enumerate((office, other)) for m in range(150))
    )
    for n, told in enumerate(written):
        name = f"t{n // 150}-{n % 150}"
        assert [(one["table"], one["key"]) for one in told] == [("tokens", name), ("accessors", f"a-{name}")]
    assert (await good(other))["tokens"] == before + 300
    row = await other.authority.fetch(TOKENS, "t0-7")
    assert row is not None
    assert (row.body, row.owner, row.expires_at) == ({"name": "t0-7"}, "somebody", UNTIL)


async def test_uses_are_counted(office: Office, other: Office) -> None:
    """Of many members that count uses of one row as many get through as there were uses, with one each."""
    async with office.authority.issue(office.fence) as change:
        await change.put(SECRET_IDS, "s", {"left": 9}, owner="role")
    results = await asyncio.gather(
        *(login(one, f"{one is other}{n}", counted="s") for one in (office, other) for n in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, LoginFailed) for result in results) == 31
    assert sum(isinstance(result, list) for result in results) == 9
    found = await good(office)
    assert (found["secret_ids"], found["accessors"]) == (0, 9 + 1)


async def test_a_member_that_fails_leaves_nothing(office: Office) -> None:
    """What fails halfway is undone, a use that it counted too, and its neighbours go on."""
    async with office.authority.issue(office.fence) as change:
        await change.put(SECRET_IDS, "s", {"left": 2})
    twin, third = sharing(TOKENS, "twin", 3)[1:]
    results = await asyncio.gather(
        login(office, "twin"),
        login(office, twin, counted="s", fails=True),
        login(office, third, counted="s"),
        login(office, "twin"),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [list, LoginFailed, list, Conflict]
    assert await office.authority.fetch(TOKENS, twin) is None
    left = await office.authority.fetch(SECRET_IDS, "s")
    assert left is not None
    assert left.body == {"left": 1}
    await good(office)
    await login(office, twin, counted="s")
    assert (await good(office))["secret_ids"] == 0


async def test_an_older_decision_is_taken_again(office: Office) -> None:
    """A member whose decision was overtaken is told so; the others are not held up."""
    old = office.fence
    await office.put(ROWS, "a", {"n": 1})

    async def nothing(_change: Change) -> None:
        raise AssertionError("decided on what was overtaken")

    results = await asyncio.gather(
        office.authority.together.issue(old, [], nothing),
        login(office, "t"),
        office.authority.together.issue(
            Fence(generation=old.generation, seal_epoch=9, written=[]), [], nothing
        ),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Stale, list, Stale]


async def test_a_bucket_that_is_not_authentic(office: Office) -> None:
    """Only members that touch it fail, with the reason."""
    await login(office, "t")
    far = apart(TOKENS, "t")
    await office.sql("UPDATE tokens SET revision = revision + 1 WHERE key = 't'")
    near = sharing(TOKENS, "t", 2)[1]
    results = await asyncio.gather(login(office, near), login(office, far), return_exceptions=True)
    assert isinstance(results[0], IntegrityFailure)
    assert (results[0].key, results[0].reason) == (near, "a row was inserted, removed or put back")
    assert isinstance(results[1], list)


async def test_a_row_that_was_not_named(office: Office) -> None:
    """A member that touches a row it did not name fails by itself: its bucket is not locked in order."""

    async def work(change: Change) -> None:
        await change.put(TOKENS, "unnamed", {})

    results = await asyncio.gather(
        office.authority.together.issue(office.fence, [], work), login(office, "t"), return_exceptions=True
    )
    assert [type(result) for result in results] == [AssertionError, list]


async def test_the_database_goes_away(office: Office) -> None:
    """When the connection breaks in the middle every member hears of it, and the next ones go on."""
    blocker = await asyncpg.connect(office.url)
    try:
        await blocker.execute("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
        asked = [asyncio.create_task(login(office, f"t{n}")) for n in range(5)]
        waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'tokens'::regclass"
        await until(lambda: office.sql(waiting))
        await office.sql(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS w")
        results = await asyncio.gather(*asked[:1], return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable]
    finally:
        await blocker.close()
    rest = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(result) for result in rest} <= {Unavailable, list}
    await login(office, "again")
    assert (await good(office))["tokens"] == 2 + sum(isinstance(result, list) for result in rest)


async def test_a_whole_table(office: Office, other: Office) -> None:
    """What another process wrote, changed and deleted is known; what a stranger wrote is refused."""
    known = WholeTable(office.authority, office.caches, ROWS)
    assert await known.find("a") is None
    for n in (1, 2):
        await other.put(ROWS, "a", {"n": n})
        await office.ledger.look()
        row = await known.find("a")
        assert row is not None
        assert row.body == {"n": n}
    await other.delete(ROWS, "a")
    await office.ledger.look()
    assert await known.find("a") is None
    await other.put(ROWS, "a", {"n": 3})
    await office.sql("UPDATE pki_roles SET body = '{\"n\": 4}' WHERE key = 'a'")
    await office.ledger.look()
    for _ in range(2):
        with pytest.raises(IntegrityFailure):
            await known.find("a")
    known.drop()
    with pytest.raises(IntegrityFailure):
        await known.find("a")
