"""Steps that the tests of data keys share."""

from __future__ import annotations

from typing import Any

from secrethub.crypto import aead
from tests.gateway.behind import sql, until
from tests.gateway.conftest import Caller, Node


async def term(node: Caller) -> int:
    """Number of the newest data key, as the node tells it."""
    return int((await node.call("GET", "sys/key-status")).json()["data"]["term"])


async def rotated(node: Node, *, alone: bool = True) -> int:
    """Make a data key, wait until the node seals with it (soon if it is ``alone``), return its number."""
    if alone:
        node.process.core.data_keys.spread = 0
    answer = await node.call("PUT", "sys/rotate")
    assert answer.status_code == 204, answer.text
    number = await term(node)
    await until(lambda: seals_with(node, number))
    return number


async def seals_with(node: Node, number: int) -> bool:
    """Tell whether the node's process seals with that data key."""
    return node.process.core.keyring().sealing == number


async def sealed_under(url: str, path: str) -> list[int]:
    """Numbers of the data keys that the versions of a secret are sealed with, the oldest first."""
    rows = await sql(
        url,
        """SELECT v.sealed FROM kv_versions v JOIN kv_secrets s ON s.id = v.id
           WHERE s.path = $1 ORDER BY v.version""",
        path,
    )
    return [aead.key_number(row["sealed"]) for row in rows]


async def put(node: Caller, path: str, **data: Any) -> None:
    """Write a secret."""
    answer = await node.call("POST", f"secrets/{path}", json={"data": data})
    assert answer.status_code == 200, answer.text


async def got(node: Caller, path: str, version: int | None = None) -> dict[str, Any]:
    """Read a secret."""
    answer = await node.call("GET", f"secrets/{path}", params={"version": version} if version else {})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]["data"]
    return data
