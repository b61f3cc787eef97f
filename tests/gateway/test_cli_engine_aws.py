"""``secrethub engine aws`` against a real server and a service that checks signatures, as a shell runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gateway.aws import leasing, service, target
from tests.gateway.aws_target import MANAGED, READ, REGION, ROLE, Target
from tests.gateway.conftest import Node
from tests.gateway.shell import Cli

__all__ = ["leasing", "service", "target"]  # the fixtures


async def test_credentials_of_aws(leasing: Node, target: Target, tmp_path: Path) -> None:
    """Who we are, roles and lifetimes are written and shown; credentials given out; strays looked for."""
    cli = Cli(leasing, tmp_path)
    aws = ("engine", "aws")
    assert "not written yet" in await cli(*aws, "root", "check", code=1)
    place = ("--region", REGION, "--iam-endpoint", target.url, "--sts-endpoint", target.url)
    key = ("--access-key", target.access_key, "--secret-key-file", "-")
    await cli(*aws, "root", "write", *place, *key, stdin=f"{target.secret_key}\n")
    shown = await cli.json(*aws, "root", "read")
    assert (shown["access_key"], shown["region"]) == (target.access_key, REGION)
    assert target.secret_key not in str(shown)
    assert (await cli.json(*aws, "root", "check"))["arn"].endswith("user/secrethub")
    await cli(*aws, "root", "write", "--stray-check", "2h", "--remove-strays")
    shown = await cli.json(*aws, "root", "read")
    assert (shown["stray_check"], shown["remove_strays"]) == (7200, True)
    assert (await cli.json(*aws, "root", "rotate"))["access_key"] != target.access_key
    await cli(*aws, "lifetime", "--ttl", "1h", code=2)
    await cli(*aws, "lifetime", "--ttl", "1h", "--max-ttl", "24h")
    assert (await cli.json(*aws, "lifetime"))["lease_max"] == "24h0m0s"
    (tmp_path / "policy.json").write_text(json.dumps(READ))
    user = ("--type", "iam_user", "--policy-arn", MANAGED, "--policy-file", str(tmp_path / "policy.json"))
    written = await cli(*aws, "role", "write", "user", *user, "--group", "readers", "--tag", "team=blue")
    assert written == "Role user is written.\n"
    await cli(*aws, "role", "write", "deploy", "--type", "assumed_role", "--role-arn", ROLE)
    assert await cli.json(*aws, "role", "list") == ["deploy", "user"]
    role = await cli.json(*aws, "role", "read", "user")
    assert (role["iam_groups"], json.loads(role["policy_document"])) == (["readers"], READ)
    made = await cli.json(*aws, "creds", "user")
    assert target.opens(made)
    session = await cli.json(*aws, "creds", "deploy", "--ttl", "30m", "--session-name", "ci")
    assert (session["lease_duration"], session["arn"].endswith("/ci")) == (1800, True)
    assert (await cli.json(*aws, "strays"))["strays"] == []
    await cli("lease", "revoke", made["lease_id"], "--wait")
    assert not target.opens(made)
    assert await cli(*aws, "role", "delete", "user") == "Role user is deleted.\n"
    assert await cli.json(*aws, "role", "list") == ["deploy"]
