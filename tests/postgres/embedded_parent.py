"""A process that runs an embedded server, commits one row, tells about it and waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncpg

from cluster.postgres import EmbeddedPostgres


async def main() -> None:
    """Run until killed."""
    server = EmbeddedPostgres(Path(sys.argv[1]) / "pg")
    url = await server.start()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    sys.stdout.write(f"{url} {server.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


asyncio.run(main())
