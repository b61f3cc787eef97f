"""Rows that decide, written by a database administrator: refused, counted and in the ledger by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from secrethub.auth.digests import role_id_digest, token_digest
from secrethub.storage.authority_rows import (
    APPROLES,
    MOUNTS,
    POLICIES,
    ROLE_IDS,
    SECRET_IDS,
    TABLES,
    TOKENS,
    Table,
)
from tests.gateway.behind import integrity_failures, ledger_is_good, mount_id, reasons, sql
from tests.gateway.conftest import Node, native

OPEN = native("secrets/**")
NARROW = native("secrets/mine")

_COLUMNS = "key, revision, body::text AS body, owner, expires_at, bucket, mac"


async def saved(url: str, table: Table, key: str) -> tuple[Any, Any]:
    """Return a row and its bucket's, as they are now."""
    row = await sql(url, f"SELECT {_COLUMNS} FROM {table.name} WHERE key = $1", key)
    bucket = await sql(
        url,
        "SELECT * FROM authority_buckets WHERE table_name = $1 AND bucket = $2",
        table.name,
        table.bucket(key),
    )
    return row[0], bucket[0]


async def put_back(url: str, table: Table, row: Any, bucket: Any = None) -> None:
    """Write a row as it was, with its authentication, and its bucket's row if given."""
    await sql(
        url,
        f"""INSERT INTO {table.name} VALUES ($1, $2, $3::text::jsonb, $4, $5, $6, $7)
            ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body,
                owner = excluded.owner, expires_at = excluded.expires_at, mac = excluded.mac""",
        *row.values(),
    )
    if bucket is not None:
        await sql(
            url,
            """UPDATE authority_buckets SET revision = $3, digest = $4, mac = $5
               WHERE table_name = $1 AND bucket = $2""",
            *bucket.values(),
        )


async def insert_copy(url: str, table: Table, of: str, key: str) -> None:
    """Insert a row under another key, with the content and the authentication of an honest one."""
    await sql(
        url,
        f"""INSERT INTO {table.name} SELECT $2, revision, body, owner, expires_at, $3, mac
            FROM {table.name} WHERE key = $1""",
        of,
        key,
        table.bucket(key),
    )


def named(table: Table, prefix: str, *, unlike: tuple[str, ...]) -> str:
    """Return a name whose bucket is none of those of ``unlike``."""
    taken = {table.bucket(name) for name in unlike}
    return next(f"{prefix}-{n}" for n in range(1000) if table.bucket(f"{prefix}-{n}") not in taken)


async def reported(node: Node, table: Table, key: str, why: str) -> None:
    """Check that the ledger names the row and the ground, that it was counted, and that all verifies."""
    told = await reasons(node.settings.database_url)
    assert any(f"{table.name} row {key}: {why}" in reason for reason in told), told
    assert (await integrity_failures(node)).get(table.name, 0) >= 1
    await ledger_is_good(node)


@pytest.fixture
async def hub(node: Node) -> Node:
    """A node with two secrets."""
    for path in ("mine", "theirs"):
        await node.call("POST", f"secrets/{path}", json={"data": {"k": f"canary-{path}"}})
    return node


async def _policy_holder(hub: Node, *, policy: dict[str, Any] = NARROW) -> tuple[str, str]:
    """Return a token and the name of its policy, in a bucket of its own."""
    name = named(POLICIES, "app", unlike=("default",))
    return await hub.token(name, policy), name


async def _bystander(hub: Node, name: str) -> str:
    """Return a token with a policy in another bucket."""
    return await hub.token(named(POLICIES, "bystander", unlike=("default", name)), NARROW)


async def test_an_edited_policy(hub: Node) -> None:
    """A policy widened by SQL grants nothing, and the tokens of other policies go on."""
    url = hub.settings.database_url
    token, name = await _policy_holder(hub)
    bystander = await _bystander(hub, name)
    assert (await hub.call("GET", "secrets/mine", token)).status_code == 200
    await sql(
        url,
        "UPDATE policies SET body = replace(body::text, 'secrets/mine', 'secrets/**')::jsonb WHERE key = $1",
        name,
    )
    for path in ("secrets/theirs", "secrets/mine"):
        assert (await hub.call("GET", path, token)).status_code == 403
    assert (await hub.call("GET", "secrets/mine", bystander)).status_code == 200
    await reported(hub, POLICIES, name, "the row was edited")


async def test_an_inserted_policy(hub: Node) -> None:
    """A policy that a token names and only a database writer made grants nothing."""
    url = hub.settings.database_url
    wide = named(POLICIES, "wide", unlike=("default",))
    ghost = named(POLICIES, "ghost", unlike=("default", wide))
    await hub.token(wide, OPEN)
    made = await hub.call("POST", "auth/token/create", json={"policies": [ghost]})
    token = made.json()["auth"]["client_token"]
    assert (await hub.call("GET", "secrets/mine", token)).status_code == 403
    await insert_copy(url, POLICIES, wide, ghost)
    assert (await hub.call("GET", "secrets/mine", token)).status_code == 403
    await reported(hub, POLICIES, ghost, "its bucket is missing")


async def test_a_deleted_denial(hub: Node) -> None:
    """A policy that denies is missed when somebody deletes it: what it denied stays denied."""
    deny = named(POLICIES, "deny", unlike=("default",))
    wide = named(POLICIES, "wide", unlike=("default", deny))
    await hub.token(deny, native("secrets/theirs", capabilities=("*",), effect="deny"))
    await hub.call("PUT", f"sys/policies/acl/{wide}", json={"policy": OPEN})
    made = await hub.call("POST", "auth/token/create", json={"policies": [deny, wide]})
    token = made.json()["auth"]["client_token"]
    assert (await hub.call("GET", "secrets/mine", token)).status_code == 200
    assert (await hub.call("GET", "secrets/theirs", token)).status_code == 403
    await sql(hub.settings.database_url, "DELETE FROM policies WHERE key = $1", deny)
    for path in ("secrets/theirs", "secrets/mine"):
        assert (await hub.call("GET", path, token)).status_code == 403
    await reported(hub, POLICIES, deny, "a row was inserted, removed or put back")


@pytest.mark.parametrize("with_bucket", [False, True])
async def test_a_former_policy(hub: Node, with_bucket: bool) -> None:
    """A policy's former, wider content does not come back, also not with its bucket."""
    url = hub.settings.database_url
    token, name = await _policy_holder(hub, policy=OPEN)
    assert (await hub.call("GET", "secrets/theirs", token)).status_code == 200
    row, bucket = await saved(url, POLICIES, name)
    await hub.call("PUT", f"sys/policies/acl/{name}", json={"policy": NARROW})
    assert (await hub.call("GET", "secrets/theirs", token)).status_code == 403
    await put_back(url, POLICIES, row, bucket if with_bucket else None)
    for path in ("secrets/theirs", "secrets/mine"):
        assert (await hub.call("GET", path, token)).status_code == 403
    why = "an older state was put back" if with_bucket else "a row was inserted, removed or put back"
    await reported(hub, POLICIES, name, why)
    # It cannot be changed from there on either: nobody can tell what else is wrong in that bucket.
    again = await hub.call("PUT", f"sys/policies/acl/{name}", json={"policy": NARROW})
    assert again.status_code == 500
    assert again.json()["code"] == "integrity_failure"
    assert again.json()["errors"] == ["internal error (integrity_failure)"]


def _key(hub: Node, token: str) -> str:
    return token_digest(hub.process.core.keyring(), token)


async def test_an_edited_token(hub: Node) -> None:
    """A token given root by SQL is refused altogether; others go on."""
    token = await hub.token("app", NARROW)
    other = await hub.token("app", NARROW)
    await sql(
        hub.settings.database_url,
        """UPDATE tokens SET body = jsonb_set(body, '{policies}', '["root"]') WHERE key = $1""",
        _key(hub, token),
    )
    for path in ("secrets/theirs", "secrets/mine", "auth/token/lookup-self"):
        assert (await hub.call("GET", path, token)).status_code == 403
    assert (await hub.call("GET", "secrets/mine", other)).status_code == 200
    await reported(hub, TOKENS, _key(hub, token), "the row was edited")


@pytest.mark.parametrize(
    "column", ["expires_at = NULL", "expires_at = now() + interval '9 years'", "owner = NULL"]
)
async def test_a_token_that_was_given_more_time(hub: Node, column: str) -> None:
    """A token's end, and what it ends with, cannot be edited."""
    token = await hub.token("app", NARROW, ttl="1h")
    await sql(hub.settings.database_url, f"UPDATE tokens SET {column} WHERE key = $1", _key(hub, token))
    assert (await hub.call("GET", "secrets/mine", token)).status_code == 403
    await reported(hub, TOKENS, _key(hub, token), "the row was edited")


async def test_an_inserted_token(hub: Node) -> None:
    """A token that only a database writer made, with the row of root's, is refused."""
    url = hub.settings.database_url
    await insert_copy(url, TOKENS, _key(hub, hub.root), _key(hub, "hvs.forged"))
    assert (await hub.call("GET", "secrets/mine", "hvs.forged")).status_code == 403
    assert (await hub.call("GET", "secrets/mine")).status_code == 200
    await reported(hub, TOKENS, _key(hub, "hvs.forged"), "its bucket is missing")


@pytest.mark.parametrize("with_bucket", [False, True])
async def test_a_revoked_token(hub: Node, with_bucket: bool) -> None:
    """The row of a revoked token, put back, does not let it in again, also not with its bucket."""
    url = hub.settings.database_url
    token = await hub.token("app", NARROW)
    assert (await hub.call("GET", "secrets/mine", token)).status_code == 200
    row, bucket = await saved(url, TOKENS, _key(hub, token))
    assert (await hub.call("POST", "auth/token/revoke-self", token)).status_code == 204
    await put_back(url, TOKENS, row, bucket if with_bucket else None)
    assert (await hub.call("GET", "secrets/mine", token)).status_code == 403
    why = "an older state was put back" if with_bucket else "a row was inserted, removed or put back"
    await reported(hub, TOKENS, _key(hub, token), why)


async def test_a_deleted_parent(hub: Node) -> None:
    """A token whose parent's row was deleted by hand is refused, not made an orphan."""
    maker = await hub.token(
        "maker",
        {
            "path": {
                "secret/data/mine": {"capabilities": ["read"]},
                "auth/token/create": {"capabilities": ["update"]},
            }
        },
    )
    made = await hub.call("POST", "auth/token/create", maker, json={})
    child = made.json()["auth"]["client_token"]
    assert (await hub.call("GET", "secrets/mine", child)).status_code == 200
    await sql(hub.settings.database_url, "DELETE FROM tokens WHERE key = $1", _key(hub, maker))
    assert (await hub.call("GET", "secrets/mine", child)).status_code == 403
    await reported(hub, TOKENS, _key(hub, maker), "a row was inserted, removed or put back")


async def _role(hub: Node, name: str = "web", **more: Any) -> dict[str, str]:
    """Make a role, and return a login for it."""
    await hub.call("POST", f"auth/approle/role/{name}", json={"token_policies": ["narrow"], **more})
    role_id = (await hub.call("GET", f"auth/approle/role/{name}/role-id")).json()["data"]["role_id"]
    made = (await hub.call("POST", f"auth/approle/role/{name}/secret-id", json={})).json()["data"]
    return {"role_id": role_id, "secret_id": made["secret_id"]}


async def _login(hub: Node, login: dict[str, str]) -> int:
    return (await hub.call("POST", "auth/approle/login", "", json=login)).status_code


async def test_an_edited_role(hub: Node) -> None:
    """A role given other policies by SQL lets nobody in, and cannot be read; another role goes on."""
    login = await _role(hub)
    url = hub.settings.database_url
    mount = await mount_id(url)
    key = f"{mount}/web"
    other_name = named(APPROLES, f"{mount}/other", unlike=(key,)).removeprefix(f"{mount}/")
    other = await _role(hub, other_name)
    await sql(
        url,
        """UPDATE approles SET body = jsonb_set(body, '{token_policies}', '["root"]') WHERE key = $1""",
        key,
    )
    assert await _login(hub, login) == 500
    assert (await hub.call("GET", "auth/approle/role/web")).status_code == 500
    assert await _login(hub, other) == 200
    await reported(hub, APPROLES, key, "the row was edited")


async def test_an_inserted_role_id(hub: Node) -> None:
    """A RoleID that only a database writer bound to a role lets nobody in."""
    login = await _role(hub)
    url = hub.settings.database_url
    core = hub.process.core
    mount = await mount_id(url)
    chosen = next(
        name
        for name in (f"chosen-role-id-{n}" for n in range(100))
        if ROLE_IDS.bucket(role_id_digest(core.keyring(), mount, name))
        != ROLE_IDS.bucket(role_id_digest(core.keyring(), mount, login["role_id"]))
    )
    key = role_id_digest(core.keyring(), mount, chosen)
    rows = await sql(url, "SELECT key FROM role_ids")
    await insert_copy(url, ROLE_IDS, rows[0]["key"], key)
    assert await _login(hub, {**login, "role_id": chosen}) == 500
    assert await _login(hub, login) == 200
    await reported(hub, ROLE_IDS, key, "its bucket is missing")


async def test_an_inserted_role(hub: Node) -> None:
    """A role that only a database writer made is none: nobody reads it or has a SecretID made for it."""
    await _role(hub, token_policies=["wide"])
    url = hub.settings.database_url
    mount = await mount_id(url)
    key = named(APPROLES, f"{mount}/ghost", unlike=(f"{mount}/web",))
    await insert_copy(url, APPROLES, f"{mount}/web", key)
    place = f"auth/approle/role/{key.removeprefix(f'{mount}/')}"
    for method, path in (("GET", place), ("GET", f"{place}/role-id"), ("POST", f"{place}/secret-id")):
        answer = await hub.call(method, path, json={})
        assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure"), path
    await reported(hub, APPROLES, key, "its bucket is missing")


@pytest.mark.parametrize("with_buckets", [False, True])
async def test_a_deleted_role_with_all_that_was_its(hub: Node, with_buckets: bool) -> None:
    """A role that was deleted does not come back by SQL, also not with its RoleID, SecretID and buckets."""
    url = hub.settings.database_url
    login = await _role(hub)
    key = f"{await mount_id(url)}/web"
    assert await _login(hub, login) == 200
    kept = [(APPROLES, *await saved(url, APPROLES, key))]
    for table in (ROLE_IDS, SECRET_IDS):
        (row,) = await sql(url, f"SELECT key FROM {table.name}")
        kept.append((table, *await saved(url, table, row["key"])))
    assert (await hub.call("DELETE", "auth/approle/role/web")).status_code == 204
    assert await _login(hub, login) == 400
    for table, row, bucket in kept:
        await put_back(url, table, row, bucket if with_buckets else None)
    assert await _login(hub, login) == 500
    why = "an older state was put back" if with_buckets else "a row was inserted, removed or put back"
    await reported(hub, ROLE_IDS, kept[1][1]["key"], why)


async def test_a_deleted_role(hub: Node) -> None:
    """A role deleted by hand lets nobody in, and is no free name: it is missed."""
    login = await _role(hub)
    key = f"{await mount_id(hub.settings.database_url)}/web"
    await sql(hub.settings.database_url, "DELETE FROM approles WHERE key = $1", key)
    assert await _login(hub, login) == 500
    answer = await hub.call("POST", "auth/approle/role/web", json={"token_policies": ["wide"]})
    assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure")
    await reported(hub, APPROLES, key, "a row was inserted, removed or put back")


async def test_a_former_role(hub: Node) -> None:
    """The former, wider state of a role does not come back."""
    url = hub.settings.database_url
    login = await _role(hub, token_policies=["wide"])
    key = f"{await mount_id(url)}/web"
    row, bucket = await saved(url, APPROLES, key)
    await hub.call("POST", "auth/approle/role/web", json={"token_policies": ["narrow"]})
    assert await _login(hub, login) == 200
    await put_back(url, APPROLES, row, bucket)
    assert await _login(hub, login) == 500
    await reported(hub, APPROLES, key, "an older state was put back")


@pytest.mark.parametrize("with_bucket", [False, True])
async def test_an_exhausted_secret_id(hub: Node, with_bucket: bool) -> None:
    """A SecretID that is used up does not come back by SQL, also not with its bucket."""
    url = hub.settings.database_url
    login = await _role(hub, secret_id_num_uses=1)
    key = (await sql(url, "SELECT key FROM secret_ids"))[0]["key"]
    row, bucket = await saved(url, SECRET_IDS, key)
    assert await _login(hub, login) == 200
    assert await _login(hub, login) == 400
    await put_back(url, SECRET_IDS, row, bucket if with_bucket else None)
    assert await _login(hub, login) == 500
    why = "an older state was put back" if with_bucket else "a row was inserted, removed or put back"
    await reported(hub, SECRET_IDS, key, why)


async def test_a_secret_id_with_more_uses(hub: Node) -> None:
    """A counted SecretID put back to more uses, or edited, is refused."""
    url = hub.settings.database_url
    login = await _role(hub, secret_id_num_uses=3)
    key = (await sql(url, "SELECT key FROM secret_ids"))[0]["key"]
    row, _ = await saved(url, SECRET_IDS, key)
    assert await _login(hub, login) == 200
    await put_back(url, SECRET_IDS, row)
    assert await _login(hub, login) == 500
    await reported(hub, SECRET_IDS, key, "a row was inserted, removed or put back")


TEAM = next(
    name
    for name in (f"team-{n}" for n in range(100))
    if MOUNTS.bucket(f"{name}/") not in {MOUNTS.bucket(path) for path in ("secret/", "auth/approle/")}
)

_MOUNT_EDITS = [
    ("UPDATE mounts SET body = jsonb_set(body, '{uuid}', '\"other\"') WHERE key = $1", "the row was edited"),
    ("DELETE FROM mounts WHERE key = $1", "a row was inserted, removed or put back"),
]


@pytest.mark.parametrize(("edit", "why"), _MOUNT_EDITS)
async def test_an_edited_or_deleted_mount(hub: Node, edit: str, why: str) -> None:
    """A mount that was edited or deleted by SQL is refused; other mounts and the system's paths go on."""
    await hub.call("POST", f"sys/mounts/{TEAM}", json={"type": "kv", "options": {"version": "2"}})
    assert (await hub.call("POST", f"{TEAM}/data/a", json={"data": {"k": "v"}})).status_code == 200
    await sql(hub.settings.database_url, edit, f"{TEAM}/")
    answer = await hub.call("GET", f"{TEAM}/data/a")
    assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure")
    assert (await hub.call("GET", "secrets/mine")).status_code == 200
    assert (await hub.call("GET", "sys/mounts")).status_code == 200
    assert (await hub.call("GET", "sys/health")).status_code == 200
    await reported(hub, MOUNTS, f"{TEAM}/", why)


async def test_an_inserted_mount(hub: Node) -> None:
    """A mount that only a database writer made, onto another store, does not answer."""
    url = hub.settings.database_url
    token = await hub.token("spy", {"path": {"spy/*": {"capabilities": ["read"]}}})
    assert MOUNTS.bucket("spy/") != MOUNTS.bucket("secret/")
    await insert_copy(url, MOUNTS, "secret/", "spy/")
    assert (await hub.call("GET", "spy/data/mine", token)).status_code == 500
    assert (await hub.call("GET", "secrets/mine")).status_code == 200
    await reported(hub, MOUNTS, "spy/", "its bucket is missing")


async def test_a_node_unseals_beside_a_tampered_mount(hub: Node) -> None:
    """Tampering while the cluster is sealed is found out, and does not keep the rest from answering."""
    await hub.call("POST", f"sys/mounts/{TEAM}", json={"type": "kv", "options": {"version": "2"}})
    assert (await hub.call("PUT", "sys/seal")).status_code == 204
    url = hub.settings.database_url
    await sql(url, "DELETE FROM mounts WHERE key = $1", f"{TEAM}/")
    await sql(
        url,
        "UPDATE authority_buckets SET mac = '' WHERE table_name = 'policies' AND bucket = $1",
        POLICIES.bucket("default"),
    )
    await hub.unseal()
    assert (await hub.call("GET", "secrets/mine")).status_code == 200
    assert (await hub.call("GET", f"{TEAM}/data/a")).status_code == 500
    await reported(hub, MOUNTS, f"{TEAM}/", "a row was inserted, removed or put back")
    made = await hub.call("POST", "auth/token/create", json={"policies": ["default"]})
    token = made.json()["auth"]["client_token"]
    assert (await hub.call("GET", "auth/token/lookup-self", token)).status_code == 403
    await reported(hub, POLICIES, "default", "the authentication of bucket")


_BREAKS: list[Callable[[str], str]] = [
    lambda table: f"UPDATE {table} SET body = '{{}}'",
    lambda table: f"UPDATE {table} SET mac = ''",
    lambda table: f"DELETE FROM {table}",
    lambda table: f"UPDATE {table} SET bucket = bucket + 1",
    lambda table: f"UPDATE authority_buckets SET digest = '' WHERE table_name = '{table}'",
    lambda table: f"DELETE FROM authority_buckets WHERE table_name = '{table}'",
]


@pytest.mark.parametrize("breaks", _BREAKS)
async def test_nothing_decides_from_broken_tables(hub: Node, breaks: Callable[[str], str]) -> None:
    """With every row of every table of authority broken the same way, nobody gets in, and all is clear."""
    token = await hub.token("app", OPEN)
    login = await _role(hub)
    assert (await hub.call("GET", "secrets/mine", token)).status_code == 200
    for table in TABLES:
        await sql(hub.settings.database_url, breaks(table.name))
    # What was read while it was authentic stays so; this process is to keep nothing.
    hub.process.core.caches.flush()
    for who in (token, hub.root):
        assert (await hub.call("GET", "secrets/mine", who)).status_code == 403
        assert (await hub.call("POST", "secrets/mine", who, json={"data": {}})).status_code == 403
        assert (await hub.call("POST", "auth/token/create", who, json={})).status_code == 403
    assert await _login(hub, login) in {403, 500}
    assert (await hub.call("GET", "sys/health")).status_code == 200
    told = await reasons(hub.settings.database_url)
    assert any("tokens row" in reason for reason in told)
