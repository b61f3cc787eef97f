"""An application that knows its database password only from a file: ``database_app.py FILE URL``.

It asks the database twenty times a second, and connects anew when the file has changed. Ended by SIGTERM it
tells how often it asked, how often that failed and as whom it was connected.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg

_PAUSE = 0.05


async def work(file: Path, url: str) -> dict[str, Any]:
    """Ask until SIGTERM; return what is told."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    seen, connection, asked, users, failed = "", None, 0, [], []
    while not ended.is_set():
        try:
            if (now := file.read_text()) != seen:
                if connection is not None:
                    await connection.close()
                connection, seen = None, now
            if connection is None:
                user, password = (quote(word, safe="") for word in seen.split())
                parts = urlsplit(url)
                connection = await asyncpg.connect(
                    parts._replace(netloc=f"{user}:{password}@{parts.netloc}").geturl()
                )
                users.append(user)
            asked += 1
            assert await connection.fetchval("SELECT one FROM things") == 1
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as exc:
            failed.append(f"{type(exc).__name__}: {exc}")
        await asyncio.sleep(_PAUSE)
    return {"asked": asked, "failed": failed, "users": users}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(work(Path(sys.argv[1]), sys.argv[2]))))
