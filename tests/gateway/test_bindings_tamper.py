"""Bindings written by a database administrator, and by way of another process."""

from __future__ import annotations

import pytest

from secrethub.auth.digests import token_digest
from secrethub.engines.bindings import Subject
from secrethub.storage.authority import BINDINGS
from tests.gateway.behind import sql
from tests.gateway.conftest import Node, native
from tests.gateway.pair import second
from tests.gateway.second_process import Second
from tests.gateway.test_tamper import insert_copy, put_back, reported, saved

__all__ = ["second"]  # the fixture

BIND = "sys/policies/bindings/other"


@pytest.fixture
async def hub(node: Node) -> Node:
    """A node with a secret and a policy ``other`` that lets read it."""
    await node.call("POST", "secrets/other/db", json={"data": {"k": "canary"}})
    await node.call("PUT", "sys/policies/acl/other", json={"policy": native("secrets/other/**")})
    return node


async def made(node: Node) -> tuple[str, str, str]:
    """Make a token without rights; return it, its accessor, and the key of its bindings."""
    made = (await node.call("POST", "auth/token/create", json={"policies": ["default"]})).json()["auth"]
    digest = token_digest(node.process.core.keyring(), made["client_token"])
    return made["client_token"], made["accessor"], Subject("token", digest).key


async def status(node: Node, token: str) -> int:
    """Ask for the secret."""
    return (await node.call("GET", "secrets/other/db", token)).status_code


async def test_an_inserted_binding(hub: Node) -> None:
    """A copy of an honest binding under another subject's key gives nobody anything."""
    token, accessor, key = await made(hub)
    mine, _, my_key = await made(hub)
    while BINDINGS.bucket(my_key) == BINDINGS.bucket(key):  # one in a thousand has its row beside the other
        mine, _, my_key = await made(hub)
    assert (await hub.call("POST", BIND, json={"accessor": accessor})).status_code == 204
    assert (await status(hub, token), await status(hub, mine)) == (200, 403)
    await insert_copy(hub.settings.database_url, BINDINGS, key, my_key)
    assert await status(hub, mine) == 403
    await reported(hub, BINDINGS, my_key, "its bucket is missing")


async def test_an_edited_binding(hub: Node) -> None:
    """A binding whose policies were edited lets its subject do nothing at all until it is repaired."""
    token, accessor, key = await made(hub)
    await hub.call("PUT", "sys/policies/acl/little", json={"policy": native("secrets/little")})
    await hub.call("POST", "sys/policies/bindings/little", json={"accessor": accessor})
    edit = "UPDATE bindings SET body = jsonb_set(body, '{policies}', '[\"other\"]') WHERE key = $1"
    await sql(hub.settings.database_url, edit, key)
    assert await status(hub, token) == 403
    assert (await hub.call("GET", "auth/token/lookup-self", token)).status_code == 403
    await reported(hub, BINDINGS, key, "the row was edited")
    bystander, _, _ = await made(hub)
    assert (await hub.call("GET", "auth/token/lookup-self", bystander)).status_code == 200


@pytest.mark.parametrize("with_bucket", [False, True])
async def test_a_binding_put_back(hub: Node, with_bucket: bool) -> None:
    """A binding that was taken away and is put back, with its bucket too, gives nothing."""
    token, accessor, key = await made(hub)
    await hub.call("POST", BIND, json={"accessor": accessor})
    assert await status(hub, token) == 200
    row, bucket = await saved(hub.settings.database_url, BINDINGS, key)
    await hub.call("POST", f"{BIND}/remove", json={"accessor": accessor})
    await put_back(hub.settings.database_url, BINDINGS, row, bucket if with_bucket else None)
    assert await status(hub, token) == 403
    why = "an older state was put back" if with_bucket else "a row was inserted, removed or put back"
    await reported(hub, BINDINGS, key, why)


async def test_a_denial_that_was_bound_and_deleted(hub: Node) -> None:
    """A bound denial is missed when somebody deletes its row: its subject may do nothing."""
    made = await hub.call("POST", "auth/token/create", json={"policies": ["other"]})
    token, accessor = made.json()["auth"]["client_token"], made.json()["auth"]["accessor"]
    deny = native("secrets/other/**", capabilities=("*",), effect="deny")
    await hub.call("PUT", "sys/policies/acl/never", json={"policy": deny})
    await hub.call("POST", "sys/policies/bindings/never", json={"accessor": accessor})
    assert await status(hub, token) == 403
    await sql(hub.settings.database_url, "DELETE FROM bindings")
    assert await status(hub, token) == 403


async def test_every_node_knows_before_the_answer(hub: Node, second: Second) -> None:
    """What one process binds or takes away decides the next request to another, whatever that has cached."""
    token, accessor, _ = await made(hub)

    async def there() -> int:
        return (await second.call("GET", "secrets/other/db", token)).status_code

    for _ in range(5):
        assert await there() == 403
        assert (await hub.call("POST", BIND, json={"accessor": accessor})).status_code == 204
        assert await there() == 200
        body = {"accessor": accessor}
        assert (await second.call("POST", f"{BIND}/remove", hub.root, json=body)).status_code == 204
        assert await status(hub, token) == 403


async def test_a_process_that_stood_still(hub: Node, second: Second) -> None:
    """A process that was stopped while a binding was taken away gives nothing for it afterwards."""
    token, accessor, _ = await made(hub)
    await hub.call("POST", BIND, json={"accessor": accessor})
    assert (await second.call("GET", "secrets/other/db", token)).status_code == 200
    second.stop()
    try:
        removed = await hub.call("POST", f"{BIND}/remove", json={"accessor": accessor})
        assert removed.status_code == 204
    finally:
        second.go_on()
    assert (await second.call("GET", "secrets/other/db", token)).status_code == 403
