"""Leases: who has them, how long they last, and that their end is the end at the target."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import hvac
import msgspec
import pytest

from secrethub.engines.own_changes import present_fence
from secrethub.errors import IntegrityFailure, Stale
from secrethub.operations.leases import tell
from secrethub.storage import lease_lists
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.lease_engine import PASSWORD
from tests.gateway.leased import creds, files, gone, leased, place

__all__ = ["leased", "place"]  # the fixtures


async def _lookup(node: Node, lease: str, token: str | None = None) -> Any:
    return await node.call("PUT", "sys/leases/lookup", token, json={"lease_id": lease})


async def _app(node: Node, **options: Any) -> str:
    return await node.token("app", native("db/creds/**"), **options)


async def test_a_lease_is_made_looked_up_renewed_and_revoked(leased: Node, place: Path) -> None:
    """What is answered is there, is told of without its secret, lasts longer when renewed, and goes."""
    made = await creds(leased)
    lease, name = made["lease_id"], made["data"]["username"]
    path, _, marker = lease.rpartition("/")
    assert (path, marker, len(marker)) == ("db/creds/app", name, 24)
    assert (made["renewable"], made["lease_duration"]) == (True, 3600)
    assert files(place) == {name}
    seen = (await _lookup(leased, lease)).json()["data"]
    assert (seen["id"], seen["renewable"], seen["last_renewal"]) == (lease, True, None)
    assert 3590 <= seen["ttl"] <= 3600
    before = (place / name).read_text()
    renewed = await leased.call("PUT", "sys/leases/renew", json={"lease_id": lease, "increment": 7000})
    assert (renewed.json()["lease_id"], renewed.json()["lease_duration"]) == (lease, 7000)
    assert (place / name).read_text() > before
    capped = (await leased.call("PUT", f"sys/renew/{lease}", json={"increment": "10h"})).json()
    assert 7100 <= capped["lease_duration"] <= 7200
    assert capped["warnings"]
    gone_now = await leased.call("PUT", "sys/leases/revoke", json={"lease_id": lease, "sync": True})
    assert gone_now.status_code == 204, gone_now.text
    assert files(place) == set()
    for operation in ("lookup", "renew", "revoke"):
        answer = await leased.call("PUT", f"sys/leases/{operation}", json={"lease_id": lease})
        assert (answer.status_code, answer.json()["errors"]) == (400, ["invalid lease"])
    assert [
        entry["outcome"] for entry in await entries(leased.settings.database_url, operation="lease.end")
    ] == [
        "begun",
        "done",
    ]
    assert PASSWORD not in str(await entries(leased.settings.database_url))
    await ledger_is_good(leased)


async def test_no_row_holds_the_secret(leased: Node) -> None:
    """What the database keeps of a lease shows neither the password nor what the engine knows."""
    made = await creds(leased)
    row = (await sql(leased.settings.database_url, "SELECT * FROM leases"))[0]
    assert PASSWORD.encode() not in bytes(row["sealed"])
    assert b"username" not in bytes(row["sealed"])
    assert made["data"]["password"] not in str(dict(row))


async def test_a_lease_ends_by_itself(leased: Node, place: Path) -> None:
    """A lease that is not renewed is gone at the target soon after its end, and the ledger says so."""
    name = (await creds(leased, role="brief"))["data"]["username"]
    assert name in files(place)
    await gone(place, name)

    async def none_left() -> bool:
        return not await sql(leased.settings.database_url, "SELECT id FROM leases")

    await until(none_left)
    ended = await entries(leased.settings.database_url, operation="lease.end", outcome="done")
    assert [entry["actor"] for entry in ended] == ["system"]


async def test_the_end_of_a_token_ends_its_leases_and_those_of_its_children(
    leased: Node, place: Path
) -> None:
    """Revoking a token ends what it and whatever was made from it leased, and nothing else."""
    parent = await leased.token(
        "parent",
        {
            "version": "1",
            "statements": [
                {"effect": "allow", "paths": ["db/creds/**"], "capabilities": ["read"]},
                {"effect": "allow", "paths": ["auth/token/create"], "capabilities": ["update"]},
            ],
        },
    )
    made = await leased.call("POST", "auth/token/create", parent, json={"policies": ["parent"]})
    child = made.json()["auth"]["client_token"]
    mine = (await creds(leased, parent))["data"]["username"]
    heirs = (await creds(leased, child))["data"]["username"]
    others = (await creds(leased))["data"]["username"]
    assert files(place) == {mine, heirs, others}
    await leased.call("POST", "auth/token/revoke", json={"token": parent})
    await gone(place, mine, heirs)
    assert files(place) == {others}


async def test_children_that_are_made_orphans_keep_their_leases(leased: Node, place: Path) -> None:
    """Revoking a token alone ends its own leases and leaves its children theirs."""
    parent = await leased.token(
        "parent",
        {
            "version": "1",
            "statements": [
                {"effect": "allow", "paths": ["db/creds/**"], "capabilities": ["read"]},
                {"effect": "allow", "paths": ["auth/token/create"], "capabilities": ["update"]},
            ],
        },
    )
    made = await leased.call("POST", "auth/token/create", parent, json={"policies": ["parent"]})
    child = made.json()["auth"]["client_token"]
    mine = (await creds(leased, parent))["data"]["username"]
    heirs = (await creds(leased, child))["data"]
    answer = await leased.call("POST", "auth/token/revoke-orphan", json={"token": parent})
    assert answer.status_code == 204, answer.text
    await gone(place, mine)
    assert files(place) == {heirs["username"]}


async def test_a_lease_lasts_no_longer_than_its_token(leased: Node) -> None:
    """Neither the making nor a renewal of a lease passes the end of its owner."""
    token = await _app(leased, ttl="10m")
    made = await creds(leased, token)
    assert 590 <= made["lease_duration"] <= 600
    body = {"lease_id": made["lease_id"], "increment": "1h"}
    for who in (token, leased.root):
        renewed = (await leased.call("PUT", "sys/leases/renew", who, json=body)).json()
        assert renewed["lease_duration"] <= 600, renewed


async def test_nobody_works_at_leases_of_others(leased: Node, place: Path) -> None:
    """A lease of somebody else is as unknown as one that never was, unless one has sudo."""
    first, second = await _app(leased), await _app(leased)
    lease = (await creds(leased, first))["lease_id"]
    assert (await _lookup(leased, lease, first)).status_code == 200
    for operation in ("lookup", "renew", "revoke"):
        for identifier in (lease, lease[:-1] + "0", "db/creds/app/x"):
            answer = await leased.call(
                "PUT", f"sys/leases/{operation}", second, json={"lease_id": identifier}
            )
            assert (answer.status_code, answer.json()["errors"]) == (400, ["invalid lease"]), identifier
    assert len(files(place)) == 1
    for path in ("revoke-prefix/db", "revoke-force/db", "tidy", "retry"):
        answer = await leased.call("PUT", f"sys/leases/{path}", first)
        assert answer.status_code == 403, path
    for path in ("sys/leases", "sys/leases/top", "sys/leases/count"):
        assert (await leased.call("GET", path, first)).status_code == 403, path
    assert (await leased.call("LIST", "sys/leases/lookup/db", first)).status_code == 403


async def test_renewals_at_the_same_time_do_not_get_in_each_others_way(leased: Node) -> None:
    """Renewed together, twice each, every lease lasts longer but the one that is revoked meanwhile."""
    made = [(await creds(leased))["lease_id"] for _ in range(4)]
    await leased.call("PUT", "sys/leases/revoke", json={"lease_id": made[0]})
    answers = await asyncio.gather(
        *(
            leased.call("PUT", "sys/leases/renew", json={"lease_id": lease, "increment": 7000})
            for lease in made * 2
        )
    )
    assert [answer.status_code for answer in answers] == [400, 200, 200, 200] * 2
    assert {answer.json()["lease_duration"] for answer in answers if answer.status_code == 200} <= {
        6999,
        7000,
    }
    rows = await sql(leased.settings.database_url, "SELECT revision FROM leases WHERE revoked_at IS NULL")
    assert [row["revision"] for row in rows] == [4, 4, 4]
    await ledger_is_good(leased)


async def test_a_renewal_that_was_overtaken_harms_no_other(leased: Node) -> None:
    """Of renewals made together those are refused whose decision, seal epoch or lease is not present."""
    made = [(await creds(leased))["lease_id"] for _ in range(5)]
    core = leased.process.core
    found = [await core.lookups.find(core.keyring(), one) for one in made]
    known = [one for one in found if one is not None]
    await leased.call("PUT", "sys/leases/revoke", json={"lease_id": made[3]})
    await core.ledger.look()
    present = present_fence(core, [])
    fences = (
        present,
        msgspec.structs.replace(present, generation=present.generation - 1),
        msgspec.structs.replace(present, seal_epoch=present.seal_epoch + 1),
        present,
        present,
    )
    overtaken = msgspec.structs.replace(known[4][0], revision=known[4][0].revision + 1)
    asked = [*(lease for lease, _ in known[:4]), overtaken]
    got = await asyncio.gather(
        *(
            core.renewals.renew(core.keyring(), fence, lease, now=known[0][1], until=lease.expires_at + 1)
            for fence, lease in zip(fences, asked, strict=True)
        ),
        return_exceptions=True,
    )
    written = got[0]
    assert isinstance(written, dict)
    assert (written["key"], written["revision"]) == (made[0], 3)
    assert [type(one) for one in got[1:3]] == [Stale, Stale]
    assert got[3:] == [None, None]
    rows = await sql(leased.settings.database_url, "SELECT id FROM leases WHERE renewed_at > 0")
    assert [row["id"] for row in rows] == [made[0]]
    again = await core.lookups.find(core.keyring(), made[0])
    assert again is not None
    assert again[0].expires_at == known[0][0].expires_at + 1


async def test_lookups_at_the_same_time_harm_no_other(leased: Node) -> None:
    """Of lookups made together each has its own answer: what is there, is not, cannot be, or was edited."""
    good, edited = [(await creds(leased))["lease_id"] for _ in range(2)]
    await sql(leased.settings.database_url, "UPDATE leases SET owner = 'x' WHERE id = $1", edited)
    core = leased.process.core
    none, never = f"{good[:-1]}-", (f"{good}\0", f"{good}\ud800")
    for order in ((good, good, edited, none, *never), (*never, none, edited, good, good)):
        found = await asyncio.gather(
            *(core.lookups.find(core.keyring(), one) for one in order), return_exceptions=True
        )
        for asked, got in zip(order, found, strict=True):
            if asked == good:
                assert isinstance(got, tuple)
                assert got[0].id == good
            elif asked == edited:
                assert isinstance(got, IntegrityFailure)
            else:
                assert got is None
    answer = await _lookup(leased, never[0])
    assert (answer.status_code, answer.json()["errors"]) == (400, ["invalid lease"])


async def test_how_many_there_are_is_known_without_counting(leased: Node, place: Path) -> None:
    """The number of leases follows their making and their end, also in one statement, by kind of engine."""
    core = leased.process.core
    for role in ("app", "app", "other"):
        await creds(leased, role=role)
    assert list((await lease_lists.held(core.database)).values()) == [3]
    await tell(core)
    assert core.metrics.registry.get_sample_value("secrethub_leases", {"engine": "folder"}) == 3
    await leased.call("PUT", "sys/leases/revoke-prefix/db", json={"sync": True})
    assert files(place) == set()
    assert list((await lease_lists.held(core.database)).values()) == [0]
    await tell(core)
    assert core.metrics.registry.get_sample_value("secrethub_leases", {"engine": "folder"}) == 0


async def test_what_is_not_renewable_is_not_renewed(leased: Node) -> None:
    """A lease that its role does not let be renewed ends when it was to."""
    made = await creds(leased, role="fixed")
    assert made["renewable"] is False
    answer = await leased.call("PUT", "sys/leases/renew", json={"lease_id": made["lease_id"]})
    assert (answer.status_code, answer.json()["errors"]) == (400, ["lease is not renewable"])


async def test_a_mount_may_let_leases_live_longer(leased: Node) -> None:
    """A mount's maximum takes the place of the cluster's, and a role's holds within it."""
    assert (await creds(leased, role="long"))["lease_duration"] == 768 * 3600
    await leased.call("POST", "sys/mounts/db/tune", json={"max_lease_ttl": "2000h"})
    made = await creds(leased, role="long")
    assert made["lease_duration"] == 1000 * 3600
    body = {"lease_id": made["lease_id"], "increment": "9000h"}
    renewed = (await leased.call("PUT", "sys/leases/renew", json=body)).json()
    assert 1499 * 3600 < renewed["lease_duration"] <= 1500 * 3600


async def test_leases_below_a_prefix_are_revoked(leased: Node, place: Path) -> None:
    """revoke-prefix ends whole folders of leases, or one, and does not take a longer name for them."""
    one, *_ = mine = [(await creds(leased))["lease_id"] for _ in range(3)]
    other = (await creds(leased, role="other"))["data"]["username"]
    for prefix, left in ((one[:-1], 4), (one, 3), ("db/creds/ap", 3), ("db/creds/app", 1)):
        before = len(files(place))
        answer = await leased.call("PUT", f"sys/leases/revoke-prefix/{prefix}", json={"sync": True})
        assert answer.json()["data"] == {"leases": before - left}
        assert len(files(place)) == left
    assert files(place) == {other}
    assert mine
    await leased.call("PUT", "sys/revoke-prefix/db")
    await gone(place, other)


async def test_leases_are_listed_found_and_counted(leased: Node) -> None:
    """Leases are listed by folders, found by what they are, a page at a time, and counted by mount."""
    made = [(await creds(leased))["lease_id"] for _ in range(3)] + [
        (await creds(leased, role="fixed"))["lease_id"]
    ]
    listed = (await leased.call("LIST", "sys/leases/lookup")).json()["data"]["keys"]
    assert listed == ["db/"]
    listed = (await leased.call("LIST", "sys/leases/lookup/db/creds")).json()["data"]["keys"]
    assert listed == ["app/", "fixed/"]
    listed = (await leased.call("LIST", "sys/leases/lookup/db/creds/app")).json()["data"]["keys"]
    assert sorted(listed) == sorted(one.rpartition("/")[2] for one in made[:3])
    assert (await leased.call("LIST", "sys/leases/lookup/dc")).status_code == 404

    async def found(**query: str) -> Any:
        return (await leased.call("GET", "sys/leases", params=query)).json()["data"]

    first = await found(limit="3")
    rest = await found(limit="3", after=first["next"])
    assert [one["lease_id"] for one in first["leases"] + rest["leases"]] == sorted(made)
    assert rest["next"] is None
    for limit in ("2m", "-1", "1001"):
        assert (await leased.call("GET", "sys/leases", params={"limit": limit})).status_code == 400
    assert [one["lease_id"] for one in (await found(role="fixed"))["leases"]] == made[3:]
    assert [one["lease_id"] for one in (await found(expiring_before="30m"))["leases"]] == made[3:]
    assert (await found(prefix="db/creds/fix"))["lease_count"] == 1
    assert (await found(engine="folder"))["lease_count"] == 4
    assert (await found(engine="kv"))["lease_count"] == 0
    owner = first["leases"][0]["owner"]
    assert (await found(owner=owner))["lease_count"] == 4
    counted = (await leased.call("GET", "sys/leases/count")).json()["data"]
    assert (counted["lease_count"], counted["counts"]) == (4, {"db/": 4})
    makers = (await leased.call("GET", "sys/leases/top")).json()["data"]["makers"]
    assert [(one["role"], one["leases"], one["mount"]) for one in makers] == [
        ("app", 3, "db/"),
        ("fixed", 1, "db/"),
    ]


async def test_disabling_a_mount_ends_its_leases(leased: Node, place: Path) -> None:
    """A mount goes with its leases, and stays, though nobody is led to it, while one cannot be ended."""
    await creds(leased)
    (place.parent / "away-one").touch()
    answer = await leased.call("DELETE", "sys/mounts/db")
    assert answer.status_code == 503, answer.text
    assert (await leased.call("GET", "db/creds/app")).status_code == 404
    assert len(files(place)) == 1
    (place.parent / "away-one").unlink()

    async def disabled() -> bool:
        return (await leased.call("DELETE", "sys/mounts/db")).status_code == 204

    await until(disabled)
    assert files(place) == set()


async def test_moving_a_mount_ends_its_leases(leased: Node, place: Path) -> None:
    """A mount that moves leases out at its new path, and what was leased out before ends."""
    before = (await creds(leased))["data"]["username"]
    moved = await leased.call("POST", "sys/remount", json={"from": "db", "to": "other/db"})
    assert moved.status_code == 200, moved.text
    await gone(place, before)
    answer = await leased.call("GET", "other/db/creds/app")
    assert answer.json()["lease_id"].startswith("other/db/creds/app/")


async def test_a_wrapped_lease_is_whole_when_it_is_opened(leased: Node) -> None:
    """Wrapping keeps the lease of an answer with it."""
    wrapped = await leased.call("GET", "db/creds/app", headers={"X-Vault-Wrap-TTL": "60"})
    token = wrapped.json()["wrap_info"]["token"]
    opened = (await leased.call("POST", "sys/wrapping/unwrap", token)).json()
    assert opened["data"]["password"] == PASSWORD
    assert (opened["renewable"], opened["lease_duration"]) == (True, 3600)
    assert (await _lookup(leased, opened["lease_id"])).status_code == 200


async def _none(place: Path) -> bool:
    return not files(place)


async def test_hvac_renews_and_revokes(leased: Node, place: Path) -> None:
    """Vault's Python client works at leases as it does with Vault."""
    made = await creds(leased)
    address = f"http://127.0.0.1:{leased.settings.http.port}"  # type: ignore[union-attr]

    def work() -> None:
        client = hvac.Client(url=address, token=leased.root)
        assert client.sys.read_lease(made["lease_id"])["data"]["id"] == made["lease_id"]
        assert client.sys.renew_lease(made["lease_id"], increment=60)["lease_duration"] == 60
        assert client.sys.list_leases("db/creds/app")["data"]["keys"]
        client.sys.revoke_lease(made["lease_id"])
        client.sys.revoke_prefix("db/creds/app")
        client.sys.revoke_force("db/creds/other")

    await creds(leased)
    await asyncio.to_thread(work)
    await gone(place, made["data"]["username"])
    await until(lambda: _none(place))


@pytest.mark.parametrize(
    ("column", "value"), [("owner", "'x'"), ("expires_at", "expires_at + 1"), ("target", "'two'")]
)
async def test_an_edited_row_is_no_lease(leased: Node, place: Path, column: str, value: str) -> None:
    """A row that somebody edited is not told of, not worked at, and becomes a dead letter with a reason."""
    made = await creds(leased)
    url = leased.settings.database_url
    await sql(url, f"UPDATE leases SET {column} = {value}, attempts = 23")
    assert (await _lookup(leased, made["lease_id"])).status_code == 500
    await sql(url, "UPDATE leases SET due_at = now()")

    async def dead() -> Any:
        query = {"type": "irrevocable"}
        return (await leased.call("GET", "sys/leases", params=query)).json()["data"]["leases"]

    (letter,) = await until(dead)
    assert "edited" in letter["error"]
    assert files(place) == {made["data"]["username"]}
