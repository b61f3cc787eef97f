"""Leases through crashes of processes and databases and outages of targets: no stray, and none lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from secrethub.leases.retry import USUAL
from tests.gateway import lease_process
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings
from tests.gateway.leased import creds, files, gone, leased, place
from tests.gateway.pair import healthy
from tests.gateway.second_process import Second, started

__all__ = ["leased", "place"]  # the fixtures


@pytest.fixture
async def doomed(leased: Node, place: Path, tmp_path: Path) -> AsyncIterator[Second]:
    """A second process of the cluster, which may die where the target says."""
    key = Path(leased.settings.cluster_key_file).read_text()
    settings = node_settings(tmp_path, leased.settings.database_url, "n2", key)
    async with started(settings, leased.tree.handles, lease_process.run, str(place)) as process:
        await until(lambda: healthy(process))
        yield process


async def _rows(node: Node) -> list[Any]:
    return await sql(node.settings.database_url, "SELECT * FROM leases")


async def _stands_still(process: Second) -> bool:
    return process.stands_still


async def _none_left(node: Node) -> bool:
    return not await _rows(node)


async def _grace_is_over(node: Node) -> None:
    """Let the time pass after which an intent is taken back, and a claim is nobody's any more."""
    await sql(node.settings.database_url, "UPDATE leases SET due_at = clock_timestamp()")


@pytest.mark.parametrize(("where", "there"), [("before", 0), ("after", 1)])
async def test_a_process_that_dies_while_it_makes_a_lease_leaves_nothing(
    leased: Node, doomed: Second, place: Path, where: str, there: int
) -> None:
    """Killed between intent and target, or between target and lease: what was made is undone."""
    (place.parent / f"die-{where}").write_text(str(doomed.pid))
    with pytest.raises(httpx2.HTTPError):
        await doomed.call("GET", "db/creds/app", leased.root)
    assert len(files(place)) == there
    (row,) = await _rows(leased)
    assert row["state"] == "intent"
    await _grace_is_over(leased)
    await until(lambda: _none_left(leased))
    assert files(place) == set()
    await ledger_is_good(leased, state=True)


async def test_a_process_that_dies_while_it_ends_leases_loses_none(
    leased: Node, doomed: Second, place: Path
) -> None:
    """Killed in the middle of ending leases: another process ends them all."""
    await leased.tree.workplace.take_back()
    made = [await creds(leased) for _ in range(5)]
    (place.parent / "die-revoking").write_text(str(doomed.pid))
    with pytest.raises(httpx2.HTTPError):
        await doomed.call("PUT", "sys/leases/revoke-prefix/db/creds", leased.root, json={"sync": True})
    doomed.child.join()
    assert doomed.child.exitcode != 0
    assert len(await _rows(leased)) == 5
    await leased.tree.workplace.lend(leased.process.core)
    await _grace_is_over(leased)
    await until(lambda: _none_left(leased))
    assert files(place) == set()
    done = await entries(leased.settings.database_url, operation="lease.end", outcome="done")
    assert {entry["path"] for entry in done} == {one["lease_id"] for one in made}
    await ledger_is_good(leased, state=True)


async def test_a_manager_that_stands_still_while_it_ends_leases_does_no_harm(
    leased: Node, doomed: Second, place: Path
) -> None:
    """Stopped in the middle of ending leases: another node's manager ends them; waking up harms nobody."""
    await leased.tree.workplace.take_back()
    made = [await creds(leased) for _ in range(3)]
    (place.parent / "stop-revoking").write_text(str(doomed.pid))
    await leased.call("PUT", "sys/leases/revoke-prefix/db/creds")
    await until(lambda: _stands_still(doomed))
    assert len(await _rows(leased)) == 3
    await leased.tree.workplace.lend(leased.process.core)
    await _grace_is_over(leased)
    await until(lambda: _none_left(leased))
    assert files(place) == set()
    kept = await creds(leased)
    doomed.go_on()
    await until(lambda: healthy(doomed))
    await until(lambda: _ended_twice(leased, len(made)))
    assert files(place) == {kept["data"]["username"]}
    assert [row["id"] for row in await _rows(leased)] == [kept["lease_id"]]
    await ledger_is_good(leased)


async def _ended_twice(node: Node, leases: int) -> bool:
    done = await entries(node.settings.database_url, operation="lease.end", outcome="done")
    return len(done) == 2 * leases


async def test_a_target_that_fails_half_way_is_cleaned_up(leased: Node, place: Path) -> None:
    """What an engine had made when it failed is undone at once, and no lease is answered."""
    (place.parent / "fails").touch()
    answer = await leased.call("GET", "db/creds/app")
    assert answer.status_code == 400, answer.text
    await until(lambda: _none_left(leased))
    assert files(place) == set()


async def test_an_intent_that_was_taken_back_is_never_made_live(leased: Node, place: Path) -> None:
    """Whoever is late with making a lease undoes it, for nobody else knows of it any more."""
    url = leased.settings.database_url
    await sql(
        url,
        """CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN NEW.revoked_at := clock_timestamp(); RETURN NEW; END $$""",
    )
    await sql(url, "CREATE TRIGGER late BEFORE INSERT ON leases FOR EACH ROW EXECUTE FUNCTION late()")
    answer = await leased.call("GET", "db/creds/app")
    assert answer.status_code == 503, answer.text
    await sql(url, "DROP TRIGGER late ON leases")
    await until(lambda: _none_left(leased))
    assert files(place) == set()


async def test_a_target_that_is_away_keeps_its_leases_and_hinders_no_other(leased: Node, place: Path) -> None:
    """Leases of a target that is away are tried again until it is back; those of others end meanwhile."""
    away = (await creds(leased))["data"]["username"]
    other = (await creds(leased, role="other"))["data"]["username"]
    (place.parent / "away-one").touch()
    await leased.call("PUT", "sys/leases/revoke-prefix/db")
    await gone(place, other)
    url = leased.settings.database_url

    async def failed() -> bool:
        return bool(await sql(url, "SELECT id FROM leases WHERE attempts > 1 AND error <> ''"))

    await until(failed)
    assert files(place) == {away}
    (place.parent / "away-one").unlink()
    await gone(place, away)
    await until(lambda: _none_left(leased))
    await ledger_is_good(leased, state=True)


async def test_dead_letters_have_reasons_and_are_tried_again_or_forgotten(leased: Node, place: Path) -> None:
    """A lease whose end was given up stays, says why, and goes by one command, ended or not."""
    made = [await creds(leased) for _ in range(2)]
    names = [one["data"]["username"] for one in made]
    for name in names:
        (place.parent / f"refuses-{name}").touch()
    url = leased.settings.database_url
    await sql(url, "UPDATE leases SET due_at = now(), attempts = $1", USUAL.attempts - 1)

    async def dead() -> Any:
        query = {"type": "irrevocable"}
        found = (await leased.call("GET", "sys/leases", params=query)).json()["data"]["leases"]
        return found if len(found) == 2 else None

    letters = await until(dead)
    assert {one["error"] for one in letters} == {"the target refuses"}
    assert {one["state"] for one in letters} == {"irrevocable"}
    (place.parent / f"refuses-{names[0]}").unlink()
    answer = await leased.call("PUT", "sys/leases/retry", json={"prefix": made[0]["lease_id"]})
    assert answer.json()["data"] == {"leases": 1}
    await gone(place, names[0])
    forced = await leased.call("PUT", "sys/leases/revoke-force/db")
    assert made[1]["lease_id"] in forced.json()["warnings"][0]
    await until(lambda: _none_left(leased))
    assert files(place) == {names[1]}
    await ledger_is_good(leased, state=True)


async def test_while_sealed_nothing_ends_and_afterwards_everything_does(leased: Node, place: Path) -> None:
    """Sealing stops the end of leases, which goes on after the unseal."""
    name = (await creds(leased, role="brief"))["data"]["username"]
    assert (await leased.call("PUT", "sys/seal")).status_code in {200, 204}
    assert name in files(place)
    await leased.unseal()
    await gone(place, name)
    await until(lambda: _none_left(leased))
    await ledger_is_good(leased, state=True)
