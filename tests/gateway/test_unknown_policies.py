"""Whoever names a policy that is not there is told, where roles and users are written as for tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.gateway.behind import entries
from tests.gateway.conftest import Node, native
from tests.private_authority import certify


@pytest.mark.parametrize("name", ["policies", "token_policies"])
async def test_whoever_writes_them_is_told(node: Node, name: str) -> None:
    """Each name that is no policy's is told of, and kept; a write that names none is answered as ever."""
    written = await node.call("PUT", "sys/policies/acl/known", json={"policy": native("secrets/a")})
    assert written.status_code == 204
    writes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("auth/approle/role/web", {}),
        ("auth/approle/role/web/policies", {}),
        ("auth/userpass/users/ada", {"password": "correct horse"}),
        ("auth/userpass/users/ada/policies", {}),
        ("auth/cert/certs/web", {"certificate": certify("Root", authority=True).pem}),
    )
    for path, body in writes:
        told = await node.call("POST", path, json={**body, name: ["KNOWN", "mispelt", "default", "other"]})
        assert told.status_code == 200, (path, told.text)
        answer = told.json()
        assert answer["data"] is None
        assert answer["warnings"] == ['policy "mispelt" does not exist', 'policy "other" does not exist'], (
            path
        )
        whole = path.removesuffix("/policies")
        kept = (await node.call("GET", whole)).json()["data"]["token_policies"]
        assert kept == ["default", "known", "mispelt", "other"]
        if whole == path:
            assert (await node.call("POST", path, json={"token_ttl": "1h"})).status_code == 204, path
        good = await node.call("POST", path, json={name: ["known", "default"]})
        assert good.status_code == 204, (path, good.text)


async def test_a_warning_that_cannot_be_given(node: Node) -> None:
    """What was written is answered as such, also where policies cannot be looked at just then."""
    blocker = await asyncpg.connect(node.settings.database_url)
    cut_off = """SELECT pg_terminate_backend(pid) FROM pg_locks
                 WHERE NOT granted AND relation = 'policies'::regclass"""
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE policies IN ACCESS EXCLUSIVE MODE")
            body = {"token_policies": ["mispelt", "other"]}
            writing = asyncio.create_task(node.call("POST", "auth/approle/role/web", json=body))
            async with asyncio.timeout(30):
                while not await blocker.fetchval(cut_off):  # noqa: ASYNC110 - a database cannot signal
                    await asyncio.sleep(0.02)
                answer = await writing
    finally:
        await blocker.close()
    assert answer.status_code == 204, answer.text
    kept = (await node.call("GET", "auth/approle/role/web")).json()["data"]["token_policies"]
    assert kept == ["mispelt", "other"]
    told = await entries(node.settings.database_url, path="auth/approle/role/web", kind="outcome")
    assert [entry["outcome"] for entry in told] == ["done"]
