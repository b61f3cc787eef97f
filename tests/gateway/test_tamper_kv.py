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


_CHANGES: dict[str, tuple[str, str, Any]] = {
    "delete": ("DELETE", f"secrets/{_PATH}", None),
    "write": ("POST", f"secrets/{_PATH}", {"data": {"k": "canary-2"}}),
    "patch": ("PATCH", f"secret/data/{_PATH}", {"data": {"k": "canary-2"}}),
    "delete versions": ("POST", f"secret/delete/{_PATH}", {"versions": [1]}),
    "destroy": ("POST", f"secret/destroy/{_PATH}", {"versions": [1]}),
    "metadata": ("POST", f"secret/metadata/{_PATH}", {"cas_required": True}),
    "metadata patch": ("PATCH", f"secret/metadata/{_PATH}", {"custom_metadata": {"k": "v"}}),
    "rollback": ("POST", f"secret/rollback/{_PATH}", {"version": 1}),
}


@pytest.mark.parametrize("change", _CHANGES)
async def test_a_former_state(node: Node, change: str) -> None:
    """A deleted version does not come back, nor a former value, when every row of it is put back."""
    url = node.settings.database_url
    await node.call("POST", f"secrets/{_PATH}", json={"data": {"k": "canary-1"}})
    former = await saved(url)
    method, place, document = _CHANGES[change]
    assert (await node.call(method, place, json=document)).status_code in {200, 204}
    await put_back(url, *former)
    node.process.core.caches.flush()
    for method, path, body in (
        ("GET", f"secrets/{_PATH}", None),
        ("GET", f"secrets/{_PATH}?version=1", None),
        ("GET", f"secret/metadata/{_PATH}", None),
        ("POST", f"secrets/{_PATH}", {"data": {"k": "canary-3"}}),
        ("DELETE", f"secrets/{_PATH}", None),
        ("PATCH", f"secrets/{_PATH}", {"data": {}}),
        ("POST", f"secret/undelete/{_PATH}", {"versions": [1]}),
        ("POST", f"secret/destroy/{_PATH}", {"versions": [1]}),
        ("POST", f"secret/metadata/{_PATH}", {"max_versions": 1}),
        ("DELETE", f"secret/metadata/{_PATH}", None),
        ("GET", f"secret/compare/{_PATH}?from=1&to=1", None),
        ("POST", f"secret/rollback/{_PATH}", {"version": 1}),
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


@pytest.mark.parametrize(
    "edit",
    [
        "delete_version_after = 0",
        'custom_metadata = \'{"owner":"mallory"}\'',
        "custom_metadata = ''",
        "cas_required = false",
        "max_versions = 0",
        "versions = replace(versions, 'true', 'false')",
    ],
)
async def test_an_edited_head(node: Node, edit: str) -> None:
    """What a secret's head says is not changed by hand, neither its settings nor what was destroyed."""
    url = node.settings.database_url
    await node.call("POST", f"secrets/{_PATH}", json={"data": {"k": "canary-1"}})
    settings = {
        "delete_version_after": "1h",
        "custom_metadata": {"owner": "us"},
        "cas_required": True,
        "max_versions": 5,
    }
    assert (await node.call("POST", f"secret/metadata/{_PATH}", json=settings)).status_code == 204
    assert (await node.call("POST", f"secret/destroy/{_PATH}", json={"versions": [1]})).status_code == 204
    await sql(url, f"UPDATE kv_secrets SET {edit}")
    node.process.core.caches.flush()
    for method, path, body in (
        ("GET", f"secret/metadata/{_PATH}", None),
        ("GET", f"secrets/{_PATH}", None),
        ("POST", f"secret/undelete/{_PATH}", {"versions": [1]}),
        ("POST", f"secrets/{_PATH}", {"data": {}}),
    ):
        answer = await node.call(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure"), (method, path)


async def test_edited_settings_of_the_store(node: Node) -> None:
    """Settings of a whole store are part of the mount's row, and no use once that was edited."""
    url = node.settings.database_url
    assert (await node.call("POST", "secret/config", json={"cas_required": True})).status_code == 204
    await sql(
        url,
        """UPDATE mounts SET body = jsonb_set(body, '{settings,cas_required}', 'false')
           WHERE key = 'secret/'""",
    )
    for method, path in (("GET", "secret/config"), ("POST", "secret/data/a"), ("GET", "secret/data/a")):
        answer = await node.call(method, path, json={"data": {}} if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (500, "integrity_failure"), (method, path)
