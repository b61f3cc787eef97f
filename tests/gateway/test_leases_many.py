"""``sys/leases``: many leases at once: found by instants, counted when dead, and made due by tidying."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from secrethub.wire.durations import format_rfc3339
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.leased import creds, files, gone, leased, place

__all__ = ["leased", "place"]  # the fixtures


async def _found(node: Node, **query: str) -> list[str]:
    answer = await node.call("GET", "sys/leases", params=query)
    assert answer.status_code == 200, answer.text
    return [one["lease_id"] for one in answer.json()["data"]["leases"]]


async def test_leases_are_found_by_the_instant_of_their_end(leased: Node) -> None:
    """Before an instant, or a duration from now on; what is neither is refused."""
    lease = (await creds(leased))["lease_id"]
    now = leased.clock.now()
    for before, there in ((now + timedelta(minutes=50), []), (now + timedelta(minutes=70), [lease])):
        assert await _found(leased, expiring_before=format_rfc3339(before)) == there
    assert await _found(leased, expiring_before="70m") == [lease]
    for query in ({"expiring_before": "soon"}, {"limit": "1001"}, {"type": "other"}):
        assert (await leased.call("GET", "sys/leases", params=query)).status_code == 400, query


async def test_leases_are_found_by_whose_they_are(leased: Node) -> None:
    """By the beginning of a token's digest, together with everything else that is asked for."""
    token = await leased.token("app", {"version": "1", "statements": [_CREDS]})
    mine, others = (await creds(leased, token))["lease_id"], (await creds(leased))["lease_id"]
    made = (await leased.call("GET", "sys/leases")).json()["data"]["leases"]
    owners = {one["lease_id"]: one["owner"] for one in made}
    assert owners[mine] != owners[others]
    assert await _found(leased, owner=owners[mine][:16]) == [mine]
    assert await _found(leased, owner=owners[mine], role="fixed") == []
    assert await _found(leased, owner=owners[mine], role="app", engine="folder", prefix="db/") == [mine]
    assert await _found(leased, owner=owners[mine], expiring_before="10m") == []


async def test_dead_letters_are_counted_by_themselves(leased: Node, place: Path) -> None:
    """A count of those that were given up has no others in it."""
    dead, _ = (await creds(leased))["data"]["username"], await creds(leased)
    (place.parent / f"refuses-{dead}").touch()
    await sql(
        leased.settings.database_url,
        "UPDATE leases SET due_at = now(), attempts = 23 WHERE id LIKE '%' || $1",
        dead,
    )

    async def counted() -> Any:
        answer = await leased.call("GET", "sys/leases/count", params={"type": "irrevocable"})
        return answer.json()["data"]["counts"]

    assert await until(counted) == {"db/": 1}
    answer = await leased.call("GET", "sys/leases/count")
    assert answer.json()["data"]["counts"] == {"db/": 2}


async def test_tidying_makes_due_what_was_put_off(leased: Node, place: Path) -> None:
    """A lease that is over and whose end somebody put off in the database ends; others stay."""
    kept = (await creds(leased))["data"]["username"]
    url = leased.settings.database_url
    await leased.tree.workplace.take_back()
    over = (await creds(leased, role="brief"))["data"]["username"]

    async def expired() -> Any:
        return await sql(
            url, "UPDATE leases SET due_at = now() + interval '1 year' WHERE due_at < now() RETURNING id"
        )

    await until(expired)
    await leased.tree.workplace.lend(leased.process.core)
    assert (await leased.call("PUT", "sys/leases/tidy")).status_code == 204
    (told,) = await entries(url, operation="lease.tidy", outcome="done")
    assert told["detail"]["answer"]["leases"] == 1
    await gone(place, over)
    assert files(place) == {kept}
    await ledger_is_good(leased)


_CREDS = {"effect": "allow", "paths": ["db/creds/**"], "capabilities": ["read"]}
