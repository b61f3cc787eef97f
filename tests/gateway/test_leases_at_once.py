"""Leases at which somebody else works at the same moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from secrethub.engines.lease_ending import end_these
from tests.gateway.conftest import Node
from tests.gateway.leased import creds, files, leased, place

__all__ = ["leased", "place"]  # the fixtures


async def test_what_was_to_be_gone_is_gone_when_that_is_said(leased: Node, place: Path) -> None:
    """A row that somebody holds for a moment is waited for, and not taken for a lease that has ended."""
    first, second = [(await creds(leased))["lease_id"] for _ in range(2)]
    holding = await asyncpg.connect(leased.settings.database_url)
    try:
        await holding.execute("BEGIN")
        await holding.execute("SELECT FROM leases WHERE id = $1 FOR UPDATE", first)
        ending = asyncio.create_task(end_these(leased.process.core, [first, second], "test"))
        await asyncio.wait((ending,), timeout=0.5)
        await holding.execute("COMMIT")
        assert await ending == {}
        assert files(place) == set()
    finally:
        await holding.close()


async def test_what_stays_held_is_told_of(leased: Node, place: Path) -> None:
    """A lease that somebody holds for long is not said to have ended."""
    lease = (await creds(leased))["lease_id"]
    holding = await asyncpg.connect(leased.settings.database_url)
    try:
        await holding.execute("BEGIN")
        await holding.execute("SELECT FROM leases WHERE id = $1 FOR UPDATE", lease)
        assert await end_these(leased.process.core, [lease], "test") == {
            lease: "somebody else is working at it"
        }
        assert len(files(place)) == 1
    finally:
        await holding.close()
    assert await end_these(leased.process.core, [lease], "test") == {}
    assert files(place) == set()
