"""A gateway is killed while entries are written and checkpoints made: the ledger verifies."""

from __future__ import annotations

import asyncio
import contextlib
import random

import httpx2

from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.pair import second
from tests.gateway.second_process import Second
from tests.gateway.test_ledger_tamper import settled

__all__ = ["second"]


async def test_a_gateway_killed_while_checkpoints_are_made(node: Node, second: Second) -> None:
    """Every answer that a killed process gave is in the ledger, and checkpoints go on without a gap."""
    url = node.settings.database_url
    assert (await node.call("POST", "secrets/a", json={"data": {"k": "v"}})).status_code == 200
    answered: list[str] = []

    async def read() -> None:
        with contextlib.suppress(httpx2.TransportError):
            while True:
                answer = await second.call("GET", "secrets/a", node.root)
                assert answer.status_code == 200
                answered.append(answer.headers["x-request-id"])

    async def checkpoints() -> int:
        return int((await sql(url, "SELECT count(*) AS n FROM audit_checkpoints"))[0]["n"])

    readers = [asyncio.create_task(read()) for _ in range(4)]
    before = await checkpoints()

    async def two_more() -> bool:
        return await checkpoints() >= before + 2

    await until(two_more)
    await asyncio.sleep(random.random())
    second.kill()
    await asyncio.gather(*readers)
    await until(lambda: settled(url))
    found = await ledger_is_good(node, state=True)
    assert found["checkpoints"] >= before + 2
    written = await sql(url, "SELECT request_id FROM audit_entries WHERE operation = 'kv.read'")
    assert answered
    assert set(answered) <= {row["request_id"] for row in written}
