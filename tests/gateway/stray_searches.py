"""Having the targets of a node searched for users without a lease, instead of waiting for an hour."""

from __future__ import annotations

from tests.gateway.behind import sql, until
from tests.gateway.conftest import Node

_DUE = """UPDATE stray_checks SET checked_at = NULL, not_before = now(), error = ''"""


async def due(node: Node) -> None:
    """Have the node's one target be searched as soon as possible, as it is configured now."""
    url = node.settings.database_url
    await until(lambda: sql(url, "SELECT key FROM stray_checks"))
    await sql(url, _DUE)


async def searched(node: Node) -> tuple[int, list[str]]:
    """Have the node's one target searched, and return what was found and is there still."""
    url = node.settings.database_url
    await due(node)
    (row,) = await until(lambda: sql(url, "SELECT * FROM stray_checks WHERE checked_at IS NOT NULL"))
    return row["strays"], list(row["names"])
