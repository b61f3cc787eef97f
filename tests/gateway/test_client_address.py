"""Clients behind a proxy: their addresses decide, and are in the ledger, if the proxy is trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.gateway.approle_steps import FAILED, role, secret_id
from tests.gateway.behind import sql
from tests.gateway.conftest import Node, native, node_settings, running
from tests.gateway.kv import ok
from tests.gateway.raw_http import request, wire


@pytest.fixture
async def behind_proxy(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    """A node that trusts a proxy on this machine."""
    settings = node_settings(tmp_path, database_url)
    async with running(msgspec.structs.replace(settings, trusted_proxies=("127.0.0.0/8",))) as node:
        # Without a word from the proxy nobody is on this machine, so nobody could initialise.
        refused = await node.call("PUT", "sys/init", json={"secret_shares": 1, "secret_threshold": 1})
        assert refused.status_code == 403
        node.client.headers["X-Forwarded-For"] = "127.0.0.1"
        await node.initialise()
        await node.unseal()
        yield node


async def test_the_proxys_word_decides(behind_proxy: Node) -> None:
    """A login bound to a network gets in by what the trusted proxy saw, not by what the client wrote."""
    node = behind_proxy
    body = {"role_id": await role(node, secret_id_bound_cidrs="192.0.2.0/24")}
    body["secret_id"] = (await secret_id(node))["secret_id"]
    for value, allowed in (
        ("192.0.2.7", True),
        ("198.51.100.1, 192.0.2.7", True),
        ("192.0.2.7, 127.0.0.5", True),
        ("192.0.2.7, 198.51.100.1", False),
        ("192.0.2.7, nonsense", False),
        ("", False),
    ):
        headers = {"X-Forwarded-For": value}
        answer = await node.call("POST", "auth/approle/login", "", json=body, headers=headers)
        assert (answer.status_code == 200) == allowed, value
        if not allowed:
            assert answer.json()["errors"] == FAILED
    seen = await sql(
        node.settings.database_url,
        "SELECT DISTINCT client FROM audit_entries WHERE operation = 'approle.login' ORDER BY client",
    )
    assert [row["client"] for row in seen] == ["", "192.0.2.7", "198.51.100.1"]


async def test_each_request_of_a_connection_has_its_own(behind_proxy: Node) -> None:
    """A proxy's connection has requests of many: what one of them may, decided a moment ago, no other may."""
    node = behind_proxy
    await ok(node, "POST", "secrets/a", {"data": {"k": "v"}})
    await ok(node, "PUT", "sys/policies/acl/reader", {"policy": native("secrets/a")})
    bound = {"allowed_policies": "reader", "token_bound_cidrs": "192.0.2.0/24"}
    await ok(node, "POST", "auth/token/roles/r", bound)
    made = await node.call("POST", "auth/token/create/r", json={})
    token = f"X-Vault-Token: {made.json()['auth']['client_token']}"
    async with wire(node) as connection:
        for forwarded, status in (
            ("192.0.2.7", 200),
            ("192.0.2.7", 200),
            ("192.0.2.7", 200),
            ("198.51.100.1", 403),
            ("::ffff:192.0.2.7", 200),
            ("192.0.2.7, 198.51.100.1", 403),
            ("198.51.100.1, 192.0.2.7", 200),
            ("192.0.2.7, 127.0.0.1", 200),
            ("192.0.2.7\r\nX-Forwarded-For: 198.51.100.1", 403),
            ("", 403),
            ("192.0.2.7", 200),
        ):
            await connection.send(request("/v1/secrets/a", token, f"X-Forwarded-For: {forwarded}"))
            assert (await connection.reply()).status == status, forwarded
        await connection.send(request("/v1/secrets/a", token))
        assert (await connection.reply()).status == 403
