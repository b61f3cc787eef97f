"""Fixtures of tests on databases: a node that may connect to loopback, and a target behind a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.conftest import Node, node_settings, running
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
async def leasing(database_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    """A node whose operator lets it connect to loopback."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url), outbound_networks=("127.0.0.1/32",)
    )
    async with running(settings) as node:
        await node.initialise()
        await node.unseal()
        yield node


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
