"""``secrethub token``, ``wrap`` and ``unwrap`` against a real server, as a shell runs them."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.conftest import native
from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture


async def test_options_of_create(cli: Cli) -> None:
    """What is chosen is what the token is, and it is told by accessor, too."""
    made = await cli.json(
        "token", "create", "--policy", "a", "--ttl", "1h", "--num-uses", "9", "--orphan", "--meta", "team=x",
        "--not-renewable", "--explicit-max-ttl", "2h",
    )  # fmt: skip
    seen = await cli.json("token", "lookup", "--accessor", made["accessor"])
    assert (seen["orphan"], seen["num_uses"], seen["renewable"]) == (True, 9, False)
    assert (seen["meta"], seen["explicit_max_ttl"]) == ({"team": "x"}, 7200)
    assert (await cli("token", "create", "--type", "batch", "--policy", "a", "--plain")).startswith("hvb.")
    await cli.node.call("POST", "auth/token/roles/ci", json={"token_period": "1h"})
    by_role = await cli.json("token", "create", "--role", "ci", "--policy", "a")
    assert by_role["lease_duration"] == 3600
    await cli("token", "create", "--role", "ci", "--orphan", code=2)


async def test_other_tokens(cli: Cli, tmp_path: Path) -> None:
    """Another token is named by accessor or by a file, never on the command line, and shown to nobody."""
    made = await cli.json("token", "create", "--policy", "default", "--ttl", "1h")
    (tmp_path / "token").write_text(made["client_token"] + "\n")
    for named in (("--accessor", made["accessor"]), ("--token-file", str(tmp_path / "token"))):
        told = await cli.json("token", "renew", "--increment", "2h", *named)
        assert told["lease_duration"] == 7200
        found = await cli.json("token", "capabilities", "auth/token/lookup-self", "sys/seal", *named)
        assert found == {"auth/token/lookup-self": ["read"], "sys/seal": ["deny"]}
        assert made["client_token"] not in await cli("token", "lookup", *named)
    assert made["accessor"] in await cli("token", "accessors")
    own = await cli("token", "capabilities", "any/thing")
    assert "root" in own
    await cli("token", "revoke", "--leave-children", "--accessor", made["accessor"], code=2)
    await cli("token", "lookup", "--accessor", "x", "--token-file", "y", code=2)
    for unclear in ((), ("--self", "--accessor", made["accessor"])):
        assert "--self, --accessor and --token-file" in await cli("token", "revoke", *unclear, code=2)
    assert "Revoked." in await cli("token", "revoke", "--accessor", made["accessor"])
    for _ in range(2):
        await cli("token", "create", "--policy", "default", "--ttl", "1h")
    assert "Revoked 2 tokens." in await cli("lease", "revoke", "auth/token/create", "--prefix")
    assert "there is no token" in await cli("lease", "revoke", "auth/token/create", "--prefix")
    assert "permission denied" in await cli("token", "lookup", "--token-file", "-", stdin="hvs.x", code=1)
    other = await cli("token", "create", "--policy", "default", "--plain")
    await cli("token", "revoke", "--leave-children", "--token-file", "-", stdin=other)


async def test_wrap_and_unwrap(cli: Cli) -> None:
    """Fields are handed over by a token from standard input or the environment, once."""
    info = await cli.json("wrap", "user=app", "password=-", "--ttl", "10m", stdin="canary\n")
    assert info["ttl"] == 600
    looked = await cli.json("unwrap", "--look", stdin=info["token"], SECRETHUB_TOKEN="")
    assert looked["creation_path"] == "sys/wrapping/wrap"
    opened = await cli.json("unwrap", SECRETHUB_TOKEN="", SECRETHUB_WRAPPING_TOKEN=info["token"])
    assert opened == {"user": "app", "password": "canary"}
    gone = await cli("unwrap", stdin=info["token"], code=1)
    assert "somebody else" in gone
    token = await cli("wrap", "--json", "-", "--plain", stdin='{"n": 1}')
    assert (await cli("unwrap", "--field", "n", stdin=token)).strip() == "1"
    await cli("wrap", code=2)


async def test_any_command_wrapped(cli: Cli) -> None:
    """With --wrap-ttl a command shows the token that opens its answer, and nothing else."""
    await cli("kv", "put", "app/db", "k=canary")
    shown = await cli("--wrap-ttl", "60", "kv", "get", "app/db")
    assert "canary" not in shown
    info = await cli.json("kv", "get", "app/db", "--wrap-ttl", "60")
    assert set(info) == {"token", "accessor", "ttl", "creation_time", "creation_path"}
    assert "canary" in await cli("unwrap", stdin=info["token"])
    made = await cli.json("token", "create", "--policy", "a", SECRETHUB_WRAP_TTL="5m")
    assert "wrapped_accessor" in made
    await cli("kv", "get", "app/db", "--wrap-ttl", "1 m", code=1)
    alone = await cli("token", "create", "--policy", "a", "--plain", "--wrap-ttl", "5m")
    assert "client_token" in await cli("unwrap", stdin=alone)
    said = await cli("kv", "get", "app/db", "--field", "k", SECRETHUB_WRAP_TTL="5m", code=2)
    assert "SECRETHUB_WRAP_TTL" in said
    await cli.node.call("PUT", "sys/policies/acl/x", json={"policy": native("secrets/a")})
