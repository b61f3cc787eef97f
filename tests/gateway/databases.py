"""Fixtures of tests on databases: a node that may connect to loopback, and a target behind a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.conftest import Node
from tests.gateway.database_target import TargetDatabase, target_database
from tests.gateway.kv import ok

MOUNT = "secrets/dynamic/postgresql"
CREATION = [
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
    'GRANT SELECT ON things TO "{{name}}"',
]


@pytest.fixture
async def target(postgres_url: str) -> AsyncIterator[TargetDatabase]:
    """A target with a table of things."""
    async with target_database(postgres_url) as made:
        await made.sql("CREATE TABLE things AS SELECT 1 AS one")
        yield made


@pytest.fixture
async def ready(leasing: Node, target: TargetDatabase) -> Node:
    """The node with the connection ``db`` and the role ``app``."""
    await ok(leasing, "POST", f"{MOUNT}/config/db", target.config())
    await ok(leasing, "POST", f"{MOUNT}/roles/app", role())
    return leasing


def role(**more: Any) -> dict[str, Any]:
    """Return the body of a request that writes a role."""
    return {"db_name": "db", "creation_statements": CREATION, "default_ttl": "1h", "max_ttl": "24h", **more}


async def creds(node: Node, token: str | None = None, name: str = "app") -> dict[str, Any]:
    """Make a user, and return the whole answer."""
    answer = await node.call("GET", f"{MOUNT}/creds/{name}", token)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body
