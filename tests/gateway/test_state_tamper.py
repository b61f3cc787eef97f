"""Somebody puts rows of the database back, adds or removes them: verification names the row and the entry."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg

from secrethub.engines.own_changes import present_fence
from secrethub.storage.authority import POLICIES
from secrethub.storage.sealed_stream import SealedStream
from tests.gateway.archives import configure, old_entries, run
from tests.gateway.behind import sql
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put
from tests.gateway.shell import Cli

_POLICIES = "SELECT * FROM policies ORDER BY key"
_BUCKETS = "SELECT * FROM authority_buckets WHERE table_name = 'policies' ORDER BY bucket"


async def checked(hub: Node) -> dict[str, Any]:
    """Verify ledger and state, and return the verdict."""
    verdict: dict[str, Any] = await ok(hub, "POST", "sys/audit/verify", {"state": True})
    return verdict


async def bad_rows(hub: Node) -> list[tuple[str, str, str]]:
    """Verify, and return table, key and reason of the rows that are wrong."""
    found = await checked(hub)
    rows = [(row["table"], row["key"], row["reason"]) for row in found["state"]["bad"]]
    assert found["ok"] is not bool(rows)
    return rows


async def run_sql(hub: Node, query: str, *values: Any) -> list[Any]:
    return await sql(hub.settings.database_url, query, *values)


async def put_rows(hub: Node, table: str, rows: Iterable[asyncpg.Record]) -> None:
    """Make a table hold exactly these rows."""
    await run_sql(hub, f"DELETE FROM {table}")
    for row in rows:
        columns = ", ".join(row.keys())
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await run_sql(hub, f"INSERT INTO {table} ({columns}) VALUES ({places})", *row.values())


class _Policies:
    """The policies and their buckets as they once were."""

    def __init__(self, rows: list[Any], buckets: list[Any]) -> None:
        self.rows = rows
        self.buckets = buckets

    @classmethod
    async def of(cls, hub: Node) -> _Policies:
        return cls(await run_sql(hub, _POLICIES), await run_sql(hub, _BUCKETS))

    async def put(self, hub: Node, *, rows: bool = True, buckets: bool = True) -> None:
        if rows:
            await put_rows(hub, "policies", self.rows)
        if buckets:
            await run_sql(hub, "DELETE FROM authority_buckets WHERE table_name = 'policies'")
            for bucket in self.buckets:
                await run_sql(
                    hub, "INSERT INTO authority_buckets VALUES ($1, $2, $3, $4, $5)", *bucket.values()
                )


async def _write(hub: Node, name: str, path: str) -> None:
    await ok(hub, "PUT", f"sys/policies/acl/{name}", {"policy": native(path)})


async def test_every_change_is_in_the_ledger(node: Node) -> None:
    """Whatever is written, used, ended and tidied away is known, and nothing is found that is not wrong."""
    await put(node, "a", {"k": "1"}, {"k": "2"}, {"k": "3"})
    await ok(node, "DELETE", "secret/data/a")
    await ok(node, "POST", "secret/destroy/a", {"versions": [1]})
    await put(node, "b", {"k": "1"})
    await ok(node, "DELETE", "secret/metadata/b")
    await _write(node, "p", "secrets/a")
    made = await ok(node, "POST", "auth/approle/role/r", {"token_policies": "p", "secret_id_num_uses": 1})
    assert made is None
    role = (await ok(node, "GET", "auth/approle/role/r/role-id"))["role_id"]
    secret = (await ok(node, "POST", "auth/approle/role/r/secret-id", {}))["secret_id"]
    login = {"role_id": role, "secret_id": secret}
    assert (await node.call("POST", "auth/approle/login", "", json=login)).status_code == 200
    used = await node.token("two", native("secrets/a"), num_uses=2)
    for _ in range(2):
        await node.call("GET", "secret/data/a", used)
    parent = await node.token("parent", native("auth/token/create", capabilities=("create", "update")))
    assert (await node.call("POST", "auth/token/create", parent, json={})).status_code == 200
    await ok(node, "POST", "auth/token/revoke", {"token": parent})
    await ok(node, "POST", "auth/userpass/users/ada", {"password": "correct horse battery"})
    assert (await node.call("POST", "auth/userpass/login/ada", "", json={"password": "x"})).status_code == 400
    await ok(node, "POST", "sys/mounts/team", {"type": "kv-v2"})
    await ok(node, "POST", "team/data/x", {"data": {"k": "v"}})
    await ok(node, "DELETE", "sys/mounts/team")
    wrapped = await node.call("GET", "secret/metadata/a", headers={"X-Vault-Wrap-TTL": "60"})
    await ok(node, "POST", "sys/wrapping/unwrap", {"token": wrapped.json()["wrap_info"]["token"]})
    assert (await node.call("POST", "auth/token/tidy", json={})).status_code == 202
    found = await checked(node)
    assert found["ok"] is True
    assert found["first_bad"] is None
    assert found["state"]["unrecorded"] == 0
    assert found["state"]["rows"] > 10


async def test_rows_of_authority(node: Node, tmp_path: Path) -> None:
    """A policy that is removed, inserted, edited or put back, by itself or with its bucket, is named."""
    cli = Cli(node, tmp_path)
    before = await _Policies.of(node)
    await _write(node, "p", "secrets/one")
    older = await _Policies.of(node)
    await _write(node, "p", "secrets/two")
    await _write(node, "gone", "secrets/three")
    with_gone = await _Policies.of(node)
    await ok(node, "DELETE", "sys/policies/acl/gone")
    now = await _Policies.of(node)
    for attack, key, reason in (
        ("DELETE FROM policies WHERE key = 'p'", "p", "removed"),
        ("UPDATE policies SET owner = 'me' WHERE key = 'p'", "p", "edited"),
        (
            """INSERT INTO policies SELECT 'mine', revision, body, owner, expires_at, bucket, mac
               FROM policies WHERE key = 'p'""",
            "mine",
            "inserted",
        ),
        (
            """INSERT INTO policies SELECT 'far', revision, body, owner, expires_at, 9999, mac
               FROM policies WHERE key = 'p'""",
            "far",
            "inserted",
        ),
    ):
        await run_sql(node, attack)
        assert ("policies", key, reason) in await bad_rows(node)
        await now.put(node)
    for state, key, reason in (
        (older, "p", "put back"),
        (before, "p", "removed"),
        (with_gone, "gone", "put back"),
    ):
        await state.put(node, buckets=False)
        assert ("policies", key, reason) in await bad_rows(node)
        await state.put(node)
        found = await bad_rows(node)
        assert ("policies", key, reason) in found
        assert all(row[1] in {"p", "gone"} or row[1].startswith("bucket ") for row in found)
        await now.put(node)
    await older.put(node)
    first = (await checked(node))["first_bad"]
    entry = await run_sql(
        node,
        "SELECT operation, path FROM audit_entries WHERE stream = $1 AND number = $2",
        first["stream"],
        first["number"],
    )
    assert entry[0]["path"].startswith("sys/policies/acl/")
    said = await cli("audit", "verify", "--state", code=1)
    assert f"policies {first['key']}: {first['reason']}" in said
    assert first["stream"] in said
    await now.put(node)
    assert await bad_rows(node) == []
    assert "intact" in await cli("audit", "verify", "--state")


async def test_secrets(node: Node) -> None:
    """A secret, or a version, that is removed, put back, edited or inserted is named."""

    async def state() -> tuple[list[Any], list[Any], list[Any]]:
        return (
            await run_sql(node, "SELECT * FROM kv_secrets"),
            await run_sql(node, "SELECT * FROM kv_versions"),
            await run_sql(node, "SELECT * FROM kv_ends"),
        )

    async def restore(rows: tuple[list[Any], list[Any], list[Any]]) -> None:
        await put_rows(node, "kv_ends", rows[2])
        await put_rows(node, "kv_secrets", rows[0])
        await put_rows(node, "kv_versions", rows[1])

    await put(node, "a", {"k": "1"})
    await put(node, "gone", {"k": "1"})
    older = await state()
    ids = {row["path"]: row["id"] for row in older[0]}
    await put(node, "a", {"k": "2"})
    await ok(node, "POST", "secret/destroy/a", {"versions": [1]})
    await ok(node, "DELETE", "secret/metadata/gone")
    now = await state()
    await restore(older)
    assert await bad_rows(node) == [
        ("kv_secrets", identifier, "put back") for identifier in sorted(ids.values())
    ]
    await restore(now)
    a = ids["a"]
    for attack, bad in (
        ("DELETE FROM kv_secrets WHERE id = $1", ("kv_secrets", a, "removed")),
        ("UPDATE kv_secrets SET max_versions = 99 WHERE id = $1", ("kv_secrets", a, "edited")),
        ("DELETE FROM kv_versions WHERE id = $1", ("kv_versions", f"{a}/2", "removed")),
        (
            "INSERT INTO kv_versions SELECT id, 1, sealed FROM kv_versions WHERE id = $1",
            ("kv_versions", f"{a}/1", "inserted"),
        ),
    ):
        await run_sql(node, attack, a)
        assert await bad_rows(node) == [bad]
        await restore(now)
    await run_sql(node, "INSERT INTO kv_ends SELECT $1, 99, clock_timestamp(), mac FROM kv_ends", a)
    await run_sql(node, "DELETE FROM kv_secrets WHERE id = $1", a)
    assert await bad_rows(node) == [("kv_secrets", a, "removed")]
    await restore(now)
    assert await bad_rows(node) == []


async def test_a_change_whose_entry_is_missing(node: Node) -> None:
    """What somebody committed who died before he could say so is no damage; what was said stays known."""
    await _write(node, "p", "secrets/one")
    older = await _Policies.of(node)
    await _write(node, "p", "secrets/two")
    said = await _Policies.of(node)
    core = node.process.core
    await core.ledger.look()
    async with core.authority.change(present_fence(core, [])) as change:
        await change.put(POLICIES, "p", {"source": "", "language": "json"})
    found = await checked(node)
    assert found["ok"] is True
    assert found["state"]["unrecorded"] == 1
    await said.put(node)
    assert await bad_rows(node) == []
    await older.put(node)
    assert ("policies", "p", "put back") in await bad_rows(node)


async def test_what_is_said_without_a_key(node: Node) -> None:
    """An end that somebody claims while the cluster is sealed, when nothing is signed, hides nothing."""
    await put(node, "a", {"k": "1"})
    (row,) = await run_sql(node, "SELECT id FROM kv_secrets")
    assert (await node.call("PUT", "sys/seal")).status_code == 204
    claim = {"table": "kv_secrets", "key": row["id"], "revision": 99, "mac": ""}
    forged = SealedStream(node.process.core.database, node="n1")
    await forged.record("sys.seal", "done", keyring=None, detail={"written": [claim]})
    await run_sql(node, "DELETE FROM kv_secrets")
    await node.unseal()
    assert ("kv_secrets", row["id"], "removed") in await bad_rows(node)


async def test_after_archiving(node: Node, folder: Path) -> None:
    """What archived entries said of rows stays known: what was removed or put back since is found."""
    await _write(node, "p", "secrets/one")
    older = await _Policies.of(node)
    await _write(node, "p", "secrets/two")
    now = await _Policies.of(node)
    for path in ("kept", "gone", "taken"):
        await put(node, path, {"k": "1"})
    rows = {row["path"]: row for row in await run_sql(node, "SELECT * FROM kv_secrets")}
    values = {row["id"]: row for row in await run_sql(node, "SELECT * FROM kv_versions")}
    await ok(node, "DELETE", "secret/metadata/gone")
    await run_sql(node, "DELETE FROM kv_secrets WHERE path = 'taken'")
    taken = ("kv_secrets", rows["taken"]["id"], "removed")
    await configure(node, folder)
    for _ in range(2):
        await old_entries(node, 3)
        assert (await run(node))["entries"] > 0
        left = await run_sql(node, "SELECT count(*) AS n FROM audit_entries WHERE operation = 'kv.write'")
        assert left[0]["n"] == 0
        assert await bad_rows(node) == [taken]
    await run_sql(node, "DELETE FROM kv_ends")
    for path in ("gone", "taken"):
        for table, row in (("kv_secrets", rows[path]), ("kv_versions", values[rows[path]["id"]])):
            places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
            await run_sql(node, f"INSERT INTO {table} VALUES ({places})", *row.values())
    assert await bad_rows(node) == [("kv_secrets", rows["gone"]["id"], "put back")]
    await run_sql(node, "DELETE FROM kv_secrets WHERE path IN ('gone', 'kept')")
    assert await bad_rows(node) == [("kv_secrets", rows["kept"]["id"], "removed")]
    await older.put(node)
    found = await bad_rows(node)
    assert any(row[0] == "policies" for row in found)
    await now.put(node)
    assert {row[0] for row in await bad_rows(node)} == {"kv_secrets"}
