"""What options of ``secrethub engine`` bring about: at any mount, and each setting under its own name."""

from __future__ import annotations

from pathlib import Path

import trustme

from tests.gateway.conftest import Node
from tests.gateway.database_target import CANARY, TargetDatabase
from tests.gateway.databases import CREATION, target
from tests.gateway.shell import Cli

__all__ = ["target"]  # the fixture


async def test_databases_of_another_mount(leasing: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """With ``--mount`` everything is asked of that mount, and of no other."""
    cli = Cli(leasing, tmp_path)
    await cli("mount", "enable", "database", "--path", "other/db")
    at = ("--mount", "other/db/")
    place = ("--url", target.connection_url, "--username", target.owner, "--allow", "*")
    await cli("engine", "connection", "write", "db", *place, "--ask", *at, stdin=f"{CANARY}\n")
    assert await cli.json("engine", "connection", "list", *at) == ["db"]
    assert await cli.json("engine", "connection", "list") == []
    assert "not found" in await cli("engine", "connection", "read", "db", code=1)
    assert (await cli.json("engine", "connection", "read", "db", *at))["plugin_name"].startswith("postgresql")
    assert (await cli.json("engine", "connection", "health", "db", "--check", *at))["healthy"] is True
    await cli("engine", "connection", "rotate-root", "db", *at)
    assert not await target.opens(target.owner, CANARY)

    made = ("--connection", "db", "--creation", CREATION[0])
    ends = ("--revocation", 'DROP ROLE IF EXISTS "{{name}}"', "--rollback", 'DROP ROLE IF EXISTS "{{name}}"')
    lives = ("--renewal", "ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'")
    await cli("engine", "role", "write", "app", *made, *ends, *lives, *at)
    role = await cli.json("engine", "role", "read", "app", *at)
    assert role["revocation_statements"] == role["rollback_statements"] == [ends[1]]
    assert role["renew_statements"] == [lives[1]]
    await cli("engine", "role", "write", "tidy", *made, "--owned-objects", "reassign", *at)
    assert (await cli.json("engine", "role", "read", "tidy", *at))["owned_objects"] == "reassign"
    assert await cli.json("engine", "role", "list", *at) == ["app", "tidy"]
    user = await cli.json("engine", "creds", "app", *at)
    assert await target.opens(user["username"], user["password"])
    await cli("lease", "renew", user["lease_id"])
    await cli("lease", "revoke", user["lease_id"], "--wait")
    assert await target.users() == set()
    assert (await cli.json("engine", "strays", "db", *at))["strays"] == []

    name = f"{target.owner}_static"
    await target.sql(f"CREATE ROLE {name} LOGIN")
    when = ("--cron", "0 3 * * sun", "--zone", "Europe/Berlin")
    how = ("--statement", "ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'")
    try:
        await cli(
            "engine", "static", "write", "s", "--connection", "db", "--username", name, *when, *how, *at
        )
        shown = await cli.json("engine", "static", "read", "s", *at)
        assert (shown["rotation_schedule"], shown["rotation_zone"]) == (when[1], when[3])
        assert shown["rotation_statements"] == [how[1]]
        assert await cli.json("engine", "static", "list", *at) == ["s"]
        first = await cli.json("engine", "static", "creds", "s", *at)
        await cli("engine", "static", "rotate", "s", *at)
        assert not await target.opens(name, first["password"])
        wrong = ("--zone", "Mars/North", *at)
        assert "zone" in await cli("engine", "static", "write", "s", *wrong, code=1)
        await cli("engine", "static", "delete", "s", *at)
    finally:
        await target.sql(f"DROP ROLE {name}")
    for role_name in ("app", "tidy"):
        await cli("engine", "role", "delete", role_name, *at)
    assert await cli("engine", "connection", "delete", "db", *at) == "Connection db is deleted.\n"


async def test_settings_of_a_connection(leasing: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """Each is kept under its name, files are read, and what does not answer is kept only if so wished."""
    cli = Cli(leasing, tmp_path)
    authority = trustme.CA()
    own = authority.issue_cert("secrethub")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    await cli(
        "policy", "password", "write", "long", "-", stdin='length = 40\nrule "charset" { charset = "abc" }\n'
    )
    write = ("engine", "connection", "write", "db")
    url = target.connection_url.partition("?")[0]
    where = (
        "--plugin",
        "postgresql-database-plugin",
        "--url",
        url,
        "--username",
        target.owner,
        "--allow",
        "*",
    )
    secured = [
        word
        for option, file in (("--tls-ca", "ca"), ("--tls-certificate", "cert"), ("--private-key", "key"))
        for word in (option, str(tmp_path / f"{file}.pem"))
    ]
    called = ("--password-policy", "long", "--username-template", "app-{{.RoleName}}")
    bounds = ("--max-open-connections", "2", "--scram-iterations", "8192")
    words = (*write, *where, *secured, *called, *bounds, "--password-file", "-")
    assert "verifying" in await cli(*words, "--verify", stdin=CANARY, code=1)
    assert await cli.json("engine", "connection", "list") == []
    await cli(*words, "--no-verify", stdin=CANARY)
    shown = await cli.json("engine", "connection", "read", "db")
    details = shown["connection_details"]
    assert shown["password_policy"] == "long"
    assert (details["username_template"], details["max_open_connections"]) == (called[3], 2)
    assert str(details["scram_iterations"]) == "8192"
    text = str(shown)
    assert (tmp_path / "ca.pem").read_text() in (details["tls_ca"], shown.get("tls_ca"))
    assert "PRIVATE KEY" not in text
    assert CANARY not in text
    missing = await cli(*write, "--tls-ca", str(tmp_path / "none.pem"), code=1)
    assert "none.pem" in missing
