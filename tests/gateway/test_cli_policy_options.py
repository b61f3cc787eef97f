"""What options of ``secrethub policy``, ``audit``, ``quota``, ``rotation`` and ``kv`` bring about."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture

pytestmark = SHARING

_READ = native("secrets/app/**", capabilities=("read",))
_NEARBY = {
    "effect": "allow",
    "paths": ["secrets/app/**"],
    "capabilities": ["read"],
    "conditions": {
        "source_ip": ["192.0.2.0/24"],
        "time": {"from": "22:00", "until": "06:00", "zone": "UTC"},
        "wrapping": True,
    },
}


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which has names of its own."""
    return shared_node


async def test_a_policy_is_tried_under_any_circumstances(cli: Cli) -> None:
    """Address, instant and wrapping of the request are those that are named; each of them counts."""
    words = ("policy", "test", "secrets/app/db", "--file", "-")
    policy = json.dumps({"version": "1", "statements": [_NEARBY]})
    holds = {"--client-address": "192.0.2.7", "--at": "2030-01-31T23:00:00Z", "--asked-wrap-ttl": "5m"}
    fails = {"--client-address": "198.51.100.7", "--at": "2030-01-31T12:00:00Z", "--asked-wrap-ttl": "0"}

    async def tried(code: int, **other: str) -> str:
        named = {**holds, **other}
        return await cli(*words, *(word for pair in named.items() for word in pair), stdin=policy, code=code)

    assert "allowed" in await tried(0)
    for option in holds:
        await tried(1, **{option: fails[option]})
    assert "is an address such as" in await tried(1, **{"--client-address": "near by"})
    assert "RFC 3339" in await tried(1, **{"--at": "yesterday"})


async def test_policies_of_people_and_certificates(cli: Cli, tmp_path: Path) -> None:
    """A policy is bound to whatever logs in, is in force for it, and is taken away again."""
    (tmp_path / "policy.json").write_text(json.dumps(_READ))
    await cli("policy", "write", "app", str(tmp_path / "policy.json"))
    await cli("user", "write", "ada", "--password-file", "-", stdin="correct horse")
    await cli("cert", "write", "web", "--pki", "pki", "--allowed-name", "web-*")
    for option, name in (("--user", "ada"), ("--cert", "web")):
        assert "there is no such" in await cli("policy", "bind", "app", option, "nobody", code=1)
        await cli("policy", "bind", "app", option, name)
        assert await cli.json("policy", "bindings", option, name) == ["app"]
    login = ("login", "--method", "userpass", "--username", "ada", "--no-store")
    token = (await cli(*login, stdin="correct horse")).strip()
    await cli("kv", "put", "app/db", "k=v")
    assert "v" in await cli("kv", "get", "app/db", SECRETHUB_TOKEN=token)
    for option, name in (("--user", "ada"), ("--cert", "web")):
        await cli("policy", "unbind", "app", option, name)
        assert await cli.json("policy", "bindings", option, name) == []
    await cli("kv", "get", "app/db", code=1, SECRETHUB_TOKEN=token)


async def test_a_proposal_is_replayed_for_some_and_for_all(cli: Cli) -> None:
    """Only requests of that time and of whoever is named count, and a policy is tried on others, too."""
    token = await cli.node.token("replayed", native("secrets/replayed/**"), ttl="1h")
    for _ in range(3):
        assert (await cli.node.call("GET", "secrets/replayed/db", token)).status_code == 404
    denial = native("secrets/replayed/**", effect="deny")
    words = ("policy", "replay", "-")

    async def replayed(*options: str) -> list[dict[str, Any]]:
        found = await cli.json(*words, *options, stdin=json.dumps(denial))
        return [one for one in found["changes"] if one["path"] == "secret/data/replayed/db"]

    assert len(await replayed("--name", "replayed")) == 3
    assert await replayed("--name", "other") == []
    (actor,) = {one["actor"] for one in await replayed("--name", "other", "--attach")}
    assert actor.startswith("token:")
    assert len(await replayed("--name", "replayed", "--actor", actor)) == 3
    assert await replayed("--name", "replayed", "--actor", "agent:") == []
    assert await replayed("--name", "replayed", "--until", "2020-01-01T00:00:00Z") == []
    assert await replayed("--name", "replayed", "--since", "2020-01-01T00:00:00Z", "--limit", "1") != []


async def test_entries_are_chosen_by_every_option(cli: Cli, tmp_path: Path) -> None:
    """Each filter of search and export finds what it describes, and nothing where nothing is like that."""
    await cli("approle", "write", "web", "--policy", "default")
    role_id = (await cli("approle", "role-id", "web", "--plain")).strip()
    secret_id = (await cli("approle", "secret-id", "web", "--plain")).strip()
    login = ("approle", "login", "--role-id", role_id)
    auth = await cli.json(*login, stdin=secret_id)
    assert (await cli.node.call("GET", "secrets/app/db", auth["client_token"])).status_code == 403
    (entry,) = (await cli.json("audit", "search", "--accessor", auth["accessor"]))["entries"]
    one_is_wrong = {
        "--actor": (entry["actor"], "anonymous"),
        "--name": ("approle-web", "approle-we"),
        "--accessor": (auth["accessor"], None),
        "--role": ("web", "we"),
        "--path": ("secret/data/*/db", "secret/data/*"),
        "--operation": ("kv.read", "kv.write"),
        "--outcome": ("denied", "done"),
        "--kind": ("request", "intent"),
        "--request-id": (entry["request_id"], auth["accessor"]),
        "--client": ("127.0.0.1", "192.0.2.1"),
        "--since": (entry["time"], "2100-01-01T00:00:00Z"),
        "--until": ("2100-01-01T00:00:00Z", entry["time"]),
    }
    who = ("--actor", "--name", "--accessor", "--role")
    for option, (right, wrong) in one_is_wrong.items():
        others = () if option in who else ("--name", "approle-web")
        where = tmp_path / f"{option}.jsonl"
        for value, expected in ((right, [entry["number"]]), (wrong, [])):
            if value is None:
                continue
            chosen = (*others, option, value)
            found = (await cli.json("audit", "search", *chosen))["entries"]
            ours = [one["number"] for one in found if one["path"] == "secret/data/app/db"]
            assert ours == expected, (option, value)
            where.unlink(missing_ok=True)
            await cli("audit", "export", "--format", "csv", "--output", str(where), *chosen)
            rows = list(csv.DictReader(where.read_text().splitlines()))
            ours = [int(row["number"]) for row in rows if row["path"] == "secret/data/app/db"]
            assert ours == expected, (option, value)
    agent = await cli("audit", "search", "--agent", "web-1", "--format", "json")
    assert json.loads(agent)["entries"] == []
    await cli("audit", "export", "--agent", "web-1", "--output", str(tmp_path / "none.jsonl"))
    for wrong in (
        ("--kind", "read"),
        ("--client", "localhost"),
        ("--since", "yesterday"),
        ("--agent", "a", "--role", "b"),
    ):
        said = await cli("audit", "search", *wrong, code=1)
        assert wrong[0].removeprefix("--") in said
        out = tmp_path / "refused.jsonl"
        await cli("audit", "export", *wrong, "--output", str(out), code=1)
        assert not out.exists()


async def test_a_rate_limit_of_one_role(cli: Cli) -> None:
    """Logins of a role have a budget of their own, and too many are blocked for a while."""
    await cli("approle", "write", "limited", "--policy", "default")
    limit = ("--path", "auth/approle", "--role", "limited", "--rate", "1", "--interval", "1h")
    await cli("quota", "write", "logins", *limit, "--block-interval", "2h")
    shown = await cli.json("quota", "read", "logins")
    assert (shown["role"], shown["block_interval"]) == ("limited", 7200)
    assert "role" in await cli(
        "quota", "write", "other", "--path", "secret", "--role", "web", "--rate", "1", code=1
    )
    await cli(
        "quota",
        "leases",
        "write",
        "few",
        "--path",
        "secrets/dynamic/postgresql",
        "--role",
        "app",
        "--max",
        "1",
    )
    assert (await cli.json("quota", "leases", "read", "few"))["role"] == "app"


async def test_rotations(cli: Cli) -> None:
    """How and when a secret is rotated, how long agents have, and what is told of the past."""
    when = ("--cron", "0 3 * * sun", "--zone", "Europe/Berlin", "--confirm-within", "0", "--late", "undo")
    await cli("rotation", "write", "secrets/app", *when, "--rotator", "generated")
    shown = await cli.json("rotation", "read", "secrets/app")
    assert (shown["cron"], shown["zone"], shown["rotator"]) == ("0 3 * * sun", "Europe/Berlin", "generated")
    assert (shown["confirm_within"], shown["late"]) == (0, "undo")
    for _ in range(3):
        await cli("rotation", "run", "secrets/app", "--wait")
    newest = await cli.json("rotation", "history", "secrets/app", "--limit", "2")
    assert [run["run"] for run in newest] == [3, 2]
    assert [run["run"] for run in await cli.json("rotation", "history", "secrets/app", "--before", "2")] == [
        1
    ]
    for wrong in (("--rotator", "magic"), ("--cron", "0 3 * * sun", "--zone", "Mars/North")):
        assert f"{wrong[-2].removeprefix('--')}" in await cli(
            "rotation", "write", "secrets/other", *wrong, code=1
        )
    assert "is deleted" in await cli("rotation", "delete", "secrets/app", "--force")


async def test_pages(cli: Cli) -> None:
    """What is found is shown in pages, and the next one begins where the last one ended."""
    for name in ("a", "b", "c"):
        await cli("kv", "put", f"shop/{name}", "k=v")
        assert (await cli.node.call("GET", f"secrets/shop/{name}")).status_code == 200
    for words, field in (
        (("kv", "search", "shop"), "keys"),
        (("kv", "unused", "shop", "--since", "0s"), "keys"),
        (("kv", "readers", "shop/a"), "reads"),
    ):
        if words[1] == "readers":
            assert (await cli.node.call("GET", "secrets/shop/a")).status_code == 200
        whole = (await cli.json(*words))[field]
        first = await cli.json(*words, "--limit", "1")
        assert first[field] == whole[:1], words
        rest = await cli.json(*words, "--after", first["next"])
        assert rest[field] == whole[1:] != [], words


async def test_versions_that_go_by_themselves(cli: Cli) -> None:
    """How long versions live is written, changed and shown."""
    await cli("kv", "metadata", "put", "a", "--delete-version-after", "1h")
    assert (await cli.json("kv", "metadata", "get", "a"))["delete_version_after"] == "1h0m0s"
    await cli("kv", "metadata", "patch", "a", "--delete-version-after", "30m", "--max-versions", "3")
    shown = await cli.json("kv", "metadata", "get", "a")
    assert (shown["delete_version_after"], shown["max_versions"]) == ("30m0s", 3)
    await cli("kv", "put", "a", "k=v")
    assert (await cli.json("kv", "get", "a"))["metadata"]["deletion_time"] != ""
