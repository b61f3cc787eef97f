"""Whoever names a policy that is not there is told, where roles and users are written as for tokens."""

from __future__ import annotations

from typing import Any

import pytest

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
