"""What has expired goes by itself."""

from __future__ import annotations

from pathlib import Path

from serve.timing import Timing
from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import node_settings, running

_AGE = """UPDATE changes SET at = at - interval '2 hours'
          WHERE sequence = (SELECT min(sequence) FROM changes) RETURNING sequence"""


async def test_a_serving_process_removes_what_is_over(database_url: str, tmp_path: Path) -> None:
    """Nobody asks for it: an announcement of two hours ago goes, those of today stay."""
    async with running(node_settings(tmp_path, database_url), timing=Timing(tidy=0.1)) as node:
        await node.initialise()
        await node.unseal()
        old = (await sql(database_url, _AGE))[0]["sequence"]

        async def gone() -> bool:
            return not await sql(database_url, "SELECT 1 FROM changes WHERE sequence = $1", old)

        await until(gone)
        assert await sql(database_url, "SELECT 1 FROM changes")
        await ledger_is_good(node)
