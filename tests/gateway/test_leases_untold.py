"""Credentials whose answer reaches nobody end at once, not with their lease."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import ready, target
from tests.gateway.rotation_hosts import enrolled_host
from tests.gateway.test_agent_dynamic import CREDS, PATHS, TEMPLATE

__all__ = ["ready", "target"]  # the fixtures

_MADE = b"PASSWORD 'SCRAM"


async def _ends(node: Node, target: TargetDatabase) -> None:
    """Check that what was made ends, and why."""
    url = node.settings.database_url

    async def ended() -> bool:
        told = await entries(url, operation="lease.abandon")
        return bool(told) and not await target.users() and not await sql(url, "SELECT id FROM leases")

    await until(ended)
    (told,) = await entries(url, operation="lease.abandon")
    (made,) = await entries(url, operation="database.creds", outcome="done")
    assert told["path"] == made["detail"]["answer"]["lease"]
    assert made["actor"].startswith(told["actor"])
    assert told["reason"] == "nobody was there to take the answer"
    await ledger_is_good(node, state=True)


async def _made(node: Node, target: TargetDatabase) -> None:
    """Let the target go on, once the node has heard that who asked is gone."""
    for _ in range(3):
        assert (await node.call("GET", "sys/health")).status_code == 200
    target.proxy.release()


@pytest.mark.parametrize("wrap", ["", "X-Vault-Wrap-TTL: 60\r\n"])
async def test_who_asked_by_http_is_gone(ready: Node, target: TargetDatabase, wrap: str) -> None:
    """A client that ends its connection while its user is made leaves none, wrapped or not."""
    assert ready.settings.http is not None
    target.proxy.set(_MADE, lost=False)
    _, writer = await asyncio.open_connection("127.0.0.1", ready.settings.http.port)
    head = f"GET /v1/{CREDS} HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: {ready.root}\r\n{wrap}\r\n"
    writer.write(head.encode())
    await target.proxy.sprung.wait()
    writer.close()
    await _made(ready, target)
    await _ends(ready, target)


async def test_a_head_request_keeps_nothing(ready: Node, target: TargetDatabase) -> None:
    """HEAD tells nobody who was made."""
    assert (await ready.client.head(f"/v1/{CREDS}", headers={"X-Vault-Token": ready.root})).status_code == 200
    await _ends(ready, target)


async def test_an_agent_is_gone(ready: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """An agent that dies while its user is made leaves none."""
    target.proxy.set(_MADE, lost=False)
    async with enrolled_host(ready, tmp_path, TEMPLATE, paths=PATHS) as host:
        await target.proxy.sprung.wait()
        await host.kill()
        await _made(ready, target)
        await _ends(ready, target)
