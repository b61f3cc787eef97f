"""The path of a secret over HTTP: init, unseal, write, read, refuse, seal."""

from __future__ import annotations

import asyncio

import asyncpg

from tests.gateway.conftest import Node, native


async def test_init_unseal_write_read_seal(sealed_node: Node) -> None:
    """A cluster is made, opened by three of five shares, keeps versions, and stops answering when sealed."""
    node = sealed_node
    assert (await node.call("GET", "sys/health")).status_code == 501
    await node.initialise()
    assert (await node.call("GET", "sys/health")).status_code == 503
    assert (await node.call("GET", "secrets/a")).status_code == 503
    await node.unseal()
    assert (await node.call("GET", "sys/health")).status_code == 200
    for value in ("one", "two"):
        written = await node.call("POST", "secrets/a/b", json={"data": {"password": value}})
        assert written.status_code == 200
    newest = (await node.call("GET", "secrets/a/b")).json()["data"]
    assert newest["data"] == {"password": "two"}
    assert newest["metadata"]["version"] == 2
    older = (await node.call("GET", "secret/data/a/b?version=1")).json()["data"]
    assert older["data"] == {"password": "one"}
    assert (await node.call("PUT", "sys/seal")).status_code == 204
    assert (await node.call("GET", "secrets/a/b")).status_code == 503
    await node.unseal()
    assert (await node.call("GET", "secrets/a/b")).json()["data"]["data"] == {"password": "two"}


async def test_second_init_is_refused(node: Node) -> None:
    """A cluster that exists is never made again."""
    again = await node.call("PUT", "sys/init", json={})
    assert again.status_code == 400
    assert again.json()["errors"] == ["Vault is already initialized"]


async def test_wrong_share_blocks_nobody(sealed_node: Node) -> None:
    """A wrong, a mistyped and a repeated share are each refused by name; the right ones still open."""
    node = sealed_node
    await node.initialise()
    right = node.shares
    assert (await node.call("PUT", "sys/unseal", json={"key": right[0]})).json()["progress"] == 1
    for wrong in ("zz", right[0], "A" * 44):
        answer = await node.call("PUT", "sys/unseal", json={"key": wrong})
        assert answer.status_code == 400
        assert answer.json()["code"] == "wrong_share"
    status = (await node.call("GET", "sys/seal-status")).json()
    assert status["progress"] == 1
    await node.call("PUT", "sys/unseal", json={"key": right[3]})
    assert (await node.call("PUT", "sys/unseal", json={"key": right[4]})).json()["sealed"] is False


async def test_reset_forgets_the_shares(sealed_node: Node) -> None:
    """Reset brings the progress back to nothing."""
    await sealed_node.initialise()
    await sealed_node.call("PUT", "sys/unseal", json={"key": sealed_node.shares[0]})
    answer = await sealed_node.call("PUT", "sys/unseal", json={"reset": True})
    assert answer.json()["progress"] == 0


async def test_policy_decides_and_changes_at_once(node: Node) -> None:
    """A token reads what its policy grants, nothing else, and loses it with the policy."""
    await node.call("POST", "secrets/app/db", json={"data": {"k": "v"}})
    token = await node.token("app", native("secrets/app/**"))
    assert (await node.call("GET", "secrets/app/db", token)).status_code == 200
    assert (await node.call("POST", "secrets/app/db", token, json={"data": {}})).status_code == 403
    assert (await node.call("GET", "secrets/other", token)).status_code == 403
    await node.call("DELETE", "sys/policies/acl/app")
    assert (await node.call("GET", "secrets/app/db", token)).status_code == 403


async def test_check_and_set(node: Node) -> None:
    """A write with a wrong check-and-set version changes nothing; of concurrent ones just one wins."""
    first = await node.call("POST", "secrets/c", json={"data": {"n": 0}, "options": {"cas": 0}})
    assert first.status_code == 200
    wrong = await node.call("POST", "secrets/c", json={"data": {"n": 9}, "options": {"cas": 0}})
    assert wrong.status_code == 400
    assert "check-and-set" in wrong.json()["errors"][0]
    racing = await asyncio.gather(
        *(node.call("POST", "secrets/c", json={"data": {"n": i}, "options": {"cas": 1}}) for i in range(8))
    )
    assert sorted(answer.status_code for answer in racing) == [200] + [400] * 7


async def test_ledger_verifies_and_names_a_tampered_row(node: Node) -> None:
    """The ledger of what happened verifies; one edited field is found and named."""
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    await node.call("GET", "secrets/a")
    good = (await node.call("POST", "sys/audit/verify")).json()["data"]
    assert good["ok"]
    assert good["entries"] > 8
    connection = await asyncpg.connect(node.settings.database_url)
    try:
        row = await connection.fetchrow(
            """UPDATE audit_entries SET actor = 'somebody else'
               WHERE (stream, number) = (SELECT stream, number FROM audit_entries
                                         WHERE operation = 'kv.read' LIMIT 1)
               RETURNING stream, number"""
        )
    finally:
        await connection.close()
    assert row is not None
    bad = (await node.call("POST", "sys/audit/verify")).json()["data"]
    assert bad["ok"] is False
    assert bad["first_bad"] == {"stream": row["stream"], "number": row["number"], "reason": "edited"}
