"""Secrets put back into a former state by a database administrator: refused, counted and in the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.behind import integrity_failures, ledger_is_good, reasons, sql
from tests.gateway.conftest import Node

_PATH = "app/db"


async def saved(url: str) -> tuple[Any, list[Any]]:
    """Return the head's row and those of its versions, as they are now."""
    head = (await sql(url, "SELECT * FROM kv_secrets WHERE path = $1", _PATH))[0]
    return head, await sql(url, "SELECT * FROM kv_versions WHERE id = $1", head["id"])


async def put_back(url: str, head: Any, versions: list[Any]) -> None:
    """Make the secret what it was, every row of it."""
    await sql(url, "DELETE FROM kv_secrets WHERE path = $1", _PATH)
    places = ", ".join(f"${n}" for n in range(1, len(head) + 1))
    await sql(url, f"INSERT INTO kv_secrets VALUES ({places})", *head.values())
    for row in versions:
        await sql(url, "INSERT INTO kv_versions VALUES ($1, $2, $3)", *row.values())


@pytest.mark.parametrize("change", ["delete", "write"])
async def test_a_former_state(node: Node, change: str) -> None:
    """A deleted version does not come back, nor a former value, when every row of it is put back."""
    url = node.settings.database_url
    await node.call("POST", f"secrets/{_PATH}", json={"data": {"k": "canary-1"}})
    former = await saved(url)
    if change == "delete":
        assert (await node.call("DELETE", f"secrets/{_PATH}")).status_code == 204
    else:
        await node.call("POST", f"secrets/{_PATH}", json={"data": {"k": "canary-2"}})
    await put_back(url, *former)
    node.process.core.caches.flush()
    for method, path, body in (
        ("GET", f"secrets/{_PATH}", None),
        ("GET", f"secrets/{_PATH}?version=1", None),
        ("GET", f"secret/metadata/{_PATH}", None),
        ("POST", f"secrets/{_PATH}", {"data": {"k": "canary-3"}}),
        ("DELETE", f"secrets/{_PATH}", None),
    ):
        answer = await node.call(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure"), (method, path)
        assert "canary" not in answer.text
    assert (await integrity_failures(node))["kv_secrets"] >= 5
    assert any("an older state was put back" in reason for reason in await reasons(url))
    await ledger_is_good(node)


async def test_a_removed_secret(node: Node) -> None:
    """A secret whose rows were removed is missed, and none is made in its place unseen."""
    url = node.settings.database_url
    await node.call("POST", f"secrets/{_PATH}", json={"data": {"k": "canary-1"}})
    await sql(url, "DELETE FROM kv_secrets")
    node.process.core.caches.flush()
    assert (await node.call("GET", f"secrets/{_PATH}")).status_code == 500
    assert (await node.call("POST", f"secrets/{_PATH}", json={"data": {"k": "x"}})).status_code == 500
