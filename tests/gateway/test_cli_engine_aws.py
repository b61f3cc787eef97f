"""``secrethub engine aws`` against a real server and a service that checks signatures, as a shell runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gateway.aws import service, target
from tests.gateway.aws_target import EXTERNAL_ID, MANAGED, READ, REGION, ROLE, Target
from tests.gateway.conftest import Node
from tests.gateway.shell import Cli

__all__ = ["service", "target"]  # the fixtures


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


async def test_aws_at_another_mount(leasing: Node, target: Target, tmp_path: Path) -> None:
    """With ``--mount`` everything is asked of that mount; what sessions and users are bound to is kept."""
    cli = Cli(leasing, tmp_path)
    await cli("mount", "enable", "aws", "--path", "other/aws")
    aws, at = ("engine", "aws"), ("--mount", "other/aws")
    place = ("--region", REGION, "--iam-endpoint", target.url, "--sts-endpoint", target.url)
    named = ("--username-template", "app-{{.RoleName}}", "--max-retries", "1", "--stray-check", "0")
    key = ("--access-key", target.access_key, "--ask", "--keep-strays")
    await cli(*aws, "root", "write", *place, *key, *named, *at, stdin=f"{target.secret_key}\n")
    shown = await cli.json(*aws, "root", "read", *at)
    assert (shown["username_template"], shown["max_retries"]) == (named[1], 1)
    assert (shown["stray_check"], shown["remove_strays"]) == (0, False)
    assert (await cli.json(*aws, "root", "check", *at))["arn"].endswith("user/secrethub")
    assert (await cli.json(*aws, "health", "--check", *at))["healthy"] is True
    assert "not written yet" in await cli(*aws, "root", "check", code=1)
    assert (await cli.json(*aws, "root", "rotate", *at))["access_key"] != target.access_key
    await cli(*aws, "lifetime", "--ttl", "1h", "--max-ttl", "2h", *at)
    assert (await cli.json(*aws, "lifetime", *at))["lease"] == "1h0m0s"

    user = ("--type", "iam_user", "--policy-arn", MANAGED, "--boundary-arn", MANAGED, "--user-path", "/app/")
    await cli(*aws, "role", "write", "user", *user, *at)
    role = await cli.json(*aws, "role", "read", "user", *at)
    assert (role["permissions_boundary_arn"], role["user_path"]) == (MANAGED, "/app/")
    session = ("--session-tag", "team=blue", "--external-id", EXTERNAL_ID, "--ttl", "15m", "--max-ttl", "1h")
    await cli(*aws, "role", "write", "deploy", "--type", "assumed_role", "--role-arn", ROLE, *session, *at)
    role = await cli.json(*aws, "role", "read", "deploy", *at)
    assert (role["session_tags"], role["external_id"]) == ({"team": "blue"}, EXTERNAL_ID)
    assert await cli.json(*aws, "role", "list", *at) == ["deploy", "user"]
    assert await cli.json(*aws, "role", "list") == []
    made = await cli.json(*aws, "creds", "user", *at)
    assert target.opens(made)
    await cli("lease", "revoke", made["lease_id"], "--wait")
    assert (await cli.json(*aws, "strays", "--remove", *at))["removed"] == []
    assert await cli(*aws, "role", "delete", "user", *at) == "Role user is deleted.\n"
