"""Somebody removes leases from the database, edits them or puts them back: verification names the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secrethub.engines.own_changes import present_fence
from secrethub.storage.lease_renewals import Renewals
from secrethub.storage.state_check import Checked
from secrethub.storage.state_leases import check_leases
from tests.gateway.behind import until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok
from tests.gateway.leased import creds, files, gone, leased, place
from tests.gateway.test_state_tamper import bad_rows, checked, put_rows, run_sql

__all__ = ["leased", "place"]


async def _rows(node: Node) -> list[Any]:
    return await run_sql(node, "SELECT * FROM leases ORDER BY id")


async def test_leases_as_they_are(leased: Node, place: Path) -> None:
    """Whatever is made, renewed, revoked, over, given up, and renewed by who died, is no damage."""
    kept, revoked = [(await creds(leased))["lease_id"] for _ in range(2)]
    await ok(leased, "POST", "sys/leases/renew", {"lease_id": kept, "increment": 600})
    await ok(leased, "POST", "sys/leases/revoke", {"lease_id": revoked})
    brief = (await creds(leased, role="brief"))["lease_id"]
    await gone(place, brief.rpartition("/")[2])
    left = (await creds(leased, role="other"))["lease_id"]
    (place.parent / "away-two").touch()
    await ok(leased, "POST", "sys/leases/revoke-force/db/creds/other")
    assert files(place) == {kept.rpartition("/")[2], left.rpartition("/")[2]}

    async def one_left() -> bool:
        return [row["id"] for row in await _rows(leased)] == [kept]

    await until(one_left)
    found = await checked(leased)
    assert found["ok"] is True, found
    assert found["state"]["unrecorded"] == 0
    core = leased.process.core
    known = await core.lookups.find(core.keyring(), kept)
    assert known is not None
    await core.ledger.look()
    lease, now = known
    assert await Renewals(core.database).renew(
        core.keyring(), present_fence(core, []), lease, now=now, until=lease.expires_at + 1
    )
    found = await checked(leased)
    assert found["ok"] is True
    assert found["state"]["unrecorded"] == 1


async def test_leases_that_were_tampered_with(leased: Node) -> None:
    """A lease that is removed, edited, an older one of itself, or there again after its end, is named."""
    kept, ended = sorted([(await creds(leased))["lease_id"] for _ in range(2)])
    before = await _rows(leased)
    await ok(leased, "POST", "sys/leases/renew", {"lease_id": kept, "increment": 600})
    await ok(leased, "POST", "sys/leases/revoke", {"lease_id": ended, "sync": True})
    now = await _rows(leased)
    assert [row["id"] for row in now] == [kept]
    for attack, bad in (
        ("DELETE FROM leases", [("leases", kept, "removed")]),
        ("UPDATE leases SET owner = 'me'", [("leases", kept, "edited")]),
        ("UPDATE leases SET max_expires_at = max_expires_at + 1", [("leases", kept, "edited")]),
    ):
        await run_sql(leased, attack)
        assert await bad_rows(leased) == bad
        await put_rows(leased, "leases", now)
    await put_rows(leased, "leases", before)
    assert await bad_rows(leased) == [("leases", kept, "put back"), ("leases", ended, "put back")]
    sliced, core = Checked(), leased.process.core
    async with core.database.read() as connection:
        # As with so many entries that not all of them are looked at together.
        await check_leases(connection, core.keyring(), 10**9, 0, sliced)
    assert {(row.key, row.reason) for row in sliced.bad} == {(kept, "put back"), (ended, "put back")}
    assert sliced.rows == 2
    first = (await checked(leased))["first_bad"]
    entry = await run_sql(
        leased,
        "SELECT operation FROM audit_entries WHERE stream = $1 AND number = $2",
        first["stream"],
        first["number"],
    )
    assert entry[0]["operation"] == "lease.renew"
    await put_rows(leased, "leases", now)
    assert await bad_rows(leased) == []
