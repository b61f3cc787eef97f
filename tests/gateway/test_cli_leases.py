"""``secrethub lease`` against a real server, as a shell runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from secrethub.leases.retry import USUAL
from tests.gateway.behind import sql, until
from tests.gateway.conftest import Node
from tests.gateway.leased import creds, files, gone, leased, place
from tests.gateway.shell import Cli

__all__ = ["leased", "place"]  # the fixtures


@pytest.fixture
def cli(leased: Node, tmp_path: Path) -> Cli:
    """The command line for the node that leases things out."""
    return Cli(leased, tmp_path)


async def test_leases(cli: Cli, leased: Node, place: Path) -> None:
    """Leases are shown, listed, found, counted, renewed and revoked; dead ones are retried or forgotten."""
    made = [await creds(leased) for _ in range(3)]
    ids = sorted(one["lease_id"] for one in made)
    assert (await cli.json("lease", "lookup", ids[0]))["id"] == ids[0]
    assert await cli.json("lease", "list", "db/creds/") == ["app/"]
    assert [one["lease_id"] for one in await cli.json("lease", "find", "--role", "app")] == ids
    assert ids[0] in await cli("lease", "find", "--prefix", "db/")
    assert (await cli.json("lease", "count"))["counts"] == {"db/": 3}
    (most,) = await cli.json("lease", "top", "--most", "1")
    assert most["leases"] == 3
    for right, wrong in (
        (("--owner", most["owner"]), ("--owner", "0" * len(most["owner"]))),
        (("--engine", "folder"), ("--engine", "database")),
        (("--expiring-before", "999h"), ("--expiring-before", "1s")),
    ):
        assert [one["lease_id"] for one in await cli.json("lease", "find", *right)] == ids, right
        assert await cli.json("lease", "find", *wrong) == [], wrong
    assert [one["lease_id"] for one in await cli.json("lease", "find", "--most", "2")] == ids[:2]
    assert await cli.noted("lease", "find", "--most", "2") == "There may be more than these 2.\n"
    assert await cli.noted("lease", "find") == ""
    assert (await cli.json("lease", "renew", ids[0], "--increment", "10m"))["lease_duration"] == 600
    assert await cli("lease", "revoke", ids[0], "--wait") == "Revoked.\n"
    assert len(files(place)) == 2
    names = [one["data"]["username"] for one in made if one["lease_id"] != ids[0]]
    for name in names:
        (place.parent / f"refuses-{name}").touch()
    await sql(
        leased.settings.database_url, "UPDATE leases SET due_at = now(), attempts = $1", USUAL.attempts - 1
    )

    async def dead() -> bool:
        return len(await cli.json("lease", "dead")) == 2

    await until(dead)
    assert "the target refuses" in await cli("lease", "dead")
    assert (await cli.json("lease", "count", "--dead"))["counts"] == {"db/": 2}
    (place.parent / f"refuses-{names[0]}").unlink()
    assert await cli.json("lease", "dead", "--retry") == {"leases": 2}
    await gone(place, names[0])
    assert "Nothing was revoked" in await cli("lease", "revoke", "db/creds/ap", "--prefix")
    assert await cli("lease", "revoke", "db", "--prefix", "--force") == "Revoked 1 lease.\n"
    assert "Nothing was revoked" in await cli("lease", "revoke", "db", "--prefix", "--force")
    assert await cli.json("lease", "find") == []
    await creds(leased)
    await creds(leased)
    revoked = await cli("lease", "revoke", "db/creds", "--prefix")
    assert revoked == "Revoked 2 leases; gone at the target in a moment.\n"
    assert "invalid lease" in await cli("lease", "lookup", ids[0], code=1)
    assert "--force goes with --prefix" in await cli("lease", "revoke", ids[0], "--force", code=2)
